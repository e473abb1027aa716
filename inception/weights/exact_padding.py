"""Makes an InceptionV3 of torchvision or timm leave the padding out of its average pools.

TensorFlow's networks divide the sum of a window by the number of its pixels that are in the image,
9, 6 or 4; PyTorch's divide by 9 everywhere. No weights can make up for that, but this hook does:

network = exact_padding(torchvision.models.inception_v3(...))  # or timm.create_model(...)

This file needs PyTorch only. torch.export and torch.jit.trace keep the hook, state dicts do not.
"""

import torch
from torch.nn.functional import avg_pool2d


def _rescale(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> torch.Tensor:
    """Divides each average by the part of its window that is in the image: 9/9, 6/9 or 4/9."""
    (pooled,) = inputs
    return pooled / avg_pool2d(torch.ones_like(pooled[:1, :1]), 3, stride=1, padding=1)


def exact_padding(network: torch.nn.Module) -> torch.nn.Module:
    """Registers the hook where an average pool ends: at the convolutions named branch_pool."""
    for name, module in network.named_modules():
        if name.endswith("branch_pool"):
            module.register_forward_pre_hook(_rescale)
    return network
