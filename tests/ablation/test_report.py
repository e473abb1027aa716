"""The report: intervals and pairs against SciPy, the paper's numbers, what the page says."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from PIL import Image

from inception import paper
from inception.ablation import report
from inception.ablation.results import compare, compare_images, estimate, read_runs
from inception.ablation.rows import config_file, load_rows, load_setting, make_runs
from inception.workdir.identity import resolve_workdir
from tests import fake_runs

TABLE_3 = ("v2", "v2_rmsprop", "v2_label_smoothing", "v2_factorized_7x7", "v3")
ERRORS = {  # wrong images of 360, seed by seed
    "v2": (12, 10, 14),
    "v2_rmsprop": (8, 7, 9),
    "v2_label_smoothing": (8, 6, 4),
    "v2_factorized_7x7": (4, 4, 4),
    "v3": (3, 0, 2),
}


def make(names, workdir, seeds=3):
    rows = load_rows(names, load_setting(config_file("digits")))
    return rows, make_runs(rows, seeds, epath.Path(workdir))


@pytest.fixture(scope="module")
def table3(tmp_path_factory):
    """Table 3 as if it had been run."""
    workdir = epath.Path(tmp_path_factory.mktemp("table3"))
    rows, runs = make(TABLE_3, workdir)
    for run in runs:
        wrong = ERRORS[run.row][run.config.seed]
        fake_runs.write_run(run.config, run.workdir, ema_errors=wrong, raw_errors=wrong + 2)
        run.note(error="", seconds=60, machine="1 x abacus")
    return workdir, rows, runs


@pytest.fixture(scope="module")
def written(table3):
    workdir, rows, runs = table3
    report.write(workdir, rows, runs, "python -m inception.ablation --the=command")
    return workdir, json.loads((workdir / "report.json").read_text())


def compared(rows, runs):
    return compare(rows, read_runs(runs)).set_index("row")


def test_interval_is_students():
    values = np.random.default_rng(0).normal(size=4)
    found = estimate(pd.Series(values))
    expected = scipy.stats.t.interval(0.95, 3, values.mean(), scipy.stats.sem(values))
    assert (found["low"], found["high"]) == pytest.approx(expected)
    assert found["deviation"] == pytest.approx(values.std(ddof=1))
    assert math.isnan(estimate(pd.Series([0.5, math.nan]))["mean"])  # a loss that was not finite
    one = estimate(pd.Series([0.25]))
    assert (one["by_seed"], one["seeds"], one["mean"]) == ({0: 0.25}, 1, 0.25)
    assert all(math.isnan(one[name]) for name in ("deviation", "low", "high"))


def _lists(wrong):
    """The images that are wrong, by seed, of bool [seeds, images]."""
    return pd.Series([np.flatnonzero(row).tolist() for row in wrong])


def test_the_interval_over_images_of_one_seed_is_that_of_the_paired_test():
    first, second = np.random.default_rng(0).random((2, 1, 500)) < 0.1
    found = compare_images(_lists(first), _lists(second), 500)
    test = scipy.stats.ttest_rel(first[0].astype(float), second[0].astype(float))
    expected = (test.confidence_interval(0.95).low, test.confidence_interval(0.95).high)
    assert (found["low"], found["high"]) == pytest.approx(expected)
    assert found["mean"] == pytest.approx(first.mean() - second.mean())
    assert found["newly_wrong"] == (first & ~second).sum()
    assert found["newly_right"] == (second & ~first).sum()


def test_seeds_that_differ_widen_the_interval_over_images():
    rng = np.random.default_rng(1)
    second = rng.random((3, 4000)) < 0.05
    alike = rng.random((3, 4000)) < 0.1
    spread = rng.random((3, 4000)) < np.array([[0.02], [0.1], [0.18]])
    intervals = [compare_images(_lists(each), _lists(second), 4000) for each in (alike, spread)]
    narrow, wide = (each["high"] - each["low"] for each in intervals)
    assert wide > 5 * narrow
    assert narrow < 0.05 < wide
    only_seeds = estimate(pd.Series((spread.mean(axis=1) - second.mean(axis=1)).tolist()))
    assert wide == pytest.approx(only_seeds["high"] - only_seeds["low"], rel=0.05)


def test_nothing_is_said_of_images_that_are_not_known():
    known, unknown = pd.Series([[1, 2]]), pd.Series([None])
    for pair in ((known, unknown), (unknown, known), (known[:0], known[:0])):
        assert all(math.isnan(value) for value in compare_images(*pair, 10).values())
    same = compare_images(known, known, 10)
    assert (same["mean"], same["low"], same["high"]) == (0, 0, 0)


def test_rows_are_measured(table3):
    _, rows, runs = table3
    table = compared(rows, runs)
    raw = read_runs(runs).groupby("row").raw_top1_error.mean()
    for name, wrong in ERRORS.items():
        by_seed = [table.error_by_seed[name][seed] for seed in range(3)]
        assert np.multiply(by_seed, 360) == pytest.approx(wrong)
        assert raw[name] - table.error_mean[name] == pytest.approx(2 / 360)


def test_differences_are_paired_by_seed(table3):
    _, rows, runs = table3
    table = compared(rows, runs)
    test = scipy.stats.ttest_rel(ERRORS["v2_rmsprop"], ERRORS["v2"])
    ends = table.loc["v2_rmsprop", ["difference_low", "difference_high"]].astype(float)
    assert (360 * ends).tolist() == pytest.approx([*test.confidence_interval(0.95)])
    assert table.difference_seeds["v2"] == 0
    assert table.multiply_adds["v2"] < table.multiply_adds["v3"]


def test_seeds_without_partner_make_no_pair(tmp_path):
    rows, runs = make(("v2", "v2_rmsprop"), tmp_path)
    for run in runs:
        if (run.row, run.config.seed) not in (("v2", 1), ("v2_rmsprop", 0)):
            fake_runs.write_run(run.config, run.workdir, 5, 5)
    assert list(compared(rows, runs).difference_by_seed["v2_rmsprop"]) == [2]
    table = read_runs(runs)
    assert [*table[table.examples.isna()].run] == ["v2, seed 1", "v2_rmsprop, seed 0"]


def test_json_holds_everything(written):
    _, facts = written
    assert facts["command"] == "python -m inception.ablation --the=command"
    assert [row["row"] for row in facts["rows"]] == list(TABLE_3)
    v3 = facts["rows"][-1]
    assert v3["changes"] == {"model.aux_head": ["plain", "bn"]}
    assert [v3[f"paper_{name}"] for name in ("top1", "top5", "billion_ops")] == [21.2, 5.6, 4.8]
    assert v3["error_by_seed"]["2"] == pytest.approx(2 / 360)
    assert facts["runs"][-1]["raw_top1_error"] == pytest.approx(4 / 360)
    assert facts["rows"][0]["difference_mean"] is None


def test_page_shows_measured_beside_reported(written):
    page = (written[0] / "report.md").read_text()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    changed = "optimizer: momentum → rmsprop"
    result = ["v2_rmsprop", changed, "2.22 [1.53, 2.91]", "3", "23.1", "6.3", "table 3"]
    assert result in cells
    (found,) = (line for line in cells if line[:3] == ["v2_rmsprop", "v2", changed])
    points, both, excludes, changes, *rest = found[3:]
    assert (points, changes) == ("-1.11 [-1.80, -0.42]", "0.0 / 4.0")
    assert rest == ["-1.11, -0.83, -1.39", "-0.3"]
    assert both.startswith("-1.11 [-2.")
    assert excludes == "yes"
    raw = next(line for line in cells if line[:2] == ["v3", "raw"])
    assert raw[-1].startswith("+0.56 [")
    for said in ("--the=command", "1,437 images to train on", "360 of validation", "1 x abacus"):
        assert said in page
    assert not {"nan", "None"} & {cell for line in cells for cell in line}


def test_pictures_are_small_and_not_empty(written):
    for name in ("curves.png", "errors.png"):
        file = written[0] / name
        assert len(file.read_bytes()) < 200_000
        pixels = np.asarray(Image.open(file).convert("RGB"))
        assert min(pixels.shape[:2]) > 200
        colors = {tuple(pixel) for pixel in pixels.reshape(-1, 3)}
        assert {(31, 119, 180), (148, 103, 189)} <= colors  # the first row's and the last's
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
    report.write(epath.Path(tmp_path), rows, runs, "python ...")
    assert "0 of 4 runs are finished" in (tmp_path / "report.md").read_text()
    assert not (tmp_path / "curves.png").exists()
    fake_runs.write_run(runs[0].config, runs[0].workdir, 5, 5)
    for run in runs[2:]:
        run.note(error="TrainingError: step 7: the loss is nan")
    report.write(epath.Path(tmp_path), rows, runs, "python ...")
    page = (tmp_path / "report.md").read_text()
    assert "1 of 4 runs are finished, 2 failed (see below), 1 have not been run" in page
    assert "v3, seed 0; v3, seed 1:\n\n```\nTrainingError: step 7: the loss is nan\n```" in page
    assert "Not run yet: v2, seed 1." in page
    assert (tmp_path / "curves.png").exists()


def test_the_papers_numbers():
    rows = paper.RESULTS["table 3"]
    assert list(rows) == list(TABLE_3)
    errors = [row.top1 for row in rows.values()]
    assert errors == sorted(errors, reverse=True)
    assert paper.reported_change("v3", "v2_factorized_7x7") == -0.4  # section 4 says the same
    assert math.isnan(paper.reported_change("figure2_linear", "v2"))
    # A row's number is that of the experiment that is compared.
    assert paper.find_result("v3", TABLE_3)[0] == "table 3"
    experiment, result = paper.find_result("v3", ["v3", "figure2_linear"])
    assert (experiment, result.top1) == ("figure 2", 22.8)
    assert all(config_file(name).is_file() for rows in paper.RESULTS.values() for name in rows)
