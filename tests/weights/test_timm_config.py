"""timm's config.json wins over the tag's usual preprocessing; what it cannot say is assumed."""

import json

import pytest

from inception.weights import WeightsError, load, load_any, save, timm_config
from inception.weights.files import open_tensors
from inception.weights.importing import import_weights
from inception.weights.sources import IMAGENET_MEAN, IMAGENET_STD, SOURCES, recognize
from tests.weight_files import torch_shapes, write_safetensors

SHAPES = {"fc.bias": (5,)}
OWN = {
    "input_size": [3, 150, 150],
    "mean": [0.1, 0.2, 0.3],
    "std": [0.4, 0.5, 0.6],
    "crop_pct": 0.95,
    "crop_mode": "center",
    "interpolation": "bilinear",
}


@pytest.fixture
def config(tmp_path):
    """Writes a config.json; returns the path of weights next to it, which need not be there."""

    def write(content):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "config.json").write_text(text)
        return tmp_path / "model.safetensors"

    return write


def described(path, **given):
    return timm_config.describe(path, SHAPES, given)


def test_all_that_is_stated_is_taken(config):
    new = {"architecture": "inception_v3", "num_classes": 5, "pretrained_cfg": OWN}
    old = {"architecture": "inception_v3.tf_in1k", "num_classes": 5, **OWN}
    for content in (new, old):
        said = described(config(content))
        assert said.where == "config.json"
        assert said.preprocessing == {
            "image_size": 150,
            "mean": (0.1, 0.2, 0.3),
            "std": (0.4, 0.5, 0.6),
            "interpolation": "bilinear",
            "method": "resize_crop",
            "crop_fraction": 150 / 157,  # floor(150 / 0.95)
        }


def test_what_is_not_stated_is_not_made_up(config):
    said = described(config({"architecture": "inception_v3.tf_in1k", "num_classes": 5}))
    assert (said.preprocessing, said.labels) == ({}, ())


@pytest.mark.parametrize("content", ["{}", "[]", '{"architectures": ["X"]}'])
def test_other_programs_configs_say_nothing(config, content):
    assert timm_config.read(config(content)) == {}
    assert described(config(content)).preprocessing == {}


@pytest.mark.parametrize(
    ("where", "tag"),
    [
        ({"architecture": "inception_v3", "pretrained_cfg": {"tag": "gluon_in1k"}}, "gluon_in1k"),
        ({"architecture": "inception_v3.tf_in1k", "num_classes": 182}, "tf_in1k"),
        ({"architecture": "inception_v3", "pretrained_cfg": {"tag": "birds"}}, "birds"),
        ({"architecture": "inception_v3", "pretrained_cfg": {"tag": None}}, ""),
    ],
)
def test_tags(config, where, tag):
    path = config(where)
    assert timm_config.tag(path) == timm_config.tag(path.parent) == tag


@pytest.mark.parametrize("place", ["", "pretrained_cfg"])
@pytest.mark.parametrize("name", ["label_names", "labels"])
@pytest.mark.parametrize("names", [list("abcde"), dict(enumerate("abcde"))])
def test_the_classes_names_are_kept(config, place, name, names):
    content = {"architecture": "inception_v3", "pretrained_cfg": {}}
    (content[place] if place else content)[name] = names
    assert described(config(content)).labels == tuple("abcde")


@pytest.mark.parametrize(
    ("stated", "named"),
    [
        ({"input_size": [3, 150, 299]}, "150x299.*--image_size"),
        ({"interpolation": "lanczos"}, "'lanczos'.*--interpolation"),
        ({"crop_mode": "border"}, "'border'.*--method"),
        ({"mean": [0.5, "x"]}, "damaged"),
        ({"crop_pct": 0}, "damaged"),
        ({"num_classes": 7}, "5 classes.*7"),
        ({"label_names": [1, 2]}, "--labels"),
    ],
)
def test_what_cannot_be_done_is_refused(config, stated, named):
    content = {"architecture": "inception_v3", "pretrained_cfg": stated}
    with pytest.raises(WeightsError, match=named) as raised:
        described(config(content))
    assert "config.json" in str(raised.value)


@pytest.mark.parametrize("place", ["global_pool", "model_args"])
def test_another_pool_is_refused(config, place):
    value = "max" if place == "global_pool" else {"global_pool": "max"}
    content = {"architecture": "inception_v3", "pretrained_cfg": {}, place: value}
    with pytest.raises(WeightsError, match="global_pool='max'"):
        described(config(content))


def test_arguments_of_another_network_are_refused(config):
    content = {"architecture": "inception_v3", "pretrained_cfg": {}}
    with pytest.raises(WeightsError, match="act_layer='silu'"):
        described(config({**content, "model_args": {"act_layer": "silu", "aux_logits": True}}))


def test_flags_lift_the_refusals_that_they_answer(config):
    stated = {"input_size": [3, 150, 299], "interpolation": "lanczos", "crop_mode": "border"}
    path = config({"architecture": "inception_v3", "pretrained_cfg": {**stated, "crop_pct": 0.5}})
    said = described(path, image_size=200, interpolation="bicubic", method="resize_crop")
    assert said.preprocessing == {"crop_fraction": 0.5}


@pytest.mark.parametrize(
    ("stated", "given", "method"),
    [
        ({"crop_pct": 0.875}, {}, "inception"),
        ({"crop_pct": 1.0}, {}, "resize"),
        ({"crop_pct": 1.0}, {"crop_fraction": 0.5}, "inception"),
        ({}, {}, "inception"),  # timm's default is 0.875
    ],
)
def test_squash_is_a_resize_that_does_not_keep_the_aspect_ratio(config, stated, given, method):
    content = {"crop_mode": "squash", **stated}
    path = config({"architecture": "inception_v3", "pretrained_cfg": content})
    assert described(path, **given).preprocessing["method"] == method


def test_a_config_that_is_no_json_is_named(config):
    with pytest.raises(WeightsError, match=r"config\.json.*cannot be read"):
        described(config('{"architecture": "incep'))


@pytest.mark.parametrize(
    ("tag", "stated", "source", "mean", "crop"),
    [
        ("tf_in1k", {}, "timm.tf_in1k", (0.5, 0.5, 0.5), 299 / 341),
        ("tf_in1k", OWN, "timm.tf_in1k", (0.1, 0.2, 0.3), 150 / 157),
        ("gluon_in1k", {"crop_pct": 1}, "timm.gluon_in1k", IMAGENET_MEAN, 1),
        ("birds", OWN, "timm", (0.1, 0.2, 0.3), 150 / 157),
        (None, {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}, "timm", IMAGENET_MEAN, 299 / 341),
    ],
)
def test_a_folder_of_hugging_faces_is_loaded(config, tag, stated, source, mean, crop):
    names = [f"bird {number}" for number in range(5)]
    path = config(
        {
            **{"architecture": "inception_v3", "num_classes": 5, "label_names": names},
            "pretrained_cfg": {"tag": tag, **stated},
        }
    )
    write_safetensors(path, torch_shapes(5))
    loaded = load_any(path.parent)
    assert (loaded.source, loaded.labels) == (source, tuple(names))
    assert loaded.preprocessing.mean == mean
    assert loaded.preprocessing.crop_fraction == crop
    assert loaded.provenance["labels"] == "config.json"
    for field in ("mean", "std", "image_size"):
        stated_as = {"image_size": "input_size"}.get(field, field)
        expected = "config.json" if stated_as in stated else "assumed"
        assert loaded.provenance[f"preprocessing.{field}"] == expected


def test_without_a_tag_the_scaling_must_be_known(config):
    path = config({"architecture": "inception_v3", "pretrained_cfg": {"tag": "birds"}})
    write_safetensors(path, torch_shapes(5))
    with pytest.raises(WeightsError, match=r"timm\.tf_in1k.*--mean"):
        import_weights(path)
    given = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    loaded = import_weights(path.parent, preprocessing=given)
    assert (loaded.source, loaded.preprocessing.mean) == ("timm", IMAGENET_MEAN)
    assert loaded.provenance["preprocessing.mean"] == "given"
    (path.parent / "config.json").unlink()
    assert import_weights(path, "timm", preprocessing=given).preprocessing.std == IMAGENET_STD
    assert SOURCES["timm"].preprocessing.interpolation == "bicubic"


def test_an_auxiliary_head_for_larger_images_is_left_out_and_said(config, tmp_path):
    path = config({"architecture": "inception_v3.tf_in1k", **OWN})
    write_safetensors(path, torch_shapes(5, aux_head=True))
    loaded = import_weights(path)
    assert loaded.model.aux_head == "none"
    assert "left out" in loaded.provenance["model.aux_head"]
    save(tmp_path / "saved", loaded)
    assert load(tmp_path / "saved").provenance == loaded.provenance


def test_a_config_decides_before_the_number_of_classes_does(config):
    """pytorch-fid's network has 1008 classes, and so may anybody's."""
    path = config({"architecture": "inception_v3", "pretrained_cfg": OWN})
    write_safetensors(path, torch_shapes(1008))
    with open_tensors(path) as tensors:
        assert recognize(tensors, path) == "timm"
