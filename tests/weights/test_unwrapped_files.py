"""Files as training programs write them are imported, and given to the original network."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from inception.weights import import_weights
from tests.pth_files import Call, Global, network, without, write_pth


def test_timms_checkpoint_is_imported(tmp_path):
    """As its train.py writes them: the program's arguments are in them, and averages."""
    content = {
        "epoch": 3,
        "arch": "inception_v3",
        "args": Call(Global("argparse Namespace"), ()),
        "state_dict": network(1),
        "state_dict_ema": network(2),
    }
    pretrained = import_weights(write_pth(tmp_path / "last.pth.tar", content))
    assert pretrained.source == "torchvision"
    assert pretrained.provenance["parameters"] == "running averages, state_dict_ema/"
    assert pretrained.variables["params"]["Logits"]["bias"].tolist() == [2] * 5


def test_no_head_is_a_network_for_features(tmp_path):
    """As timm's num_classes=0 and fc = Identity leave it; in the older format."""
    state = without(network(1, aux_head=True), "fc.")
    pretrained = import_weights(write_pth(tmp_path / "x.pth", state, stream=True), "timm.tf_in1k")
    assert (pretrained.model.num_classes, pretrained.model.aux_head) == (1, "none")
    assert "there is no head" in pretrained.provenance["model.aux_head"]
    head = pretrained.variables["params"]["Logits"]
    assert not head["kernel"].any()
    assert head["kernel"].shape == (2048, 1)


REFERENCE = """
import sys, numpy as np
from inception.weights import reference
images = np.zeros((1, 96, 96, 3), np.float32)
for path, ema in ((sys.argv[1], True), (sys.argv[1], False), (sys.argv[2], True)):
    found = reference.endpoints("torchvision", path, images, ema=ema)
    print(found["logits"].tolist() if "logits" in found else found["pooled"].shape)
"""


def test_the_original_network_is_given_the_same_weights(tmp_path):
    """For `verify`; in a process of its own, since this one may have TensorFlow."""
    if not all(importlib.util.find_spec(name) for name in ("torch", "torchvision")):
        pytest.skip("PyTorch is not installed: requirements-oracles.txt")
    body = without(network(aux_head=False), "fc.")
    head = {"fc.1.weight": np.zeros((2, 2048), np.float16)}
    content = {
        name: body | head | {"fc.1.bias": np.full(2, value, np.float16)}
        for name, value in (("model", 1), ("model_ema", 2))
    }
    paths = [write_pth(tmp_path / "w.pth", content), write_pth(tmp_path / "body.pth", body)]
    done = subprocess.run(
        [sys.executable, "-c", REFERENCE, *map(str, paths)], capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["[[2.0, 2.0]]", "[[1.0, 1.0]]", "(1, 2048)"], done.stderr
