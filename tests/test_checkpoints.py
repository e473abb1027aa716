"""Saving and restoring exactly, and refusing what does not fit."""

import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inception import checkpoints
from inception.checkpoints import Checkpoints
from inception.errors import CheckpointError

STATE = {"step": jnp.int32(7), "w": jnp.arange(6.0).reshape(2, 3)}


def _like(state=STATE):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )


def test_what_was_saved_comes_back(tmp_path):
    with Checkpoints(tmp_path) as saved:
        saved.save(7, STATE)
    with Checkpoints(tmp_path) as saved:
        step, state = saved.restore(_like())
    assert step == 7
    jax.tree.map(np.testing.assert_array_equal, state, STATE)


def test_a_save_in_flight_survives_an_exception(tmp_path):
    def crash():
        with Checkpoints(tmp_path) as saved:
            saved.save(1, STATE)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        crash()
    with Checkpoints(tmp_path) as saved:
        assert saved.steps() == [1]
        saved.restore(_like())


def test_the_newest_are_kept_and_one_of_them_can_be_chosen(tmp_path):
    with Checkpoints(tmp_path, keep=2) as saved:
        for step in (1, 2, 3):
            saved.save(step, {**STATE, "step": jnp.int32(step)})
    with Checkpoints(tmp_path, keep=2) as saved:
        assert saved.steps() == [2, 3]
        assert saved.restore(_like())[1]["step"] == 3
        assert saved.restore(_like(), step=2)[1]["step"] == 2


def test_saving_again_keeps_the_first(tmp_path):
    with Checkpoints(tmp_path) as saved:
        saved.save(1, STATE)
        saved.save(1, {**STATE, "step": jnp.int32(99)})
    with Checkpoints(tmp_path) as saved:
        assert saved.restore(_like())[1]["step"] == 7


def test_a_donated_state_is_saved_as_it_was(tmp_path):
    """The next step overwrites the state while the save is still being written."""
    bump = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    state = {"w": jnp.zeros((256, 1024))}
    like = _like(state)
    with Checkpoints(tmp_path) as saved:
        saved.save(0, state)
        for _ in range(5):
            state = bump(state)
    with Checkpoints(tmp_path) as saved:
        np.testing.assert_array_equal(saved.restore(like)[1]["w"], 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w": jnp.zeros((2, 4))}, r"w is float32\[2, 3\] in the checkpoint and float32\[2, 4\]"),
        ({"w": jnp.zeros((2, 3), jnp.bfloat16)}, r"float32\[2, 3\].*bfloat16\[2, 3\]"),
        ({"v": jnp.zeros(1)}, "v is absent in the checkpoint"),
    ],
)
def test_other_shapes_types_and_names_are_refused(tmp_path, change, message):
    with Checkpoints(tmp_path) as saved:
        saved.save(1, STATE)
    with Checkpoints(tmp_path) as saved, pytest.raises(CheckpointError, match=message):
        saved.restore(_like({**STATE, **change}))


def test_weights_can_be_restored_alone(tmp_path):
    with Checkpoints(tmp_path) as saved:
        saved.save(1, STATE)
    weights = {"w": _like()["w"]}
    with Checkpoints(tmp_path) as saved:
        _, restored = saved.restore(weights, part=True)
        assert saved.shapes(1) == {"step": (), "w": (2, 3)}
        with pytest.raises(CheckpointError, match=r"step is int32\[\]"):
            saved.restore(weights)
    assert restored.keys() == {"w"}
    np.testing.assert_array_equal(restored["w"], STATE["w"])


def test_leaves_that_the_state_has_gained_start_as_a_fresh_runs(tmp_path):
    with Checkpoints(tmp_path) as saved:
        saved.save(1, STATE)
    now = {"step": jnp.int32(0), "w": jnp.zeros((2, 3)), "skipped": jnp.int32(5)}
    with Checkpoints(tmp_path) as saved:
        _, restored = saved.restore(_like(now), fresh=lambda: now)
        with pytest.raises(CheckpointError, match="skipped is absent"):
            saved.restore(_like(now))
    jax.tree.map(np.testing.assert_array_equal, restored, {**STATE, "skipped": jnp.int32(5)})


def test_checkpoints_of_newer_versions_are_refused_by_their_format(tmp_path, monkeypatch):
    with monkeypatch.context() as newer:
        newer.setattr(checkpoints, "FORMAT", 3)
        with Checkpoints(tmp_path) as saved:
            saved.save(1, STATE)
    with Checkpoints(tmp_path) as saved, pytest.raises(CheckpointError, match="format 3"):
        saved.restore(_like())


def test_a_missing_step_is_answered_with_those_there(tmp_path):
    with Checkpoints(tmp_path) as saved:
        with pytest.raises(CheckpointError, match="does not hold a checkpoint"):
            saved.restore(_like())
        saved.save(1, STATE)
    with Checkpoints(tmp_path) as saved, pytest.raises(CheckpointError, match=r"step 5.*\[1\]"):
        saved.restore(_like(), step=5)


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        Checkpoints(tmp_path / "file")


def test_a_damaged_checkpoint_is_named_with_those_that_are_whole(tmp_path):
    with Checkpoints(tmp_path) as saved:
        saved.save(1, STATE)
        saved.save(2, STATE)
    for file in (tmp_path / "checkpoints" / "2").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    message = r"checkpoints/2 cannot be read: .* the others are used: \[1\]"
    with Checkpoints(tmp_path) as saved, pytest.raises(CheckpointError, match=message):
        saved.restore(_like())


def test_a_save_that_fails_names_the_last_checkpoint_that_is_whole(tmp_path):
    """As on a full disk: no file may grow beyond 64 kB."""

    def save(step, state):
        with Checkpoints(tmp_path) as saved:
            saved.save(step, state)

    save(1, STATE)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, unlimited[1]))
    try:
        noise = jax.random.normal(jax.random.key(0), (1 << 18,))  # does not compress
        with pytest.raises(CheckpointError, match=r"cannot be saved in .* from 1"):
            save(2, {"w": noise})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    with Checkpoints(tmp_path) as saved:
        assert saved.steps() == [1]
