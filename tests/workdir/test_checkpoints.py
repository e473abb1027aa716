"""Restoring exactly what was saved, and refusing what does not fit or is damaged."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inception.errors import CheckpointError
from inception.workdir import checkpoints
from inception.workdir.checkpoint_writer import CheckpointWriter
from inception.workdir.checkpoints import Checkpoints
from inception.workdir.digests import DamagedCheckpoint

STATE = {"step": jnp.int32(7), "w": jnp.arange(6.0).reshape(2, 3)}


def _like(state=STATE):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )


def test_what_was_saved_comes_back(tmp_path):
    with CheckpointWriter(tmp_path) as saved:
        saved.save(7, STATE)
    with Checkpoints(tmp_path) as saved:
        step, state = saved.restore(_like())
    assert step == 7
    jax.tree.map(np.testing.assert_array_equal, state, STATE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"w": jnp.zeros((2, 4))}, r"w is float32\[2, 3\] in the checkpoint and float32\[2, 4\]"),
        ({"w": jnp.zeros((2, 3), jnp.bfloat16)}, r"float32\[2, 3\].*bfloat16\[2, 3\]"),
        ({"v": jnp.zeros(1)}, "v is absent in the checkpoint"),
    ],
)
def test_other_shapes_types_and_names_are_refused(tmp_path, change, message):
    with CheckpointWriter(tmp_path) as saved:
        saved.save(1, STATE)
    with Checkpoints(tmp_path) as saved, pytest.raises(CheckpointError, match=message):
        saved.restore(_like({**STATE, **change}))


def test_weights_can_be_restored_alone(tmp_path):
    with CheckpointWriter(tmp_path) as saved:
        saved.save(1, STATE)
    weights = {"w": _like()["w"]}
    with Checkpoints(tmp_path) as saved:
        _, restored = saved.restore(weights, allow_extra=True)
        seen: list = []
        saved.restore(lambda shapes: seen.append(shapes) or weights, allow_extra=True)
        assert seen == [{"step": (), "w": (2, 3)}]
        with pytest.raises(CheckpointError, match=r"step is int32\[\]"):
            saved.restore(weights)
    assert restored.keys() == {"w"}
    np.testing.assert_array_equal(restored["w"], STATE["w"])


def test_leaves_that_the_state_has_gained_start_as_a_fresh_runs(tmp_path):
    with CheckpointWriter(tmp_path) as saved:
        saved.save(1, STATE)
    now = {"step": jnp.int32(0), "w": jnp.zeros((2, 3)), "skipped": jnp.int32(5)}
    with Checkpoints(tmp_path) as saved:
        _, restored = saved.restore(_like(now), init_missing=lambda: now)
        with pytest.raises(CheckpointError, match="skipped is absent"):
            saved.restore(_like(now))
    jax.tree.map(np.testing.assert_array_equal, restored, {**STATE, "skipped": jnp.int32(5)})


def test_checkpoints_of_newer_versions_are_refused_by_their_format(tmp_path, monkeypatch):
    with monkeypatch.context() as newer:
        newer.setattr(checkpoints, "FORMAT", 4)
        with CheckpointWriter(tmp_path) as saved:
            saved.save(1, STATE)
    with Checkpoints(tmp_path) as saved, pytest.raises(CheckpointError, match="format 4"):
        saved.restore(_like())


def test_a_missing_step_is_answered_with_those_there(tmp_path):
    with CheckpointWriter(tmp_path) as saved:
        with pytest.raises(CheckpointError, match="does not have a checkpoint"):
            saved.restore(_like())
        saved.save(1, STATE)
    with Checkpoints(tmp_path) as saved, pytest.raises(CheckpointError, match=r"step 5.*\[1\]"):
        saved.restore(_like(), step=5)


@pytest.fixture(scope="module")
def saved_twice(tmp_path_factory):
    """A workdir with checkpoints 1 and 2, and a copy of the second."""
    workdir = tmp_path_factory.mktemp("twice")
    with CheckpointWriter(workdir) as saved:
        saved.save(1, STATE)
        saved.save(2, STATE)
    shutil.copytree(workdir / "checkpoints" / "2", workdir / "whole")
    return workdir


def _damages(content: bytes) -> dict[str, bytes | None]:
    """What can become of a file: None, if it is gone."""
    flipped = {}
    for position in {0, len(content) // 3, len(content) // 2, len(content) - 1}:
        copy = bytearray(content)
        copy[position] ^= 1 << position % 8
        flipped[f"bit {position % 8} of byte {position}"] = bytes(copy)
    return {"gone": None, "empty": b"", "cut": content[: len(content) // 2], **flipped}


def test_every_damage_to_every_file_is_named_or_harmless(saved_twice):
    newest, whole = saved_twice / "checkpoints" / "2", saved_twice / "whole"
    found = {True: 0, False: 0}
    for file in sorted(path for path in whole.rglob("*") if path.is_file()):
        target, content = newest / file.relative_to(whole), file.read_bytes()
        for what, damaged in _damages(content).items():
            target.unlink() if damaged is None else target.write_bytes(damaged)
            with Checkpoints(saved_twice) as saved:
                try:
                    step, state = saved.restore(_like(), step=2)
                except DamagedCheckpoint as error:
                    assert str(newest) in str(error)  # noqa: PT017
                    assert "[1]" in str(error)  # noqa: PT017
                    step, state = saved.restore(_like())
                    assert step == 1, (file, what)
                found[step == 2] += 1
            for leaf, expected in zip(jax.tree.leaves(state), jax.tree.leaves(STATE), strict=True):
                assert np.asarray(leaf).tobytes() == np.asarray(expected).tobytes(), (file, what)
            target.write_bytes(content)
    assert found[False] > found[True] / 2


def test_a_lost_folder_is_damage_too(saved_twice):
    newest, whole = saved_twice / "checkpoints" / "2", saved_twice / "whole"
    for part in ("default", "digests", "default/d", ""):
        shutil.rmtree(newest / part)
        newest.mkdir(exist_ok=True)
        with Checkpoints(saved_twice) as saved:
            assert saved.restore(_like())[0] == 1
        shutil.copytree(whole, newest, dirs_exist_ok=True)


def test_what_was_changed_and_still_decodes_is_known_by_its_leaf(saved_twice, tmp_path):
    """The arrays of another state under the digests of this one."""
    with CheckpointWriter(tmp_path) as other:
        other.save(2, {**STATE, "w": STATE["w"] + 1})
    mine = saved_twice / "checkpoints" / "2" / "digests"
    shutil.copytree(mine, tmp_path / "checkpoints" / "2" / "digests", dirs_exist_ok=True)
    message = r"checkpoints/2 is damaged: .*checksum of w .*no undamaged"
    with Checkpoints(tmp_path) as saved:
        with pytest.raises(DamagedCheckpoint, match=message):
            saved.restore(_like())
        _, part = saved.restore({"step": _like()["step"]}, allow_extra=True)  # this one is whole
    assert part["step"] == 7


def test_reading_changes_nothing_and_says_what_it_used(saved_twice, capsys):
    folder = saved_twice / "checkpoints"
    (folder / "2" / "default" / "_METADATA").unlink()
    (folder / "3.orbax-checkpoint-tmp").mkdir()  # which somebody else is just writing
    with Checkpoints(saved_twice) as saved:
        assert saved.restore(_like())[0] == 1
    assert {path.name for path in folder.iterdir()} == {"1", "2", "3.orbax-checkpoint-tmp"}
    out = capsys.readouterr().out
    assert "checkpoints/2 is damaged" in out
    assert "Checkpoint 1 is used instead" in out
    shutil.copytree(saved_twice / "whole", folder / "2", dirs_exist_ok=True)
    (folder / "3.orbax-checkpoint-tmp").rmdir()


def test_trouble_of_the_moment_sets_nothing_aside(saved_twice, monkeypatch):
    def read(_):
        raise PermissionError(13, "no right")

    monkeypatch.setattr("inception.workdir.digests.read", read)
    with CheckpointWriter(saved_twice) as saved, pytest.raises(CheckpointError) as error:
        saved.restore(_like())
    assert not isinstance(error.value, DamagedCheckpoint)
    assert "no right" in str(error.value)
    with Checkpoints(saved_twice) as saved:
        assert saved.steps() == [1, 2]
