"""torchvision's and timm's Inception-v3 in PyTorch, channels last, as one would train and use them.

On a CPU PyTorch computes with oneDNN.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._inductor import config as inductor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.cases import Case, Contender
from benchmarks.fastest import Call, fastest

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(case: Case) -> Contender:
    """The same step as ours without augmentation, from PyTorch's parts."""
    network, batch, fields = _network(case, aux_head=True).train(), _batch(case), case.fields
    optimizer = torch.optim.RMSprop(
        network.parameters(),
        lr=fields["learning_rate"] * case.batch / fields["learning_rate_batch"],
        alpha=fields["rmsprop_decay"],
        eps=fields["rmsprop_epsilon"],
        momentum=fields["momentum"],
        weight_decay=fields["weight_decay"],
        foreach=True,
    )
    averages = AveragedModel(
        network, multi_avg_fn=get_ema_multi_avg_fn(fields["ema_decay"]), use_buffers=True
    )
    loss_function = nn.CrossEntropyLoss(label_smoothing=fields["label_smoothing"])
    forward = torch.compile(network) if case.contender == "timm-compile" else network
    labels = torch.arange(case.batch, device=DEVICE) % case.num_classes

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with _precision(case):
            main, auxiliary = forward(_scaled(batch))
        loss = loss_function(main.float(), labels)
        loss += fields["aux_loss_weight"] * loss_function(auxiliary.float(), labels)
        loss.backward()
        if fields["clip_norm"]:
            nn.utils.clip_grad_norm_(network.parameters(), fields["clip_norm"], foreach=True)
        optimizer.step()
        averages.update_parameters(network)

    how = "torch.compile" if case.contender == "timm-compile" else "eager"
    description = (
        f"PyTorch {torch.__version__}, {how}, channels last, both heads with label smoothing, "
        "gradients, clip_grad_norm_, RMSprop with weight decay and AveragedModel (both foreach); "
        "batch norm over the batch, with scale"
    )
    return Contender(step, _wait, description, _device_bytes)


def infer(case: Case) -> Contender:
    """Inference from uint8 to logits, by the fastest of PyTorch's optimizations."""
    network, batch = _network(case, aux_head=False).eval(), _batch(case)
    network = network.to(getattr(torch, case.dtype))
    inductor.freezing = True  # weights become constants, so batch norm is folded

    def of(make: Callable[[], Callable]) -> Call:
        forward = make()

        def call() -> None:
            with torch.inference_mode():
                forward(_scaled(batch, case.dtype))

        return call

    makers = {"torch.compile": lambda: of(lambda: torch.compile(network))}
    if case.contender != "timm-compile":
        makers["optimize_for_inference"] = lambda: of(lambda: _optimized(network, case))
    if DEVICE.type == "cuda":
        graphs = partial(torch.compile, network, mode="reduce-overhead")
        makers["torch.compile with CUDA graphs"] = lambda: of(graphs)
    step, found = fastest(makers, _wait)
    description = (
        f"PyTorch {torch.__version__}, channels last, uint8 to logits, the fastest of {found}"
    )
    return Contender(step, _wait, description, _device_bytes)


def _network(case: Case, aux_head: bool) -> nn.Module:
    torch.set_num_threads(case.threads)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, which is JAX's default
    if case.contender == "torchvision":
        from torchvision.models import inception_v3

        network = inception_v3(
            weights=None, aux_logits=aux_head, init_weights=False, num_classes=case.num_classes
        )
    else:
        import timm

        name = "inception_v3"
        network = timm.create_model(name, num_classes=case.num_classes, aux_logits=aux_head)
    for parameter in network.parameters():
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter)  # keeps activations near 1, as in ours
    return network.to(DEVICE, memory_format=torch.channels_last)


def _batch(case: Case) -> torch.Tensor:
    """Noise, uint8 on the device, channels last as ours."""
    shape = (case.batch, 3, case.size, case.size)
    images = torch.randint(256, shape, dtype=torch.uint8, device=DEVICE)
    return images.contiguous(memory_format=torch.channels_last)


def _scaled(images: torch.Tensor, dtype: str = "float32") -> torch.Tensor:
    return images.float().sub_(127.5).div_(127.5).to(getattr(torch, dtype))


def _precision(case: Case) -> Any:
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=case.dtype == "bfloat16")


def _optimized(network: nn.Module, case: Case) -> Callable:
    example = _scaled(_batch(case), case.dtype)
    with torch.inference_mode():
        traced = torch.jit.freeze(torch.jit.trace(network, example))
        return torch.jit.optimize_for_inference(traced)


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def _device_bytes() -> int | None:
    return torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else None
