"""Saving: asynchronous, what is kept, and what happens where it fails."""

import contextlib
import json
import os
import resource
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inception.errors import CheckpointError
from inception.workdir.checkpoint_writer import CheckpointWriter
from inception.workdir.checkpoints import Checkpoints
from inception.workdir.digests import DamagedCheckpoint
from inception.workdir.retention import RetentionPolicy
from tests import processes

STATE = {"step": jnp.int32(7), "w": jnp.arange(6.0).reshape(2, 3)}
NOISE = {"w": jax.random.normal(jax.random.key(0), (1 << 17,))}  # 512 kB, does not compress


def _like(state=STATE):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )


def _steps(workdir) -> list[int]:
    with Checkpoints(workdir) as saved:
        return saved.steps()


def test_a_save_in_flight_survives_an_exception(tmp_path):
    def crash():
        with CheckpointWriter(tmp_path) as saved:
            saved.save(1, STATE)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        crash()
    with Checkpoints(tmp_path) as saved:
        assert saved.steps() == [1]
        saved.restore(_like())


def test_saving_again_keeps_the_first(tmp_path):
    with CheckpointWriter(tmp_path) as saved:
        saved.save(1, STATE)
        saved.save(1, {**STATE, "step": jnp.int32(99)})
    with Checkpoints(tmp_path) as saved:
        assert saved.restore(_like())[1]["step"] == 7


def test_a_donated_state_is_saved_as_it_was(tmp_path):
    """The next step overwrites the state while the save is still being written."""
    bump = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    state = {"w": jnp.zeros((256, 1024))}
    like = _like(state)
    with CheckpointWriter(tmp_path) as saved:
        saved.save(0, state)
        for _ in range(5):
            state = bump(state)
    with Checkpoints(tmp_path) as saved:
        np.testing.assert_array_equal(saved.restore(like)[1]["w"], 0)


def test_one_in_several_steps_and_the_best_are_kept_too(tmp_path):
    scores = {1: 0.5, 2: 0.9, 3: 0.7, 4: 0.8, 5: 0.6, 6: 0.6, 7: 0.1}
    lines = (json.dumps({"step": n, "eval/ema_top1": score}) for n, score in scores.items())
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    with CheckpointWriter(tmp_path, RetentionPolicy(1, every_steps=4, best=True)) as saved:
        for step in scores:
            saved.save(step, STATE)
    assert _steps(tmp_path) == [2, 4, 7]


@pytest.mark.parametrize("name", ["run", "lr=[0.1]", "a*b?", "[a-z]", "100% #1"])
def test_a_path_is_no_pattern(tmp_path, name):
    """The newest are kept, and one of them can be chosen, whatever the workdir is called."""
    workdir = tmp_path / name
    with CheckpointWriter(workdir, RetentionPolicy(2)) as saved:
        for step in (1, 2, 3):
            saved.save(step, {**STATE, "step": jnp.int32(step)})
    with CheckpointWriter(workdir) as saved:
        assert saved.steps() == [2, 3]
        assert saved.restore(_like())[1]["step"] == 3
        assert saved.restore(_like(), step=2)[1]["step"] == 2


def test_what_cannot_be_read_back_replaces_nothing(tmp_path, monkeypatch, capsys):
    with CheckpointWriter(tmp_path, RetentionPolicy(2)) as saved:
        saved.save(1, STATE)
        saved.save(2, STATE)

    def run():
        with CheckpointWriter(tmp_path, RetentionPolicy(1)) as saved:
            saved.save(3, STATE)
            saved.save(4, STATE)

    with monkeypatch.context() as patch:
        patch.setattr(
            "inception.workdir.files.LiteralPath.glob", lambda *_: iter(())
        )  # nothing is found
        with pytest.raises(CheckpointError) as error:
            run()
    assert "step 4 was saved but cannot be read back" in str(error.value)
    assert "continues from 2" in str(error.value)
    assert "step 3 was saved but cannot be read back" in capsys.readouterr().out
    assert _steps(tmp_path) == [1, 2]
    with CheckpointWriter(tmp_path, RetentionPolicy(1)) as saved:
        assert saved.restore(_like())[0] == 2
        saved.save(5, STATE)
    assert _steps(tmp_path) == [5]


def test_an_error_removes_nothing(tmp_path):
    """Of several processes the others would not know of it."""
    with CheckpointWriter(tmp_path) as saved:
        saved.save(1, STATE)

    def crash():
        with CheckpointWriter(tmp_path, RetentionPolicy(1)) as saved:
            saved.save(2, STATE)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        crash()
    assert _steps(tmp_path) == [1, 2]


def test_a_damaged_checkpoint_is_set_aside_and_saved_again(tmp_path, capsys):
    with CheckpointWriter(tmp_path) as saved:
        for step in (1, 2, 3):
            saved.save(step, STATE)
    folder = tmp_path / "checkpoints"
    for step in (2, 3):
        (folder / str(step) / "default" / "manifest.ocdbt").write_bytes(b"")
    with CheckpointWriter(tmp_path, RetentionPolicy(2)) as saved:
        assert saved.restore(_like())[0] == 1
        assert saved.steps() == [1]
        saved.save(2, STATE)
    assert _steps(tmp_path) == [1, 2]
    assert {path.name for path in (folder / "damaged").iterdir()} == {"2", "3"}
    assert str(folder / "damaged" / "3") in capsys.readouterr().out


def test_nothing_is_set_aside_where_nothing_is_whole(tmp_path):
    with CheckpointWriter(tmp_path) as saved:
        saved.save(1, STATE)
    (tmp_path / "checkpoints" / "1" / "default" / "manifest.ocdbt").unlink()
    with CheckpointWriter(tmp_path) as saved, pytest.raises(DamagedCheckpoint):
        saved.restore(_like())
    assert _steps(tmp_path) == [1]


def test_a_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        CheckpointWriter(tmp_path / "file")


@contextlib.contextmanager
def _no_room(size: int = 1 << 16):
    """As on a full disk: no file may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_save_that_fails_is_told_and_tried_again(tmp_path, capsys):
    with CheckpointWriter(tmp_path, RetentionPolicy(1)) as saved:
        saved.save(1, STATE)
        for step in (2, 3):
            with _no_room():
                saved.save(step, NOISE)
                saved._wait()
        assert saved.steps() == [1]
        saved.save(4, NOISE)
    assert _steps(tmp_path) == [4]
    out = capsys.readouterr().out
    for step in (2, 3):
        assert f"step {step} cannot be saved" in out
    assert "The same command continues from 1" in out
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert left == {"4"}


def test_only_the_last_save_ends_the_run(tmp_path):
    def run():
        with CheckpointWriter(tmp_path) as saved:
            saved.save(1, STATE)
            saved.save(2, NOISE)

    with _no_room(), pytest.raises(CheckpointError, match=r"step 2 .* from 1"):
        run()
    assert _steps(tmp_path) == [1]


def test_an_error_is_not_hidden_by_a_save_that_fails_too(tmp_path, capsys):
    def crash(error: BaseException):
        with CheckpointWriter(tmp_path) as saved:
            saved.save(2, NOISE)
            raise error

    with _no_room(), pytest.raises(ZeroDivisionError):
        crash(ZeroDivisionError())
    assert "step 2 cannot be saved" in capsys.readouterr().out
    with _no_room(), pytest.raises(CheckpointError):  # what it says would not be true
        crash(KeyboardInterrupt("saved"))


def test_a_folder_that_is_removed_meanwhile_is_made_again(tmp_path, capsys):
    with CheckpointWriter(tmp_path, RetentionPolicy(2)) as saved:
        saved.save(1, STATE)
        saved._wait()
        shutil.rmtree(tmp_path / "checkpoints")
        saved.save(2, STATE)
        saved.save(3, STATE)
        saved.save(4, STATE)
    assert _steps(tmp_path) == [3, 4]
    assert "was deleted" in capsys.readouterr().out


TWO = """
import sys, pathlib, json, inception
from inception.distributed import processes
processes.connect()
import jax, jax.numpy as jnp
from inception.workdir import lock
from inception.distributed import sharding
from inception.workdir.checkpoint_writer import CheckpointWriter
rep = sharding.replicated(sharding.make_mesh())
state = jax.jit(lambda: {"w": jnp.arange(1e5)}, out_shardings=rep)()
like = {"w": jax.ShapeDtypeStruct((100_000,), jnp.float32, sharding=rep)}
workdir = pathlib.Path(sys.argv[1])
with lock.run_lock(workdir):
    with CheckpointWriter(workdir) as saved:
        saved.save(1, state)
        saved.save(2, state)
    if jax.process_index() == 0:
        (workdir / "checkpoints/2/default/manifest.ocdbt").write_bytes(b"")
        processes.publish("damaged", "")
    processes.wait_for("damaged")
    with CheckpointWriter(workdir) as saved:
        step, restored = saved.restore(like)
        print(json.dumps([step, saved.steps(), float(restored["w"][-1])]))
"""


def test_two_processes_of_one_run(tmp_path):
    """They share the lock, write one file of digests, and pass over the same checkpoint."""
    both = processes.start_together(2, TWO, tmp_path)
    assert [processes.result(process) for process in both] == [[1, [1], 99999.0]] * 2
    aside = tmp_path / "checkpoints" / "damaged" / "2"
    assert len(list(aside.rglob("sha256.json"))) == 1


@pytest.fixture
def disk(tmp_path):
    """A disk of 2 MB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_disk_that_becomes_read_only(disk, capsys):
    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)

    with CheckpointWriter(disk) as saved:
        saved.save(1, STATE)
        saved._wait()
        remount("ro")
        saved.save(2, STATE)
        saved.save(3, STATE)
        assert "step 2 cannot be saved" in capsys.readouterr().out
        remount("rw")
        saved.save(4, STATE)
    with Checkpoints(disk) as saved:
        assert saved.restore(_like())[0] == 4
        assert saved.steps() == [1, 4]
    remount("ro")
    with Checkpoints(disk) as saved:  # reading needs no right to write
        np.testing.assert_array_equal(saved.restore(_like(), step=1)[1]["w"], STATE["w"])
