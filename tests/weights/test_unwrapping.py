"""The one network in a file is found, whatever a training program wrapped around it."""

import numpy as np
import pytest
from hypothesis import given, strategies

from inception.weights import WeightsError, names
from inception.weights.files import Tensors
from inception.weights.unwrapping import _BODY, unwrap
from tests.fuzzing import fuzz
from tests.pth_files import torch_shapes, without

COUNT = "Conv2d_1a_3x3.bn.num_batches_tracked"


@pytest.fixture(scope="module")
def state():
    """Shapes of a state dict of 5 classes with an auxiliary head."""
    return {**torch_shapes(), COUNT: ()}


def under(prefix: str, shapes: dict) -> dict:
    return {prefix + name: shape for name, shape in shapes.items()}


def opened(shapes: dict, ema: bool = True) -> tuple[dict, dict, dict]:
    """Shapes by torchvision's names, the name in the file of each, and the notes."""
    wrapped = Tensors("pytorch", shapes, np.array)  # the array of a name says the name
    tensors, notes = unwrap(wrapped, "x.pth", ema)
    return tensors.shapes, {name: str(tensors.read(name)) for name in tensors.shapes}, notes


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "_orig_mod.",
        "state_dict/",
        "model/_orig_mod.module.",
        "net.0.body.",
        "a/b/c.",
        "encoder_",
        "state_dict/encoder_",
        "x",
        "Mixed_5b.",
        "fc.bias",
    ],
)
def test_a_prefix_that_all_names_share_is_taken_off(state, prefix):
    shapes, places, notes = opened(under(prefix, state) | {"optimizer/lr": (3,), "epoch": ()})
    assert shapes == state
    assert places["fc.bias"] == f"{prefix}fc.bias"
    assert notes == {}


@fuzz(max_examples=50)
@given(prefix=strategies.text(max_size=20))
def test_any_prefix_is_taken_off(state, prefix):
    shapes, places, _ = opened(under(prefix, state))
    assert shapes == state
    assert places == {name: prefix + name for name in state}


def test_no_name_ends_with_another():
    """So a name has one prefix. (Some of TensorFlow's do, but there all names must have it.)"""
    assert not [a for a in _BODY for b in _BODY if a != b and a.endswith(b)]


def test_one_name_does_not_make_a_prefix(state):
    """Of the two prefixes, only one precedes a whole network."""
    content = state | {"xMixed_5b.branch1x1.conv.weight": (64, 192, 1, 1)}
    shapes, places, notes = opened(content)
    assert (shapes, places) == (state, {name: name for name in state})
    assert notes["tensors"].endswith(": xMixed_5b.branch1x1.conv.weight (64, 192, 1, 1)")
    content = under("m.", state) | {"grad.Mixed_5b.branch1x1.conv.weight": (64, 192, 1, 1)}
    shapes, places, _ = opened(content)
    assert (shapes, places["fc.bias"]) == (state, "m.fc.bias")


def test_a_part_of_a_network_is_not_hidden_by_another(state):
    content = under("model.", without(state, "Mixed_7c.")) | under("other.", state)
    with pytest.raises(WeightsError, match=r"2 networks.*'model\.' and 'other\.'"):
        opened(content)


@pytest.mark.parametrize(
    ("raw", "average", "more"),
    [
        ("state_dict/", "state_dict_ema/", {}),  # timm
        ("model/", "model_ema/module.", {"model_ema/n_averaged": ()}),  # torchvision's references
        ("model/", "swapped/module.", {"swapped/n_averaged": ()}),  # AveragedModel
        ("online_model.", "ema_model.", {"step": (), "initted": ()}),
        ("state_dict/net.", "callbacks/EMA/ema_state_dict/net.", {}),
        ("current_model_state/", "state_dict/", {"averaging_state/n_averaged": ()}),  # Lightning's
        ("", "ema/", {}),
    ],
)
def test_running_averages_are_taken_unless_raw_and_said(state, raw, average, more):
    content = under(raw, state) | under(average, state) | more
    shapes, places, notes = opened(content)
    assert shapes == state
    assert set(places.values()) == set(under(average, state))
    assert notes == {"parameters": f"running averages, {average}"}
    _, places, notes = opened(content, ema=False)
    assert set(places.values()) == set(under(raw, state))
    assert notes == {"parameters": f"{raw or 'the parameters'}, not the running averages"}


def test_averages_without_names_are_said_to_be_left_out(state):
    """A list of the parameters' averages, as torch_ema keeps it."""
    content = under("model/", state) | {f"ema/shadow_params/{n}": (3,) for n in range(5)}
    shapes, _, notes = opened(content)
    assert shapes == state
    assert notes["parameters"].startswith("not the averages ema/shadow_params/0, ...")


@pytest.mark.parametrize(
    "moments",
    [
        {"optimizer/state/fc.bias/exp_avg": (5,), "optimizer/state/fc.bias/exp_avg_sq": (5,)},
        {"optimizer_states/exp_avg/0": (3,)},
        {"optim/square_avg/0": (3,), "optim/averaged/0": (3,)},
        None,  # under the network's own names
    ],
)
@pytest.mark.parametrize("ema", [True, False])
def test_the_moments_of_an_optimizer_are_no_averages_of_weights(state, moments, ema):
    if moments is None:
        moments = under("exp_avg.", state) | under("opt_state/exp_avg_sq.", state)
    shapes, places, notes = opened(under("model.", state) | moments, ema)
    assert (shapes, notes) == (state, {})
    assert places["fc.bias"] == "model.fc.bias"


def test_averages_alone_are_taken(state):
    content = under("module.", state) | {"n_averaged": ()}
    for ema in (True, False):
        shapes, _, notes = opened(content, ema)
        assert (shapes, notes) == (state, {"parameters": "running averages, module."})


def test_what_is_not_averaged_is_completed(state):
    """Some programs average parameters and not the statistics of batch normalization."""
    parameters = {name: s for name, s in state.items() if "running" not in name and s}
    shapes, places, notes = opened(under("model/", state) | under("ema/", parameters))
    assert shapes == state
    assert places["fc.bias"] == "ema/fc.bias"
    assert (
        places["Mixed_7c.branch1x1.bn.running_mean"] == "model/Mixed_7c.branch1x1.bn.running_mean"
    )
    assert notes["parameters"].endswith("; 192 tensors that are not averaged, model/")


def test_two_networks_are_refused_by_both_names(state):
    content = under("model.student.", state) | under("model.teacher.", state)
    with pytest.raises(
        WeightsError, match=r"2 networks.*'model\.student\.' and 'model\.teacher\.'"
    ):
        opened(content)
    with pytest.raises(WeightsError, match=r"'' and 'module\.'"):
        opened(state | under("module.", state))


@pytest.mark.parametrize("layer", ["fc.1.", "fc.head.0.", "last_linear."])
def test_the_one_linear_layer_is_the_head(state, layer):
    body = without(state, "fc.", "AuxLogits.fc.")
    shapes, places, notes = opened(
        under("m.", body | under(layer, {"weight": (5, 2048), "bias": (5,)}))
        | under("m.AuxLogits.fc.2.", {"weight": (5, 768), "bias": (5,)})
    )
    assert (shapes, notes) == (state, {})
    assert places["fc.weight"] == f"m.{layer}weight"
    assert places["AuxLogits.fc.bias"] == "m.AuxLogits.fc.2.bias"


def test_a_head_beside_the_network_is_the_head(state):
    body = without(state, "fc.", "AuxLogits.")
    head = {"classifier.weight": (3, 2048), "classifier.bias": (3,)}
    shapes, places, _ = opened(under("state_dict/", under("backbone.", body) | head))
    assert (shapes["fc.bias"], places["fc.bias"]) == ((3,), "state_dict/classifier.bias")


@pytest.mark.parametrize("place", ["fc.3.", "../classifier."])
def test_two_linear_layers_are_refused_by_name(state, place):
    first = under("fc.0.", {"weight": (512, 2048), "bias": (512,)})
    second = under(place, {"weight": (5, 512), "bias": (5,)})
    content = under("m.", without(state, "fc.") | first | second)
    content = {name.replace("m.../", ""): shape for name, shape in content.items()}
    last = (place if place[0] == "f" else "classifier.") + "weight"
    with pytest.raises(WeightsError, match=rf"2 linear.*m\.fc\.0\.weight \(512, 2048\).*{last}"):
        opened(content)


@pytest.mark.parametrize(
    "classifier", [{"classifier/weight": (5, 2048), "classifier/bias": (5,)}, {}]
)
def test_a_head_in_a_dictionary_of_its_own_is_the_head(state, classifier):
    shapes, _, _ = opened(under("encoder/", without(state, "fc.")) | classifier)
    assert shapes.get("fc.weight") == classifier.get("classifier/weight")


def test_one_of_several_projections_is_not_taken_for_the_head(state):
    projections = {"projection/0.weight": (2048, 2048), "projection/2.weight": (128, 2048)}
    shapes, _, notes = opened(under("encoder/", without(state, "fc.", "AuxLogits.")) | projections)
    assert "fc.weight" not in shapes
    assert "left out" in notes["tensors"]
    assert "projection/2.weight (128, 2048)" in notes["tensors"]


@pytest.mark.parametrize("prefix", ["model.", "", "state_dict/model.", "encoder_"])
@pytest.mark.parametrize(
    "extra",
    [
        {"criterion.weight": (5,)},
        {"criterion.weight": (5, 512), "metric.net.conv.weight": (8, 3, 3, 3)},
        {"val_accuracy.correct": (5,)},
        {"class_weights": (5,)},
        {"confusion.matrix": (5, 5)},
    ],
)
def test_what_a_loss_or_a_metric_keeps_is_left_out_and_said(state, prefix, extra):
    """As Lightning saves it beside the network."""
    dictionary = prefix[: prefix.rfind("/") + 1]
    shapes, _, notes = opened(under(prefix, state) | under(dictionary, extra))
    assert shapes == state
    listed = ", ".join(f"{dictionary}{name} {shape}" for name, shape in sorted(extra.items()))
    assert notes == {"tensors": f"left out, as they are not the network's: {listed}"}


def test_a_network_that_a_metric_keeps_is_not_taken(state):
    """FID's, for example."""
    content = under("model.", state) | under("metric.fid.inception.", state)
    shapes, places, notes = opened(content)
    assert (shapes, places["fc.bias"]) == (state, "model.fc.bias")
    assert "metric.fid.inception.Conv2d_1a_3x3.bn.bias (32,)" in notes["tensors"]
    shapes, places, _ = opened(under("metric.fid.inception.", state))  # unless it is the only one
    assert (shapes, places["fc.bias"]) == (state, "metric.fid.inception.fc.bias")


@pytest.mark.parametrize(
    "layer",
    [
        {"0.mean": (3,), "0.std": (3,)},
        {"0.mean": (1, 3, 1, 1)},
        {"neck.conv.weight": (64, 2048, 1, 1)},
        {"neck.weight": (2048,), "neck.bias": (2048,)},
        {"neck.running_mean": (2048,)},
    ],
)
def test_layers_outside_the_network_are_refused(state, layer):
    """A mean and a deviation there would be part of what the network computes."""
    with pytest.raises(WeightsError, match=rf"outside the network under '1\.': {min(layer)}"):
        opened(under("1.", state) | layer)
    with pytest.raises(WeightsError, match=rf"outside the network under '': {min(layer)}"):
        opened(state | layer)


def test_a_layer_inside_the_network_is_not_left_out(state):
    added = {"Mixed_5b.attention.gate": (64,)}
    assert opened(under("m.", state | added))[0] == state | added  # which the importer refuses


def test_an_auxiliary_head_of_other_classes_is_left_out(state):
    content = state | {"AuxLogits.fc.weight": (1000, 768), "AuxLogits.fc.bias": (1000,)}
    shapes, _, notes = opened(content)
    assert shapes == without(state, "AuxLogits.")
    assert notes == {"model.aux_head": "left out: its bias is (1000,), the head's (5,)"}


def test_tensorflows_averages_are_by_suffix():
    shapes = {"a": (1,), f"a{names.EMA}": (1,), "b": ()}
    assert opened(shapes) == (
        {"a": (1,), "b": ()},
        {"a": f"a{names.EMA}", "b": "b"},
        {"parameters": "running averages"},
    )
    assert opened(shapes, ema=False)[1:] == (
        {"a": "a", "b": "b"},
        {"parameters": "not the running averages"},
    )
    assert opened({"b": ()})[2] == {}


@pytest.mark.parametrize("naming", [names.SLIM, names.RESEARCH])
@pytest.mark.parametrize("prefix", ["", "tower_0/", "a/b/", "net_"])
def test_tensorflows_names_lose_their_prefix_and_the_optimizers_variables(naming, prefix):
    root = "InceptionV3/" if naming is names.SLIM else ""
    leaves = {leaf.format(row) for row in names.CONVOLUTIONS for leaf in naming.leaves}
    wanted = dict.fromkeys(names.table(naming, [*leaves, *naming.heads]).values(), (1,))
    slots = {f"{name}/Adagrad_LARS": (1,) for name in wanted}  # of any optimizer
    stored = under(prefix, {name.removeprefix(root): (1,) for name in wanted | slots})
    shapes, places, notes = opened(stored | {"global_step": ()})
    step = f"{'' if prefix else root}global_step"
    assert shapes == wanted | {step: ()}
    assert all(places[n] == prefix + n.removeprefix(root) for n in wanted)
    assert notes == {}
