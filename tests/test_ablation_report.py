"""The report: intervals and pairs against SciPy, the paper's numbers, what the page tells."""

import json
import math

import fake_runs
import numpy as np
import pytest
import scipy.stats
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from PIL import Image

from inception import paper
from inception.ablation import report
from inception.ablation.rows import config_file, load_rows, load_setting, make_runs
from inception.ablation.statistics import Estimate, compare
from inception.workdir import resolve_workdir

TABLE_3 = ("v2", "v2_rmsprop", "v2_label_smoothing", "v2_factorized_7x7", "v3")
ERRORS = {  # wrong images of 360, seed by seed
    "v2": (12, 10, 14),
    "v2_rmsprop": (8, 7, 9),
    "v2_label_smoothing": (8, 6, 4),
    "v2_factorized_7x7": (4, 4, 4),
    "v3": (3, 0, 2),
}


def make(names, workdir, seeds=3):
    rows = load_rows(names, load_setting("digits"))
    return rows, make_runs(rows, seeds, epath.Path(workdir))


@pytest.fixture(scope="module")
def table3(tmp_path_factory):
    """Table 3 as if it had been run."""
    workdir = epath.Path(tmp_path_factory.mktemp("table3"))
    rows, runs = make(TABLE_3, workdir)
    for run in runs:
        wrong = ERRORS[run.row][run.seed]
        fake_runs.write_run(run.config, run.workdir, ema_errors=wrong, raw_errors=wrong + 2)
        run.note(error="", seconds=60, machine="1 x abacus")
    return workdir, rows, runs


@pytest.fixture(scope="module")
def written(table3):
    workdir, rows, runs = table3
    report.write(workdir, rows, runs, "python -m inception.ablation --the=command")
    return workdir, json.loads((workdir / "report.json").read_text())


def test_interval_is_students():
    values = np.random.default_rng(0).normal(size=4)
    estimate = Estimate.of(dict(enumerate(values)))
    expected = scipy.stats.t.interval(0.95, 3, values.mean(), scipy.stats.sem(values))
    assert estimate.interval == pytest.approx(expected)
    assert estimate.deviation == pytest.approx(values.std(ddof=1))


def test_interval_covers_the_mean_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(size=(4000, 3))
    intervals = [Estimate.of(dict(enumerate(draw))).interval for draw in draws]
    covered = np.mean([low < 0 < high for low, high in intervals])
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 4000))


def test_one_seed_has_no_interval():
    assert Estimate.of({0: 0.25}) == Estimate({0: 0.25}, 0.25, 0.0, ())


def test_rows_are_measured(table3):
    _, rows, runs = table3
    compared = {row.name: row for row in compare(rows, runs).rows}
    for name, wrong in ERRORS.items():
        by_seed = [compared[name].error.by_seed[seed] for seed in range(3)]
        assert np.multiply(by_seed, 360) == pytest.approx(wrong)
        raw = compared[name].measured["raw"]["top1_error"].mean
        assert raw - compared[name].error.mean == pytest.approx(2 / 360)


def test_differences_are_paired_by_seed(table3):
    _, rows, runs = table3
    compared = {row.name: row for row in compare(rows, runs).rows}
    test = scipy.stats.ttest_rel(ERRORS["v2_rmsprop"], ERRORS["v2"])
    difference = compared["v2_rmsprop"].difference
    interval = test.confidence_interval(0.95)
    assert np.multiply(difference.interval, 360) == pytest.approx((interval.low, interval.high))
    assert compared["v2"].difference is None


def test_seeds_without_partner_make_no_pair(tmp_path):
    rows, runs = make(("v2", "v2_rmsprop"), tmp_path)
    for run in runs:
        if (run.row, run.seed) not in (("v2", 1), ("v2_rmsprop", 0)):
            fake_runs.write_run(run.config, run.workdir, 5, 5)
    compared = compare(rows, runs)
    assert list(compared.rows[1].difference.by_seed) == [2]
    assert compared.not_run == ["v2, seed 1", "v2_rmsprop, seed 0"]


def test_facts_of_the_data_come_from_the_runs(table3):
    compared = compare(*table3[1:])
    assert compared.training_examples == fake_runs.TRAINING_EXAMPLES
    assert compared.examples == fake_runs.EXAMPLES
    assert compared.classes == fake_runs.CLASSES
    assert compared.seconds == 15 * 60
    assert compared.machines == ["1 x abacus"]


def test_costs_are_of_the_rows_networks(table3):
    compared = {row.name: row.cost for row in compare(*table3[1:]).rows}
    assert compared["v2"] == compared["v2_rmsprop"] == compared["v2_label_smoothing"]
    assert compared["v2"]["multiply_adds"] < compared["v3"]["multiply_adds"]
    assert compared["v3"]["parameters"] < compared["v3"]["parameters_with_side_head"]


def test_json_holds_everything(written):
    _, facts = written
    assert facts["command"] == "python -m inception.ablation --the=command"
    assert [row["name"] for row in facts["rows"]] == list(TABLE_3)
    v3 = facts["rows"][-1]
    assert v3["changes"] == {"model.aux_head": ["plain", "bn"]}
    assert v3["paper"] == {"top1": 21.2, "top5": 5.6, "billion_ops": 4.8}
    assert v3["measured"]["ema"]["top1_error"]["by_seed"]["2"] == pytest.approx(2 / 360)


def test_page_shows_measured_beside_reported(written):
    page = (written[0] / "report.md").read_text()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    changed = "optimizer: momentum → rmsprop"
    result = ["v2_rmsprop", changed, "2.22 [1.53, 2.91]", "3", "23.1", "6.3", "table 3"]
    points = ["-1.11 [-1.80, -0.42]", "yes", "-1.11, -0.83, -1.39", "-0.3"]
    assert result in cells
    assert ["v2_rmsprop", "v2", changed, *points] in cells
    for said in ("--the=command", "1,437 images to train on", "360 of validation", "1 x abacus"):
        assert said in page
    assert "3.8 G (table 3). That cannot be matched" in page


def test_pictures_are_small_and_not_empty(written):
    for name in ("curves.png", "errors.png", "costs.png"):
        file = written[0] / name
        assert len(file.read_bytes()) < 200_000
        pixels = np.asarray(Image.open(file).convert("RGB"))
        assert min(pixels.shape[:2]) > 200
        colours = {tuple(pixel) for pixel in pixels.reshape(-1, 3)}
        assert {(31, 119, 180), (148, 103, 189)} <= colours  # the first row's and the last's
        assert f"]({name})" in (written[0] / "report.md").read_text()


class Bucket(MemoryFileSystem):
    """Stands in for gcsfs, without a network."""

    protocol = ("gcs", "gs")

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("gs:/"))


def test_an_ablation_in_a_bucket(monkeypatch):
    monkeypatch.setitem(_registry, "gcs", Bucket)
    get_filesystem = backend.fsspec_backend._get_filesystem
    get_filesystem.cache_clear()
    try:
        workdir = resolve_workdir("gs://bucket/table3")
        rows, runs = make(("v2", "v3"), workdir, seeds=1)
        for run in runs:
            fake_runs.write_run(run.config, run.workdir, ema_errors=4, raw_errors=6)
            run.note(error="", seconds=60, machine="1 x abacus")
        report.write(workdir, rows, runs, "python ...")
        assert "2 of 2 runs are finished" in (workdir / "report.md").read_text()
        assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
    finally:
        get_filesystem.cache_clear()


def test_failures_are_told_with_their_reasons(tmp_path):
    rows, runs = make(("v2", "v3"), tmp_path, seeds=2)
    fake_runs.write_run(runs[0].config, runs[0].workdir, 5, 5)
    for run in runs[2:]:
        run.note(error="TrainingError: step 7: the loss is nan")
    report.write(epath.Path(tmp_path), rows, runs, "python ...")
    page = (tmp_path / "report.md").read_text()
    assert "1 of 4 runs are finished, 2 failed (see below), 1 are still to be run" in page
    assert "v3, seed 0; v3, seed 1:\n\n```\nTrainingError: step 7: the loss is nan\n```" in page
    assert "Still to be run: v2, seed 1." in page
    assert (tmp_path / "curves.png").exists()


def test_report_before_the_first_result(tmp_path):
    rows, runs = make(("v2", "v3"), tmp_path, seeds=1)
    report.write(epath.Path(tmp_path), rows, runs, "python ...")
    assert "0 of 2 runs are finished" in (tmp_path / "report.md").read_text()
    assert not (tmp_path / "curves.png").exists()


def test_papers_numbers_fall_along_table_3():
    rows = paper.RESULTS["table 3"]
    assert list(rows) == list(TABLE_3)
    errors = [row.top1 for row in rows.values()]
    assert errors == sorted(errors, reverse=True)
    assert paper.reported_change("v3", "v2_factorized_7x7") == -0.4  # section 4 says the same
    assert paper.reported_change("figure8_plain", "v3") == 0.4
    assert paper.reported_change("figure2_linear", "v3") == 1.0
    assert paper.reported_change("figure2_linear", "v2") is None


def test_papers_number_is_of_the_experiment_that_is_compared():
    assert paper.find_result("v3", TABLE_3)[0] == "table 3"
    experiment, result = paper.find_result("v3", ["v3", "figure2_linear"])
    assert (experiment, result.top1) == ("figure 2", 22.8)
    assert paper.find_result("figure9_pool_first", ["v3", "figure9_pool_first"]) is None


def test_every_reported_row_is_a_config():
    assert all(config_file(name).is_file() for rows in paper.RESULTS.values() for name in rows)
