"""A workdir in a bucket: trained, continued and evaluated against a storage emulator on loopback.

Checkpoints go through TensorStore, all other files through gcsfs, as with the real gs://; both are
told where the emulator is. TensorFlow's event writer knows no emulator: event files are copied
(logbook.py), here as everywhere.
"""

import json
import os
import socket
import threading
import zipfile
from http import HTTPStatus

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import inception
from inception.errors import CheckpointError
from inception.weights import load_any
from inception.workdir import lock
from inception.workdir.checkpoint_writer import CheckpointWriter
from inception.workdir.checkpoints import Checkpoints
from inception.workdir.identity import resolve_workdir

pytest.importorskip("gcsfs", reason="gs:// needs gcsfs")
server = pytest.importorskip("gcp_storage_emulator.server", reason="it stands in for the bucket")
objects = pytest.importorskip("gcp_storage_emulator.handlers.objects")
NotFound = pytest.importorskip("gcp_storage_emulator.exceptions").NotFound


def _download(request, response, storage, *, plain=objects.download):
    """Adds the generation, which GCS sends with every object and TensorStore wants to see."""
    plain(request, response, storage)
    if response.status < 300:
        file = storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])
        response["x-goog-generation"] = file["generation"]


def _upload(request, response, storage, *, plain=objects._multipart_upload):
    """Refuses to write what exists where that is asked for, as GCS does."""
    place = request.params["bucket_name"], request.data["meta"].get("name")
    exists = True
    try:
        storage.get_file_obj(*place)
    except NotFound:
        exists = False
    if exists and request.query.get("ifGenerationMatch") == ["0"]:
        response.status = HTTPStatus.PRECONDITION_FAILED
    else:
        plain(request, response, storage)


@pytest.fixture(scope="module")
def bucket():
    """The address of an empty bucket."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    emulator = server.create_server("localhost", port, in_memory=True, default_bucket="bucket")
    emulator.start()
    with pytest.MonkeyPatch.context() as environment:
        environment.setattr(objects, "download", _download)
        environment.setattr(objects, "_multipart_upload", _upload)
        environment.setenv("STORAGE_EMULATOR_HOST", f"http://localhost:{port}")
        environment.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://localhost:{port}")
        environment.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        yield "gs://bucket"
    emulator.stop()


@pytest.mark.slow
def test_a_run_in_a_bucket_is_the_run_on_a_disk(bucket, tiny, digits, tmp_path):
    """Stopped and continued in the bucket, in one go on the disk."""
    train, held_out = digits(slice(0, 40)), digits(slice(100, 120))
    # The program of test_train.py, compiled once for both.
    fields = ["num_epochs=2.4", "schedule=staircase", "augmentation=inception"]
    config = tiny(*fields, "log_every_steps=2")
    expected = inception.train_and_evaluate(config, tmp_path / "run", train, held_out)
    first = config.copy_and_resolve_references()
    first.num_epochs = 0.8  # two steps of six
    inception.train_and_evaluate(first, f"{bucket}/runs/a", train, held_out)
    results = inception.train_and_evaluate(config, f"{bucket}/runs/a", train, held_out)
    assert results == expected

    workdir = resolve_workdir(f"{bucket}/runs/a")
    assert json.loads((workdir / "results.json").read_text()) == expected
    assert (workdir / "results_confusion.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "train/loss" in line]
    assert steps == [2, 4, 6]
    local = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    losses = [line["train/loss"] for line in local if "train/loss" in line]
    assert [line["train/loss"] for line in lines if "train/loss" in line] == losses
    assert len([file for file in workdir.iterdir() if "tfevents" in file.name]) == 2

    evaluated = inception.evaluate_run(config, f"{bucket}/runs/a", source=held_out)
    assert evaluated["ema"] == results["ema"]
    stored = json.loads((workdir / "eval_validation_6.json").read_text())
    assert stored["members"] == [f"{bucket}/runs/a/checkpoints/6"]
    run = inception.restore_run(f"{bucket}/runs/a/checkpoints/6")
    assert (run.step, run.class_names) == (6, train.class_names)
    loaded, local = (load_any(path) for path in (f"{bucket}/runs/a", tmp_path / "run"))
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, local.variables)
    assert (loaded.model, loaded.labels) == (local.model, local.labels)


@pytest.mark.slow
def test_a_damaged_checkpoint_in_a_bucket_is_set_aside(bucket):
    state = {"w": jnp.arange(6.0)}
    like = {"w": jax.ShapeDtypeStruct((6,), jnp.float32, sharding=state["w"].sharding)}
    workdir = resolve_workdir(f"{bucket}/runs/damaged")
    with CheckpointWriter(workdir) as saved:
        saved.save(1, state)
        saved.save(2, state)
    (workdir / "checkpoints" / "2" / "default" / "manifest.ocdbt").write_bytes(b"")
    with CheckpointWriter(workdir) as saved:
        assert saved.restore(like)[0] == 1
        assert saved.steps() == [1]
        saved.save(2, state)
    with Checkpoints(workdir) as saved:
        assert saved.restore(like)[0] == 2
    assert (workdir / "checkpoints" / "damaged" / "2" / "digests" / "sha256.json").exists()


def test_one_run_at_a_time_trains_in_a_bucket(bucket, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(lock, "STALE_SECONDS", 1.0)
    workdir = resolve_workdir(f"{bucket}/runs/locked")
    with lock.run_lock(workdir):
        second = lock.run_lock(workdir)
        with pytest.raises(CheckpointError, match=str(os.getpid())), second:
            pass
    with lock.run_lock(workdir):
        pass
    assert [file.name for file in workdir.iterdir()] == ["run.lock.1"]


def test_images_and_statistics_of_fid_may_be_in_a_bucket(bucket, tmp_path):
    """A folder at two depths, a zip, an array read row by row, and statistics written and read."""
    from etils import epath
    from PIL import Image

    from inception import fid

    pixels = np.random.default_rng(0).integers(0, 256, (3, 9, 12, 3), np.uint8)
    root, files = epath.Path(f"{bucket}/fid"), {}
    for number, name in enumerate(("a.png", "b.png", "below/c.png")):
        file = tmp_path / f"{number}.png"
        Image.fromarray(pixels[number]).save(file)
        files[name] = file.read_bytes()
        (root / "images" / name).write_bytes(files[name])
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    np.savez(tmp_path / "images.npz", arr_0=pixels)
    for name in ("images.zip", "images.npz"):
        (root / name).write_bytes((tmp_path / name).read_bytes())
    for name, recursive in (("images", True), ("images.zip", False), ("images.npz", False)):
        images = fid.open_images(f"{root}/{name}", recursive=recursive)
        found = np.stack([read().pixels for _, read in images.items])
        np.testing.assert_array_equal(found, pixels)
        images.check()
    assert fid.open_images(f"{root}/images").count == 2
    with pytest.raises(fid.UserError, match=r"nothing\.zip does not exist"):
        fid.open_images(f"{root}/nothing.zip")

    origin = fid.Origin("clean", "pooled", "ab", "highest")
    statistics = fid.statistics_of(np.random.default_rng(0).normal(size=(9, 4)), origin)
    summary = fid.Summary(
        "images/", 9, fid.Origin("clean", "", "ab", "highest"), {"pooled": statistics}
    )
    fid.save(f"{root}/a.npz", summary)
    again = fid.load(f"{root}/a.npz")
    np.testing.assert_array_equal(again.statistics["pooled"].mean, statistics.mean)
    assert again.statistics["pooled"].origin == origin
    with pytest.raises(fid.UserError, match="exists and is not overwritten"):
        fid.save(f"{root}/a.npz", summary)


def test_of_two_that_start_in_a_bucket_at_once_one_wins(bucket, monkeypatch):
    """Both have looked, and found nobody, before either writes."""
    workdir, both = resolve_workdir(f"{bucket}/runs/at_once"), threading.Barrier(2)
    create = lock._BucketLock._create

    def create_together(self):
        both.wait(60)
        create(self)

    monkeypatch.setattr(lock._BucketLock, "_create", create_together)
    held, refused, end = [], [], threading.Event()

    def start():
        try:
            with lock.run_lock(workdir):
                held.append(workdir)
                end.wait(60)
        except CheckpointError as error:
            refused.append(str(error))
            end.set()

    starters = [threading.Thread(target=start) for _ in range(2)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join()
    assert (len(held), len(refused)) == (1, 1)
    assert f"process {os.getpid()}" in refused[0]
    assert json.loads((workdir / "run.lock").read_text())["released"]


def test_a_bucket_takes_no_pattern_for_a_workdir():
    for name in ("lr=[0.1]", "a*", "b?"):
        with pytest.raises(CheckpointError, match="a pattern in a bucket"):
            resolve_workdir(f"gs://bucket/runs/{name}")
