"""Saving and restoring exactly, and refusing what does not fit."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inception import checkpoints
from inception.checkpoints import CheckpointError, Checkpoints
from inception.errors import UserError

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


def test_a_missing_step_is_answered_with_those_there(tmp_path):
    with Checkpoints(tmp_path) as saved:
        with pytest.raises(CheckpointError, match="does not hold a checkpoint"):
            saved.restore(_like())
        saved.save(1, STATE)
    with Checkpoints(tmp_path) as saved, pytest.raises(CheckpointError, match=r"step 5.*\[1\]"):
        saved.restore(_like(), step=5)


def test_a_workdir_that_cannot_be_written(tmp_path, tiny):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        Checkpoints(tmp_path / "file")
    with pytest.raises(UserError, match="cannot be written"):
        checkpoints.claim(tmp_path / "file" / "below", tiny())


def test_a_workdir_belongs_to_its_config(tmp_path, tiny):
    checkpoints.claim(tmp_path, tiny("seed=1"))
    checkpoints.claim(
        tmp_path, tiny("seed=1", "num_epochs=99.0", "eval.crops=12", "on_bad_record=skip")
    )
    with pytest.raises(CheckpointError) as error:
        checkpoints.claim(tmp_path, tiny("seed=2", "model.stem=7x7", "num_epochs=3.0"))
    assert "config.seed: 1 in the workdir, 2 now" in str(error.value)
    assert "config.model.stem: 'factorized' in the workdir, '7x7' now" in str(error.value)
    assert "num_epochs" not in str(error.value)


def test_evaluation_asks_only_for_the_same_network(tmp_path, tiny):
    with pytest.raises(CheckpointError, match="holds no run"):
        checkpoints.check_model(tmp_path, tiny())
    checkpoints.claim(tmp_path, tiny())
    checkpoints.check_model(tmp_path, tiny("batch_size=32", "image_size=99"))
    with pytest.raises(CheckpointError, match=r"config\.model\.aux_head"):
        checkpoints.check_model(tmp_path, tiny("model.aux_head=none"))


def test_checkpoints_without_a_config_are_not_taken_over(tmp_path, tiny):
    with Checkpoints(tmp_path) as saved:
        saved.save(1, STATE)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        checkpoints.claim(tmp_path, tiny())


def test_workdirs_are_local_and_checkpoints_have_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert checkpoints.as_workdir("~/run") == Path("/home/me/run")
    assert checkpoints.locate("runs/a/checkpoints/90") == (Path("runs/a"), 90)
    assert checkpoints.locate("runs/a") == (Path("runs/a"), None)
    with pytest.raises(CheckpointError, match=r"gs://bucket/run is not a local path: mount"):
        checkpoints.as_workdir("gs://bucket/run")
