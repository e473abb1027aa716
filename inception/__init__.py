"""Inception-v2 and Inception-v3 (arXiv 1512.00567): train, evaluate and look into the networks.

model = inception.Inception(num_classes=1000)
variables = model.init(key, images, train=False)
logits, endpoints = model.apply(variables, images, train=False)

config = inception.load_config("configs/digits.py", ["seed=1"])
results = inception.train_and_evaluate(config, "runs/digits")

model, variables, preprocessing = inception.load_pretrained("runs/digits")  # or anybody's weights

What is exported is imported when it is first used: the network alone loads no data pipeline.
"""

import importlib
import importlib.metadata
import os
from typing import TYPE_CHECKING, Any


def _avoid_ynnpack() -> None:
    """Turns off jaxlib's YNNPACK offload, which halves this network's speed on a CPU.

    It also has wrong-result bugs (jax issues 39103, 39257, 40412). The flag is read when JAX
    starts its backend; jaxlib aborts on a flag that it does not know, hence the versions.
    """
    version = tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2]))
    flag = "--xla_cpu_experimental_ynn_fusion_type"
    flags = os.environ.get("XLA_FLAGS", "")
    if (0, 10) <= version <= (0, 12) and flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}=".strip()


_avoid_ynnpack()
# Buckets are reached through fsspec, not through TensorFlow, which would be imported for it.
os.environ.setdefault("EPATH_USE_TF", "false")

if TYPE_CHECKING:
    from inception.config import load as load_config
    from inception.data.preprocessing import Preprocessing
    from inception.evaluation.evaluate import evaluate_run
    from inception.network.model import Inception
    from inception.predict.predictor import Predictor
    from inception.training.loop import train_and_evaluate
    from inception.training.replay import replay_step
    from inception.weights import load_pretrained
    from inception.workdir.restore import restore_run

_EXPORTS = {
    "Inception": ("network.model", "Inception"),
    "Predictor": ("predict.predictor", "Predictor"),
    "Preprocessing": ("data.preprocessing", "Preprocessing"),
    "evaluate_run": ("evaluation.evaluate", "evaluate_run"),
    "load_config": ("config", "load"),
    "load_pretrained": ("weights", "load_pretrained"),
    "replay_step": ("training.replay", "replay_step"),
    "restore_run": ("workdir.restore", "restore_run"),
    "train_and_evaluate": ("training.loop", "train_and_evaluate"),
}

__all__ = [
    "Inception",
    "Predictor",
    "Preprocessing",
    "evaluate_run",
    "load_config",
    "load_pretrained",
    "replay_step",
    "restore_run",
    "train_and_evaluate",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'inception' has no attribute {name!r}")
    module, attribute = _EXPORTS[name]
    return getattr(importlib.import_module(f"inception.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
