"""Inception-v2 and Inception-v3 (arXiv 1512.00567): train, evaluate and look into the networks.

model = inception.Inception(num_classes=1000)
variables = model.init(key, images, train=False)
logits, endpoints = model.apply(variables, images, train=False)

config = inception.load_config("configs/digits.py", ["seed=1"])
results = inception.train(config, "runs/digits")
"""

import importlib.metadata
import os


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

from inception.config import load as load_config  # noqa: E402
from inception.evaluate import evaluate  # noqa: E402
from inception.model import Inception  # noqa: E402
from inception.train import train  # noqa: E402

__all__ = ["Inception", "evaluate", "load_config", "train"]
