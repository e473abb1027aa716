"""Our network with imported weights computes what PyTorch's libraries compute."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from inception import weights
from inception.weights import names, verify
from tests import oracles
from tests.weights.parity import IN_FLOAT64, OUTPUTS, after_training, difference, gradients_of

pytestmark = pytest.mark.rounding

SLOW = pytest.mark.slow
PYTORCH = ("torchvision", "timm.gluon_in1k", "fid")


@pytest.fixture(scope="module")
def torch(tmp_path_factory):
    """PyTorch's networks; see tests/torch_oracle.py."""
    if missing := oracles.Torch.missing():
        pytest.skip(f"the oracle needs {', '.join(missing)}: requirements-oracles.txt")
    oracle = oracles.Torch(tmp_path_factory.mktemp("torch"))
    yield oracle
    oracle.close()


@pytest.mark.parametrize(
    ("source", "size", "batch"),
    [
        *[(source, 139, 2) for source in PYTORCH],
        *[pytest.param(source, 75, 3, marks=SLOW) for source in PYTORCH],
        *[pytest.param(source, 299, 1, marks=SLOW) for source in PYTORCH],
    ],
)
def test_pytorchs_endpoints(torch, source, size, batch):
    pretrained = weights.import_weights(torch.files[source])
    assert pretrained.source == source
    answer = torch.ask(source, size, batch, "endpoints")
    images = answer.pop("images")
    aux_head = "aux_logits" in answer
    assert aux_head == (source == "torchvision" and size == 299)
    ours = verify.our_endpoints(pretrained.model, pretrained.variables, images, aux_head)
    assert difference(source, "endpoints, logits", images, ours, answer) <= OUTPUTS


@pytest.mark.parametrize(
    ("source", "size", "head"),
    [
        ("torchvision", 75, "logits"),
        pytest.param("torchvision", 299, "aux_logits", marks=SLOW),
        pytest.param("timm.gluon_in1k", 75, "logits", marks=SLOW),
        pytest.param("fid", 75, "logits", marks=SLOW),
    ],
)
@pytest.mark.usefixtures("x64")
def test_pytorchs_gradients(torch, source, size, head):
    pretrained = weights.import_weights(torch.files[source])
    answer = torch.ask(source, size, 1, "gradients")
    images = answer["images"]
    ours = gradients_of(pretrained, head, images, answer["cotangent"])
    theirs = {
        name: names.to_ours(names.TORCH, name, answer[f"grad {at}"])
        for name, at in names.table(names.TORCH, ours.keys() - {"images"}).items()
    }
    if head == "logits":
        theirs["images"] = answer["grad images"]
    assert difference(source, f"gradients of {head}", images, ours, theirs) <= IN_FLOAT64


@pytest.mark.parametrize(
    ("source", "size", "batch"),
    [("torchvision", 139, 4), pytest.param("torchvision", 299, 4, marks=SLOW)],
)
@pytest.mark.usefixtures("x64")
def test_a_training_step_of_pytorchs(torch, source, size, batch):
    """PyTorch's running variance takes n / (n - 1) of the batch's, which has n values."""
    pretrained = weights.import_weights(torch.files[source])
    answer = torch.ask(source, size, batch, "training")
    images = answer["images"]
    ends, new = after_training(pretrained, images, aux_head="aux_logits" in answer)
    theirs = {name: answer[name] for name in ends}
    assert difference(source, "endpoints in training", images, ends, theirs) <= IN_FLOAT64
    old = oracles.in_float64({"batch_stats": pretrained.variables["batch_stats"]})
    old = flatten_dict(old, sep="/")
    new = {name: a for name, a in new.items() if "aux_logits" in ends or "AuxLogits" not in name}
    updated = {}
    for mine, name in names.table(names.TORCH, new).items():
        updated[mine] = answer[f"state {name}"]
        if name.endswith("var"):
            count = answer[f"count {name.removesuffix('.running_var')}"]
            change = updated[mine] - 0.9 * old[mine]
            updated[mine] = 0.9 * old[mine] + change * (count - 1) / count
    assert difference(source, "new batch statistics", images, new, updated) <= IN_FLOAT64


def test_the_network_of_fid_is_made_of_pytorch_fids_modules(torch):
    theirs, ours = torch.facts["fid modules"]
    assert "FIDInceptionE_2" in theirs
    assert ours == theirs


def test_what_pytorchs_libraries_do_to_an_image(torch):
    facts = torch.facts
    for tag, config in facts["timm"].items():
        ours = weights.SOURCES[f"timm.{tag}"].preprocessing
        assert ours.method == "resize_crop"
        assert (ours.mean, ours.std) == (tuple(config["mean"]), tuple(config["std"]))
        assert ours.interpolation == config["interpolation"]
        assert round(ours.image_size / ours.crop_fraction) == facts["timm resize"]
    ours = weights.SOURCES["torchvision"].preprocessing
    assert round(ours.image_size / ours.crop_fraction) == facts["torchvision resize"]
    scaled = (np.array(facts["color"]) / 255 - ours.mean) / ours.std
    np.testing.assert_allclose(facts["torchvision input"], scaled, rtol=1e-5)
