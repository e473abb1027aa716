"""Imports account for every tensor, recognize their source and set what differs."""

import json

import h5py
import numpy as np
import pytest
import safetensors.numpy

from inception.weights import SOURCES, WeightsError, importing, names
from inception.weights.description import Description, settle_activation
from inception.weights.files import Tensors
from inception.weights.importing import import_weights
from inception.weights.labels import imagenet_labels
from inception.weights.pretrained import shapes_of
from inception.weights.sources import recognize, timm_tag
from tests.weight_files import keras_shapes, torch_shapes, write_hdf5, write_safetensors


@pytest.fixture
def file(tmp_path):
    """Makes a Keras file of the network, with some shapes changed (None: left out)."""

    def make(changes=(), classes=7, offset=0):
        shapes = keras_shapes(classes, offset) | dict(changes)
        kept = {name: shape for name, shape in shapes.items() if shape is not None}
        return write_hdf5(tmp_path / "x.h5", kept)

    return make


CONV, BETA = "conv2d_5/conv2d_5/kernel:0", "batch_normalization_5/batch_normalization_5/beta:0"


@pytest.mark.parametrize("offset", [0, 1, 94, 1000])
def test_keras_numbers_may_begin_anywhere(file, offset):
    pretrained = import_weights(file(offset=offset, classes=7))
    assert (pretrained.source, pretrained.model.num_classes) == ("keras", 7)
    assert pretrained.model.aux_head == "none"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({BETA: None}, ["1 missing", "batch_normalization_5/beta", "params/Mixed_5b/branch1x1/bn"]),
        ({CONV: (1, 1, 192, 65)}, ["1 of another shape", "conv2d_5/kernel", "(1, 1, 192, 65)"]),
        ({"dense/dense/kernel:0": (3, 3)}, ["not in this network", "dense/kernel"]),
        ({"conv2d_5/conv2d_5/bias:0": (64,)}, ["1 not in this network", "conv2d_5/bias"]),
        ({"predictions/predictions/bias:0": None}, ["missing", "params/Logits/bias"]),
    ],
)
def test_every_tensor_is_accounted_for(file, changes, named):
    path = file(changes)
    with pytest.raises(WeightsError) as raised:
        import_weights(path)
    assert all(name in str(raised.value) for name in (str(path), *named))


def test_optimizers_are_left_out(file):
    assert import_weights(file({"optimizer_weights/adam/conv2d_5/kernel:0": (3,)}))


@pytest.mark.parametrize(
    "place",
    [
        "metrics/mean/vars/0",
        "layers/functional/metrics/mean/vars/1",
        "compiled_metrics/accuracy/vars/0",
        "layers/dropout/seed_generator/vars/0",
        "layers/random_flip/seed_generator_1/vars/0",
        "optimizer/vars/3",
        "optimizer_weights/adam/dense/kernel:0",
    ],
)
def test_what_belongs_to_training_is_no_layer(file, place):
    """As tf.keras 2.12 to 2.15 and Keras 3 write for compiled models, and for random layers."""
    assert import_weights(file({place: (1,)})).model.num_classes == 7


def test_the_head_is_known_by_its_inputs(file):
    """Whatever it is called, and whatever else there is."""
    head = {f"predictions/predictions/{part}:0": None for part in ("kernel", "bias")}
    own = {"a/birds/kernel:0": (2048, 3), "a/birds/bias:0": (3,)}
    assert import_weights(file(head | own)).model.num_classes == 3
    numbered = {"layers/b/my_dense/vars/0": (2048, 3), "layers/b/my_dense/vars/1": (3,)}
    assert import_weights(file(head | numbered)).model.num_classes == 3
    hidden = {"b/dense/kernel:0": (3, 2), "b/dense/bias:0": (2,)}
    with pytest.raises(WeightsError, match=r"2 not in this network(.*\n)*.*b/dense/kernel"):
        import_weights(file(head | own | hidden))
    flat = {"b/dense/kernel:0": (51200, 2), "b/dense/bias:0": (2,)}
    with pytest.raises(WeightsError, match=r"2 not in this network(.*\n)*.*b/dense/kernel"):
        import_weights(file(head | flat))


@pytest.mark.rounding
@pytest.mark.parametrize("layout", ["named", "numbered"])
@pytest.mark.parametrize("pixels", [True, False])
def test_an_adapted_normalization_becomes_the_scaling(file, layout, pixels):
    parts = ("mean", "variance", "count")
    values = (120.0, 3600.0, 8.0) if pixels else (0.5, 0.04, 8.0)
    layer = "normalization/normalization" if layout == "named" else "layers/normalization/vars"
    names = [f"{layer}/{part if layout == 'named' else n}" for n, part in enumerate(parts)]
    path = file(dict(zip(names, [(3,), (3,), ()], strict=True)))
    with h5py.File(path, "a") as hdf5:
        for name, value in zip(names, values, strict=True):
            hdf5[name][...] = value
    if pixels:
        found = import_weights(path)
        assert found.preprocessing.mean == pytest.approx((120 / 255,) * 3)
        assert found.preprocessing.std == pytest.approx((60 / 255,) * 3)
        assert found.provenance["preprocessing.mean"] == path.name
        return
    with pytest.raises(WeightsError, match=r"not pixels from 0 to 255.*--mean"):
        import_weights(path)
    given = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    assert import_weights(path, preprocessing=given).preprocessing.std == (0.2, 0.2, 0.2)


def test_what_is_given_wins_and_is_recorded(file):
    given = {"image_size": 150, "crop_fraction": 0.9, "interpolation": "nearest"}
    found = import_weights(file(), preprocessing=given, activation="sigmoid")
    for field, value in given.items():
        assert getattr(found.preprocessing, field) == value
        assert found.provenance[f"preprocessing.{field}"] == "given"
    assert (found.activation, found.provenance["activation"]) == ("sigmoid", "given")
    assert found.provenance["preprocessing.mean"] == "assumed"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"preprocessing": {"crop_fraction": 2}}, "crop_fraction=2"),
        ({"preprocessing": {"mean": (0.5, 0.5)}}, "mean"),
        ({"preprocessing": {"image_size": 40}}, "image_size=40.*at least 75"),
        ({"activation": "tanh"}, "activation='tanh'"),
    ],
)
def test_what_is_given_wrongly_is_refused(file, given, named):
    with pytest.raises(WeightsError, match=named):
        import_weights(file(), **given)


def test_one_output_is_of_a_sigmoid(file):
    found = import_weights(file(classes=1))
    assert (found.activation, found.provenance["activation"]) == ("sigmoid", "assumed")
    assert import_weights(file(classes=2)).activation == "softmax"


def test_open_images_labels_are_not_exclusive():
    assert settle_activation("", Description(), 6012) == ("sigmoid", "assumed")
    assert settle_activation("softmax", Description(), 6012) == ("softmax", "given")


def test_another_network_is_refused(tmp_path):
    safetensors.numpy.save_file({"layer1.conv1.weight": np.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"not an Inception-v3 of torchvision.*layer1\.conv1"):
        import_weights(tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=r"470 missing(.*\n)*.*Conv2d_1a_3x3\.bn\.bias"):
        import_weights(tmp_path / "x.safetensors", "torchvision")


def test_values_must_be_finite_floats(file):
    path = file()
    with h5py.File(path, "a") as hdf5:
        hdf5[CONV][0, 0, 0, 0] = np.nan
    with pytest.raises(WeightsError, match="conv2d_5/kernel has values that are not finite"):
        import_weights(path)
    with h5py.File(path, "a") as hdf5:
        shape = hdf5[CONV].shape
        del hdf5[CONV]
        hdf5.create_dataset(CONV, shape, "c8")
    with pytest.raises(WeightsError, match="conv2d_5/kernel is complex64"):
        import_weights(path)


def test_variances_must_not_be_negative(file):
    path, name = file(), "batch_normalization_5/batch_normalization_5/moving_variance:0"
    with h5py.File(path, "a") as hdf5:
        hdf5[name][0] = -1
    with pytest.raises(WeightsError, match="negative variance"):
        import_weights(path)


def test_an_absurd_head_is_refused_before_it_is_read(file):
    path = file(classes=10**9)
    with pytest.raises(WeightsError, match=r"predictions/bias has shape \(1000000000,\)"):
        import_weights(path)


def test_fids_network_has_its_classes(tmp_path):
    path = write_safetensors(tmp_path / "x.safetensors", torch_shapes(7))
    with pytest.raises(WeightsError, match=r"7 classes, but FID's network has 1008"):
        import_weights(path, "fid")


def test_unknown_sources_are_refused(file):
    with pytest.raises(WeightsError, match=r"source 'tf' is unknown.*torchvision"):
        import_weights(file(), "tf")


def test_labels(file):
    assert import_weights(file(classes=7)).labels == ()
    assert import_weights(file(classes=1000)).labels == imagenet_labels()
    assert import_weights(file(classes=2), labels=["cat", "dog"]).labels == ("cat", "dog")
    with pytest.raises(WeightsError, match=r"3 classes.*2 labels"):
        import_weights(file(classes=3), labels=["cat", "dog"])


def test_imagenets_labels_are_one_for_each_class():
    labels = imagenet_labels()
    assert len(set(labels)) == 1000
    assert (labels[0], labels[-1]) == ("tench", "toilet tissue")


def tensors_of(source: str, classes: int, aux_head: bool, format: str) -> Tensors:
    """Names and shapes of a source's file; nothing to read."""
    naming = SOURCES[source].naming
    model = importing.Inception(classes, aux_head="bn" if aux_head else "none")
    model = model.clone(**SOURCES[source].model)
    shapes = shapes_of(model)
    table = names.table(naming, shapes)
    return Tensors(
        format,
        {
            name: names.to_source(naming, ours, np.empty(shapes[ours], bool)).shape
            for ours, name in table.items()
        },
        lambda name: np.zeros(0),
    )


@pytest.mark.parametrize(
    ("source", "classes", "aux_head", "format", "path"),
    [
        ("torchvision", 1000, True, "pytorch", "inception_v3_google-0cc3c7bd.pth"),
        ("torchvision", 5, False, "pytorch", "mine.pth"),
        ("fid", 1008, False, "pytorch", "pt_inception-2015-12-05-6726825d.pth"),
        ("timm.tf_in1k", 1000, False, "safetensors", "inception_v3.tf_in1k/model.safetensors"),
        ("timm.tf_adv_in1k", 1000, False, "safetensors", "inception_v3.tf_adv_in1k.safetensors"),
        ("timm.tv_in1k", 1000, True, "safetensors", "timm--inception_v3.tv_in1k/x/y.safetensors"),
        ("timm.tf_in1k", 1000, False, "pytorch", "tf_inception_v3-e0069de4.pth"),
        ("timm.tf_adv_in1k", 1000, False, "pytorch", "adv_inception_v3-9e27bd63.pth"),
        ("timm.gluon_in1k", 1000, False, "pytorch", "gluon_inception_v3-9f746940.pth"),
        ("keras", 1000, False, "keras", "x.h5"),
        ("slim", 1001, True, "tensorflow", "inception_v3.ckpt"),
        ("tensorflow-inception", 1001, True, "tensorflow", "model.ckpt-157585"),
    ],
)
def test_sources_are_recognized(tmp_path, source, classes, aux_head, format, path):
    assert recognize(tensors_of(source, classes, aux_head, format), tmp_path / path) == source


def test_hugging_faces_config_names_timms_tag(tmp_path):
    tensors = tensors_of("timm.gluon_in1k", 1000, False, "safetensors")
    with pytest.raises(WeightsError, match=r"Name timm\.tf_in1k"):
        recognize(tensors, tmp_path / "model.safetensors")
    config = {"architecture": "inception_v3", "pretrained_cfg": {"tag": "gluon_in1k"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert recognize(tensors, tmp_path / "model.safetensors") == "timm.gluon_in1k"


@pytest.mark.parametrize(
    ("path", "tag"),
    [
        ("tf_in1k/inception_v3.gluon_in1k.safetensors", "gluon_in1k"),
        ("tf_adv_in1k/tf_inception_v3-e0069de4.pth", "tf_in1k"),
        ("tv_in1k/tf_in1k/model.safetensors", "tf_in1k"),
        ("models--timm--inception_v3.tv_in1k/snapshots/8e0/model.safetensors", "tv_in1k"),
        ("inception_v3.pth", ""),
    ],
)
def test_the_nearest_name_gives_timms_tag(path, tag):
    assert timm_tag(f"/data/gluon_in1k/{path}") == (tag or "gluon_in1k")
    assert timm_tag(f"/data/{path}") == tag


def test_two_tags_in_one_name_are_refused(tmp_path):
    for path in ("tf_in1k_or_gluon_in1k.safetensors", "tf_in1k_or_gluon_in1k/x.safetensors"):
        with pytest.raises(WeightsError, match=r"names gluon_in1k and tf_in1k\. Name the source"):
            timm_tag(tmp_path / path)


def test_a_file_and_a_config_of_two_tags_are_refused(tmp_path):
    config = {"architecture": "inception_v3", "pretrained_cfg": {"tag": "gluon_in1k"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        WeightsError, match=r"names tf_in1k, but config\.json next to it gluon_in1k"
    ):
        timm_tag(tmp_path / "inception_v3.tf_in1k.safetensors")


@pytest.mark.parametrize("source", SOURCES)
def test_the_differences_that_change_results_are_set(source):
    origin = SOURCES[source]
    fields = origin.model
    assert fields["batch_norm_epsilon"] == 1e-3
    assert fields.get("batch_norm_scale", False) == (origin.naming is names.TORCH)
    counts = source == "torchvision" or source.startswith("timm")
    assert fields.get("avg_pool_counts_padding", False) == counts
    assert fields.get("mixed_7c_pool", "average") == ("max" if source == "fid" else "average")
