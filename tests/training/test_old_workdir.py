"""A workdir of an older version is continued and evaluated as that version would have done it.

old_workdir.tar.xz was written by the code of commit e8753c8, before config.json and checkpoints had
format numbers: four steps of the digits run at the smallest width on 64 images, their weights
coarsened to a few values so that the archive stays small. old_workdir.json is what that code then
made of it: its evaluation at step 4, steps 5 to 8 at LEARNING_RATE, and the final evaluation.
"""

import json
import tarfile
from functools import partial
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as orbax
import pytest

import inception
from inception.distributed import sharding
from inception.training.state import build
from inception.workdir import identity as workdir_lib
from inception.workdir.checkpoints import Checkpoints
from inception.workdir.logbook import read_metrics

pytestmark = pytest.mark.rounding

FOLDER = Path(__file__).parent
EXPECTED = json.loads((FOLDER / "old_workdir.json").read_text())
# At the run's own rate the rounding of one processor or version grows to some per cent of the next
# steps' losses (docs/decisions.md). At this one the weights hardly move: data, dropout, groups and
# running averages decide the losses, and every step shows the rounding of one forward pass.
LEARNING_RATE = 1e-6
TRAIN, HELD_OUT = slice(0, 64), slice(64, 96)


@pytest.fixture
def old(tmp_path) -> Path:
    with tarfile.open(FOLDER / "old_workdir.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "old_workdir"


def flat(results: dict, expected: dict) -> dict[str, float]:
    """The metrics that `expected` has, by the weights and the metric."""
    names = [(weights, name) for weights, metrics in expected.items() for name in metrics]
    return {f"{weights} {name}": results[weights][name] for weights, name in names}


def test_it_is_evaluated_with_equal_results(old, digits):
    config = workdir_lib.read_config(old)
    results = inception.evaluate_run(config, old, source=digits(HELD_OUT))
    expected = EXPECTED["evaluated"]
    assert flat(results, expected) == pytest.approx(flat(expected, expected), rel=1e-5)


def test_it_continues_with_equal_losses_to_an_equal_end(old, digits):
    stored = json.loads((old / "config.json").read_text())
    (old / "config.json").write_text(json.dumps({**stored, "learning_rate": LEARNING_RATE}))
    config = workdir_lib.read_config(old)
    results = inception.train_and_evaluate(config, old, digits(TRAIN), digits(HELD_OUT))
    lines = {line["step"]: line for line in read_metrics(old) if "train/loss" in line}
    assert sorted(lines) == list(range(1, 9))
    # A young network turns the rounding of 1e-7 into some per cent of its gradient, here up to 10.
    norm = EXPECTED["continued"][0].pop("train/grad_norm")
    assert lines[5]["train/grad_norm"] == pytest.approx(norm, rel=0.2)
    # Two kinds of processor and oneDNN were at most 6e-6 apart.
    for expected in EXPECTED["continued"]:
        actual = {name: lines[expected["step"]][name] for name in expected}
        assert actual == pytest.approx(expected, rel=1e-4)
    expected = EXPECTED["finished"]
    assert flat(results, expected) == pytest.approx(flat(expected, expected), rel=1e-4)


def test_every_value_of_its_state_is_restored(old):
    """Of the optimizer too, which so small a learning rate would not show."""
    stored = orbax.StandardCheckpointer().restore(old / "checkpoints" / "4" / "default")
    recipe, mesh = build(workdir_lib.read_config(old), 10, 4.0), sharding.make_mesh()
    with Checkpoints(old) as saved:
        create = partial(recipe.create_state, mesh)
        step, state = saved.restore(recipe.abstract_state(mesh), init_missing=create)
    assert step == 4
    for name, tree in stored.items():
        assert _values(getattr(state, name)) == _values(tree), name


def _values(tree) -> list[bytes]:
    """The bits of all leaves, in an order that does not depend on how the tree is nested."""
    return sorted(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))


def test_its_config_has_todays_fields(old):
    stored = json.loads((old / "config.json").read_text())
    assert "format" not in stored
    assert "mixed_7c_pool" not in stored["model"]
    assert workdir_lib.read_config(old).model.mixed_7c_pool == "average"


def test_a_field_that_is_no_more_is_named_and_ignored(old, digits, caplog):
    stored = json.loads((old / "config.json").read_text())
    (old / "config.json").write_text(json.dumps({**stored, "gone": 3}))
    config = workdir_lib.read_config(old)
    assert "gone" not in config
    assert "gone=3" in caplog.text
    workdir_lib.check_resumable(old, config, digits(TRAIN))
