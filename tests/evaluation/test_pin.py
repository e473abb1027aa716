"""What `pin` finds out, on files and images of our own."""

import dataclasses
import hashlib

import cv2
import jax
import numpy as np
import pytest

from inception import Inception, Preprocessing, command_line
from inception.errors import UserError
from inception.evaluation import pin
from inception.weights import Pretrained, verify
from inception.weights.labels import imagenet_names
from inception.weights.registry import REGISTRY
from tests.loopback import BODY, publish
from tests.weight_files import keras_shapes, write_hdf5


@pytest.fixture(scope="module")
def always_third():
    """A tiny network of 1000 classes that answers 3, 1, 4, 15, 9, whatever it sees."""
    model = Inception(1000, aux_head="none", width_multiplier=0.05)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 75, 75, 3), np.float32))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    variables["params"]["Logits"]["bias"][[3, 1, 4, 15, 9]] = (5, 4, 3, 2, 1)
    return Pretrained(model, variables, Preprocessing(75), (), "keras", "")


def test_what_is_not_finite_is_no_hit(always_third, tmp_path):
    (tmp_path / "n01440764").mkdir()
    file = tmp_path / "n01440764" / "0.jpg"
    assert cv2.imwrite(str(file), np.zeros((80, 80, 3), np.uint8))
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), always_third.variables)
    right, count = pin.evaluate(dataclasses.replace(always_third, variables=broken), tmp_path)
    assert (right.tolist(), count) == ([0, 0], 1)


def test_accuracy_is_counted_by_the_folders_names(always_third, tmp_path):
    ids = list(imagenet_names())
    for number, count in ((3, 2), (9, 1), (500, 1)):
        (tmp_path / ids[number]).mkdir()
        for image in range(count):
            file = tmp_path / ids[number] / f"{image}.JPEG"
            assert cv2.imwrite(str(file.with_suffix(".jpg")), np.zeros((80, 80, 3), np.uint8))
            file.with_suffix(".jpg").rename(file)
    right, count = pin.evaluate(always_third, tmp_path)
    assert (right.tolist(), count) == ([0.5, 0.75], 4)
    with pytest.raises(UserError, match="n01440764"):
        pin.evaluate(always_third, tmp_path / ids[3])
    other = dataclasses.replace(always_third, model=always_third.model.clone(num_classes=1001))
    assert pin.evaluate(other, tmp_path) == (None, 0)


def test_sizes_digests_and_differences_are_printed(web, monkeypatch, tmp_path):
    hdf5 = write_hdf5(tmp_path / "w.h5", keras_shapes(2)).read_bytes()
    offered = publish(monkeypatch, web, hdf5, sha256="", size=0)
    found = [verify.Difference("logits", (2,), 1e-7, 2e-7), verify.Difference("x", (), 0.0, 0.0)]
    monkeypatch.setattr(verify, "verify", lambda *_: found)
    result = pin.examine(offered)
    digest = hashlib.sha256(hdf5).hexdigest()
    assert (result.size, result.sha256, result.problem) == (len(hdf5), digest, "")
    assert result.difference == "2.0e-07"
    assert pin.lines([result]) == f"keras: size={len(hdf5):_}, sha256={digest!r}"
    known = dataclasses.replace(offered, size=len(hdf5), sha256=digest)
    assert "nothing" in pin.lines([dataclasses.replace(result, published=known)])
    table = pin.table([result, pin.Result(REGISTRY["fid"], problem="no network")])
    for shown in (f"{len(hdf5):,}", "2.0e-07", "77.90 / 93.70", "no network"):
        assert shown in table


def _run(*words: str) -> int:
    return command_line.run(lambda: pin.main([*words]))


def test_what_cannot_be_had_is_reported_and_fails(web, monkeypatch, capsys):
    publish(monkeypatch, web, BODY)
    web.routes.clear()
    assert _run("keras") == 1
    assert "answers 404" in capsys.readouterr().out


def test_an_unknown_name_lists_the_nearest(web, capsys):
    assert _run("torchvison") == 1
    assert "torchvision" in capsys.readouterr().err.replace("'torchvison'", "")
