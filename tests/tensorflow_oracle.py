"""slim's and research/inception's networks in TensorFlow's own operations, and their checkpoints.

Written after slim/nets/inception_v3.py and research/inception/inception/slim, with their variable
scopes, so that it is TensorFlow that names the variables: independent of inception.weights.
"""

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tests.oracles import random_array

v1 = tf.compat.v1
DOWN = (2, "VALID")
ONE = "Conv2d_0a_1x1"
POOL = [(192, 1, 1, "Conv2d_0b_1x1")]


def figure5(pool: int, second=(ONE, "Conv2d_0b_5x5")) -> dict:
    """Branches by research's scope: layers of (features, height, width, slim's scope)."""
    return {
        "branch1x1": [(64, 1, 1, ONE)],
        "branch5x5": [(48, 1, 1, second[0]), (64, 5, 5, second[1])],
        "branch3x3dbl": [
            (64, 1, 1, ONE),
            (96, 3, 3, "Conv2d_0b_3x3"),
            (96, 3, 3, "Conv2d_0c_3x3"),
        ],
        "branch_pool": [(pool, 1, 1, "Conv2d_0b_1x1")],
    }


def figure6(c: int) -> dict:
    return {
        "branch1x1": [(192, 1, 1, ONE)],
        "branch7x7": [(c, 1, 1, ONE), (c, 1, 7, "Conv2d_0b_1x7"), (192, 7, 1, "Conv2d_0c_7x1")],
        "branch7x7dbl": [
            (c, 1, 1, ONE),
            (c, 7, 1, "Conv2d_0b_7x1"),
            (c, 1, 7, "Conv2d_0c_1x7"),
            (c, 7, 1, "Conv2d_0d_7x1"),
            (192, 1, 7, "Conv2d_0e_1x7"),
        ],
        "branch_pool": POOL,
    }


def figure7(last: str) -> dict:
    """A list in place of a layer is the two convolutions that are concatenated."""
    short = [(384, 1, 3, "Conv2d_0b_1x3"), (384, 3, 1, last)]
    double = [(384, 1, 3, "Conv2d_0c_1x3"), (384, 3, 1, "Conv2d_0d_3x1")]
    return {
        "branch1x1": [(320, 1, 1, ONE)],
        "branch3x3": [(384, 1, 1, ONE), short],
        "branch3x3dbl": [(448, 1, 1, ONE), (384, 3, 3, "Conv2d_0b_3x3"), double],
        "branch_pool": POOL,
    }


BLOCKS = {
    ("Mixed_5b", "mixed_35x35x256a"): figure5(32),
    ("Mixed_5c", "mixed_35x35x288a"): figure5(64, ("Conv2d_0b_1x1", "Conv_1_0c_5x5")),
    ("Mixed_5d", "mixed_35x35x288b"): figure5(64),
    ("Mixed_6a", "mixed_17x17x768a"): {
        "branch3x3": [(384, 3, 3, "Conv2d_1a_1x1", *DOWN)],
        "branch3x3dbl": [
            (64, 1, 1, ONE),
            (96, 3, 3, "Conv2d_0b_3x3"),
            (96, 3, 3, "Conv2d_1a_1x1", *DOWN),
        ],
    },
    ("Mixed_6b", "mixed_17x17x768b"): figure6(128),
    ("Mixed_6c", "mixed_17x17x768c"): figure6(160),
    ("Mixed_6d", "mixed_17x17x768d"): figure6(160),
    ("Mixed_6e", "mixed_17x17x768e"): figure6(192),
    ("Mixed_7a", "mixed_17x17x1280a"): {
        "branch3x3": [(192, 1, 1, ONE), (320, 3, 3, "Conv2d_1a_3x3", *DOWN)],
        "branch7x7x3": [
            (192, 1, 1, ONE),
            (192, 1, 7, "Conv2d_0b_1x7"),
            (192, 7, 1, "Conv2d_0c_7x1"),
            (192, 3, 3, "Conv2d_1a_3x3", *DOWN),
        ],
    },
    ("Mixed_7b", "mixed_8x8x2048a"): figure7("Conv2d_0b_3x1"),
    ("Mixed_7c", "mixed_8x8x2048b"): figure7("Conv2d_0c_3x1"),
}
STEM = [
    (("Conv2d_1a_3x3", "conv0"), (32, 3, 3, *DOWN)),
    (("Conv2d_2a_3x3", "conv1"), (32, 3, 3, 1, "VALID")),
    (("Conv2d_2b_3x3", "conv2"), (64, 3, 3, 1, "SAME")),
    (("MaxPool_3a_3x3", "pool1"), ()),
    (("Conv2d_3b_1x1", "conv3"), (80, 1, 1, 1, "VALID")),
    (("Conv2d_4a_3x3", "conv4"), (192, 3, 3, 1, "VALID")),
    (("MaxPool_5a_3x3", "pool2"), ()),
]


class Network:
    """Either network as a graph.

    Attributes:
      endpoints: by slim's names, with "pooled", "logits" and "aux_logits".
    """

    def __init__(self, slim: bool, images: Any, classes: int):
        self._slim, self.endpoints = slim, {}
        with v1.variable_scope("InceptionV3" if slim else v1.get_variable_scope()):
            x = images
            for scopes, layer in STEM:
                x = self.endpoints[scopes[0]] = (
                    self._conv(x, *layer[:3], self._scope(scopes), *layer[3:])
                    if layer
                    else tf.nn.max_pool2d(x, 3, 2, "VALID")
                )
            for scopes, branches in BLOCKS.items():
                with v1.variable_scope(self._scope(scopes)):
                    x = self.endpoints[scopes[0]] = self._block(x, branches)
            self._heads(x, classes)

    def _scope(self, scopes: tuple[str, str]) -> str:
        return scopes[0] if self._slim else scopes[1]

    def _conv(self, x: Any, features, height, width, scope, stride=1, padding="SAME") -> Any:
        with v1.variable_scope(scope, "Conv"):  # without a scope, Conv, Conv_1, ...
            weights = v1.get_variable("weights", [height, width, x.shape[-1], features])
            x = tf.nn.conv2d(x, weights, stride, padding)
            with v1.variable_scope("BatchNorm"):
                beta = v1.get_variable("beta", [features])
                mean = v1.get_variable("moving_mean", [features], trainable=False)
                variance = v1.get_variable("moving_variance", [features], trainable=False)
        return tf.nn.relu(tf.nn.batch_normalization(x, mean, variance, beta, None, 1e-3))

    def _block(self, x: Any, branches: dict) -> Any:
        outputs = []
        for number, (scope, layers) in enumerate(branches.items()):
            with v1.variable_scope(self._scope((f"Branch_{number}", scope))):
                y = tf.nn.avg_pool2d(x, 3, 1, "SAME") if scope == "branch_pool" else x
                for layer in layers:
                    parallel = layer if isinstance(layer, list) else [layer]
                    y = tf.concat([self._layer(y, *one) for one in parallel], -1)
                outputs.append(y)
        if "branch_pool" not in branches:
            outputs.append(tf.nn.max_pool2d(x, 3, 2, "VALID"))
        return tf.concat(outputs, -1)

    def _layer(self, x: Any, features, height, width, scope, *rest) -> Any:
        return self._conv(x, features, height, width, scope if self._slim else None, *rest)

    def _heads(self, x: Any, classes: int) -> None:
        with v1.variable_scope(self._scope(("AuxLogits", "aux_logits"))):
            y = tf.nn.avg_pool2d(self.endpoints["Mixed_6e"], 5, 3, "VALID")
            y = self._conv(y, 128, 1, 1, self._scope(("Conv2d_1b_1x1", "proj")))
            y = self._conv(y, 768, 5, 5, "Conv2d_2a_5x5" if self._slim else None, 1, "VALID")
            self.endpoints["aux_logits"] = self._linear(y, classes, ("Conv2d_2b_1x1", "FC"))
        with v1.variable_scope(self._scope(("Logits", "logits"))):
            x = tf.reduce_mean(x, [1, 2], keepdims=True)
            self.endpoints["pooled"] = x[:, 0, 0]
            self.endpoints["logits"] = self._linear(x, classes, ("Conv2d_1c_1x1", "logits"))

    def _linear(self, x: Any, classes: int, scopes: tuple[str, str]) -> Any:
        """A 1x1 convolution in slim, a matrix product in research/inception."""
        shape = [x.shape[-1], classes]
        with v1.variable_scope(self._scope(scopes)):
            weights = v1.get_variable("weights", [1, 1, *shape] if self._slim else shape)
            biases = v1.get_variable("biases", [classes])
        return x[:, 0, 0] @ tf.reshape(weights, shape) + biases


def write(source: str, prefix: Path, images: np.ndarray, classes: int, *, v2: bool) -> dict:
    """Writes a checkpoint of random weights; returns the endpoints for `images`.

    slim's comes with a step and an optimizer's slots. research/inception's has shadows of all
    variables beside them, and gives a pair: endpoints of the raw weights, and of the shadows.
    """
    rng = np.random.default_rng(0)
    settings = v1.ConfigProto()
    settings.graph_options.rewrite_options.disable_meta_optimizer = True  # it takes half a minute
    zeros = v1.zeros_initializer()
    with (
        tf.Graph().as_default(),
        v1.Session(config=settings) as session,
        v1.variable_scope(v1.get_variable_scope(), initializer=zeros),
    ):
        network = Network(source == "slim", tf.constant(images), classes)
        weights = v1.global_variables()
        v1.train.get_or_create_global_step()
        if source == "slim":
            for slot in ("RMSProp", "RMSProp_1"):  # as an optimizer names its own
                v1.get_variable(f"{weights[0].op.name}/{slot}", weights[0].shape)
            shadows = []
        else:
            average = v1.train.ExponentialMovingAverage(0.9999)
            average.apply(weights)
            shadows = [average.average(variable) for variable in weights]
        session.run(v1.global_variables_initializer())
        values = {v.ref(): random_array(v.op.name, v.shape, rng) for v in (*weights, *shadows)}
        _assign(session, values)
        version = v1.train.SaverDef.V2 if v2 else v1.train.SaverDef.V1
        v1.train.Saver(write_version=version).save(session, str(prefix), write_meta_graph=False)
        raw = session.run(network.endpoints)
        if source == "slim":
            return raw
        _assign(session, {v.ref(): values[s.ref()] for v, s in zip(weights, shadows, strict=True)})
        return raw, session.run(network.endpoints)


def _assign(session: Any, values: dict[Any, np.ndarray]) -> None:
    """All at once, in place of the initial values."""
    initializers = [variable.deref().initializer for variable in values]
    arrays = zip(initializers, values.values(), strict=True)
    session.run(initializers, {initializer.inputs[1]: array for initializer, array in arrays})
