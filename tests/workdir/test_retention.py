"""Which checkpoints stay: the newest, every n-th epoch's, the best."""

import json

import pytest

from inception.workdir import retention
from inception.workdir.retention import RetentionPolicy


def test_the_fields_of_the_config(tiny):
    assert retention.from_config(tiny(), 44.9) == RetentionPolicy(3, 0, False)
    fields = ["keep_checkpoints=2", "keep_every_epochs=0.5", "keep_best=true"]
    assert retention.from_config(tiny(*fields), 44.9) == RetentionPolicy(2, 22, True)
    assert retention.from_config(tiny("keep_every_epochs=0.001"), 44.9).every_steps == 1


@pytest.mark.parametrize(
    ("keep", "needed", "surplus"),
    [
        (RetentionPolicy(), [], [1, 2, 3]),
        (RetentionPolicy(newest=1), [], [1, 2, 3, 4, 5]),
        (RetentionPolicy(newest=9), [], []),
        (RetentionPolicy(newest=1, every_steps=3), [3, 6], [1, 2, 4, 5]),
        (RetentionPolicy(newest=1, best=True), [], [1, 3, 4, 5]),
        (RetentionPolicy(newest=1, every_steps=3, best=True), [3, 6], [1, 4, 5]),
    ],
)
def test_what_has_to_be_saved_and_what_need_not_be_kept(keep, needed, surplus):
    """Of six checkpoints the second is the best."""
    steps = [1, 2, 3, 4, 5, 6]
    assert [step for step in steps if keep.must_save(step)] == needed
    assert keep.surplus(steps, best=2) == surplus


def test_the_best_is_the_last_of_the_highest(tmp_path):
    assert retention.best_step(tmp_path, [1, 2]) is None
    lines = [
        {"step": 2, "eval/ema_top1": 0.9},
        {"step": 2, "train/loss": 1.0},
        {"step": 4, "eval/ema_top1": 0.9},
        {"step": 6, "eval/ema_top1": 0.8},
        {"step": 8, "eval/ema_top1": None},
        {"step": 9, "eval/ema_top1": 1.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert retention.best_step(tmp_path, [2, 4, 6, 8, 10]) == 4
    assert retention.best_step(tmp_path, [2, 6]) == 2
    assert retention.best_step(tmp_path, [8]) is None
    assert retention.was_evaluated(tmp_path, 8)  # to a score that is not finite
    assert not retention.was_evaluated(tmp_path, 1)


def test_one_with_logits_that_are_not_finite_is_the_best_of_nothing_else(tmp_path):
    lines = [
        {"step": 2, "eval/ema_top1": 0.1, "eval/ema_not_finite": 0},
        {"step": 4, "eval/ema_top1": 0.9, "eval/ema_not_finite": 1},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert retention.best_step(tmp_path, [2, 4]) == 2
    assert retention.best_step(tmp_path, [4]) == 4


def test_what_is_set_aside_is_never_overwritten(tmp_path):
    for content in "abc":
        (tmp_path / "7").mkdir()
        (tmp_path / "7" / "file").write_text(content)
        retention.quarantine(retention.epath.Path(tmp_path / "7"))
    found = {path.parent.name: path.read_text() for path in (tmp_path / "damaged").glob("*/file")}
    assert found == {"7": "a", "7_2": "b", "7_3": "c"}
