"""Reading a report back: the committed one, and one that was just written."""

from pathlib import Path

import pytest
from etils import epath

from inception.ablation import report
from inception.ablation.reader import read_report
from inception.ablation.rows import config_file, load_rows, load_setting, make_runs
from tests import fake_runs

COMMITTED = Path(__file__).parents[2] / "docs/ablation/report.md"


def test_the_committed_report():
    tables = read_report(COMMITTED)
    weights = tables["EMA and raw weights"].set_index(["row", "weights"])
    smoothed = weights.loc["v2_label_smoothing", "EMA"]
    assert smoothed["mean confidence, %"] == 91.53
    assert smoothed["mean confidence, % ±"] == 0.92
    assert smoothed["loss, nats ±"] == 0.0229
    differences = tables["Differences"].set_index("row")
    assert differences.paper["v3"] == -0.4
    assert differences.points["v3"] == "-0.37 [-1.17, +0.43]"
    assert differences.paper.isna()["figure8_none"]
    assert tables["Cost"].parameters[0] == 1_375_886


def test_a_new_report(tmp_path):
    rows = load_rows(("v2_factorized_7x7", "v3"), load_setting(config_file("digits")))
    runs = make_runs(rows, 2, epath.Path(tmp_path))
    for run in runs:
        fake_runs.write_run(run.config, run.workdir, ema_errors=9, raw_errors=18)
        run.note(error="", seconds=60, machine="1 x abacus")
    report.write(epath.Path(tmp_path), rows, runs, "python ...")
    tables = read_report(tmp_path / "report.md")
    assert [*tables] == ["Results", "Differences", "EMA and raw weights", "Cost"]
    assert tables["Results"].seeds.tolist() == [2, 2]
    errors = tables["EMA and raw weights"].pivot(index="row", columns="weights")["top-1 error, %"]
    assert errors.loc["v3"].to_dict() == pytest.approx({"EMA": 2.5, "raw": 5})
