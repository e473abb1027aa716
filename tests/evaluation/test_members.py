"""What is evaluated: imported weights with their own preprocessing, their classes found by name."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

import inception
from inception.data.crops import eval_crops
from inception.data.folder import FolderSource
from inception.data.preprocessing import Preprocessing
from inception.data.sources import ArraySource
from inception.errors import CheckpointError
from inception.evaluation import members
from inception.network.model import Inception
from inception.predict.predictor import Predictor
from inception.weights import Pretrained, WeightsError, load, locate, save
from inception.weights.labels import imagenet_labels, imagenet_names
from tests.predict.test_predictor import make_variables

MODEL = Inception(11, width_multiplier=0.05)
LABELS = ("background", *map(str, range(9, -1, -1)))  # the digits' classes, backwards
OWN = Preprocessing(80, "resize_crop", 0.8, "bicubic", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Imported ones of 11 classes, and the variables."""
    folder, variables = tmp_path_factory.mktemp("members"), make_variables(MODEL)
    save(folder / "weights", Pretrained(MODEL, variables, OWN, LABELS, "slim", ""))
    return folder / "weights", variables


@pytest.fixture(scope="module")
def root(digits, tmp_path_factory):
    """Digits as a folder of PNG files, of which the classes "3" and "5" are held out too."""
    root = tmp_path_factory.mktemp("digits")
    for index, (image, label) in enumerate(digits(slice(0, 30))):
        for split in ("train", "val") if label in (3, 5) else ("train",):
            folder = root / split / str(label)
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(f"{folder}/{index}.png", cv2.resize(image, (90, 100)))
    return root


def _config(root, *overrides):
    data = ("dataset=folder", f"data_dir={root}", "eval.batch_size=4")
    return inception.load_config("configs/v3.py", [*data, *overrides])


def _right(variables, source, preprocessing) -> list[bool]:
    """Which images are answered right, by the network itself among the data's ten classes."""
    images = [cv2.imread(source.name(i))[..., ::-1] for i in range(len(source))]
    crops = np.concatenate([eval_crops(image, preprocessing) for image in images])
    logits = Predictor(MODEL, variables, preprocessing)(crops)["logits"]
    answers = [LABELS[1 + number] for number in logits[:, 1:].argmax(axis=1)]
    return [
        source.class_names[label] == answer
        for label, answer in zip(source.labels(), answers, strict=True)
    ]


def test_weights_are_evaluated_on_a_folder_with_their_own_preprocessing(weights, root, tmp_path):
    path, variables = weights
    source = FolderSource(root, "validation")
    results = inception.evaluate_run(_config(root, f"eval.ensemble={path}"), tmp_path / "new")
    (stored,) = (tmp_path / "new").glob("*.json")
    assert stored.name == "eval_folder_validation_weights.json"
    assert json.loads(stored.read_text()) == results
    assert results["members"] == [str(path)]
    assert results["preprocessing"][0]["image_size"] == 80
    assert results["examples"] == len(source) > 3
    assert results["ema"] == results["raw"]
    assert results["ema"]["top1"] == np.mean(_right(variables, source, OWN))
    confusion = np.array(results["ema"]["confusion"])
    np.testing.assert_array_equal(confusion.sum(axis=1), np.bincount(source.labels(), minlength=10))


def test_what_the_config_sets_counts_and_init_from_needs_no_run(weights, root, tmp_path):
    path, variables = weights
    config = _config(root, f"init_from={path}", "image_size=75", "eval.preprocessing=resize")
    results = inception.evaluate_run(config, tmp_path / "new")
    changed = replace(OWN, image_size=75, method="resize")
    source = FolderSource(root, "validation")
    assert results["preprocessing"][0]["method"] == "resize"
    assert results["ema"]["top1"] == np.mean(_right(variables, source, changed))


@pytest.mark.rounding
def test_an_ensemble_of_two_sizes(weights, root, tmp_path):
    path, variables = weights
    other = tmp_path / "small"
    save(other, Pretrained(MODEL, variables, Preprocessing(75), LABELS, "slim", ""))
    both = inception.evaluate_run(_config(root, f"eval.ensemble={path},{other}"), tmp_path / "new")
    assert [each["image_size"] for each in both["preprocessing"]] == [80, 75]
    alone = [
        inception.evaluate_run(_config(root, f"eval.ensemble={each}"), tmp_path / "new")
        for each in (path, other)
    ]
    losses = [each["ema"]["loss"] for each in alone]
    assert both["ema"]["loss"] != pytest.approx(losses[0], rel=1e-6)
    assert both["ema"]["loss"] <= np.mean(losses) + 1e-6  # the logarithm is concave


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_an_evaluation_with_another_activation_is_warned_of(weights, root, activation, capsys):
    pretrained = replace(load(weights[0]), activation=activation)
    source = FolderSource(root, "validation")
    members._of_weights(_config(root), str(weights[0]), pretrained, source)
    warned = "trained with a sigmoid of each class" in capsys.readouterr().out
    assert warned == (activation == "sigmoid")


def test_what_is_nowhere_is_refused(root, tmp_path):
    with pytest.raises(WeightsError, match="nowhere holds no weights"):
        inception.evaluate_run(_config(root, "eval.ensemble=nowhere"), tmp_path / "new")


def _source(names=(), classes=0):
    return ArraySource([], np.zeros(0, int), names, classes)


@pytest.mark.parametrize(
    ("path", "called"),
    [
        ("torchvision", "torchvision"),
        ("timm/inception_v3.tf_in1k", "inception_v3.tf_in1k"),
        ("hf-hub:me/mine", "mine"),
        (f"https://host/w.pth#sha256={'0' * 64}", "w.pth"),
    ],
)
def test_published_weights_are_found_by_name_and_by_address(
    path, called, weights, root, tmp_path, monkeypatch
):
    """A name is not looked for among the runs, where an address would be an unknown bucket."""
    loaded = load(weights[0])
    monkeypatch.setattr(locate, "load", lambda published: loaded)
    for chosen in (f"eval.ensemble={path}", f"init_from={path}"):
        config = _config(root, chosen)
        (found,) = members.find(config, tmp_path / "new", None, _source("0123456789"), None)
        assert (found.path, found.name, found.preprocessing) == (path, called, OWN)


@pytest.mark.parametrize(
    ("labels", "count", "source", "expected"),
    [
        ((), 3, _source("abc"), None),
        (("a", "b", "c"), 3, _source("abc"), None),
        (("c", "a", "b"), 3, _source("abc"), [1, 2, 0]),
        (("background", "a", "b"), 3, _source("ab"), [1, 2]),
        (("background", "a", "b"), 3, _source(classes=2), [1, 2]),
        (("a", "b", "c"), 3, _source(["c", "a"]), [2, 0]),
        (imagenet_labels(), 1000, _source([*imagenet_names()]), None),
        (imagenet_labels(), 1000, _source([*imagenet_names()][7:9]), [7, 8]),
    ],
)
def test_classes_are_found_by_their_names(labels, count, source, expected):
    found = members.classes_of("weights", labels, count, source)
    assert (None if found is None else found.tolist()) == expected


@pytest.mark.parametrize(
    ("labels", "count", "source", "named"),
    [
        (
            ("a", "b", "c"),
            3,
            _source(["c", "x"]),
            r"3 classes, the data has 2, .*no classes \['x'\]",
        ),
        ((), 1008, _source(classes=1000), "1008 classes, the data has 1000, .*names"),
        ((), 3, _source("ab"), "3 classes, the data has 2, .*not both have names"),
    ],
)
def test_classes_that_cannot_be_found_are_named(labels, count, source, named):
    with pytest.raises(CheckpointError, match=f"weights has {named}"):
        members.classes_of("weights", labels, count, source)


def test_other_names_of_as_many_classes_are_warned_of(capsys):
    assert members.classes_of("weights", ("a", "b"), 2, _source("ax")) is None
    assert "warning: class 1 is 'b' for weights and 'x' in the data" in capsys.readouterr().out
