"""torchvision's and timm's Inception-v3 in PyTorch, channels last, as one would train and use them.

On a CPU that is oneDNN. Loaded in the process of the benchmark's side; see
benchmarks/work.py for what a `Work` and a `Side` are.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch._inductor import config as inductor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.ways import Call, fastest
from benchmarks.work import Side, Work

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(work: Work) -> Side:
    """The same step as ours without augmentation, of PyTorch's own parts."""
    network, batch, fields = _network(work, aux_head=True).train(), _batch(work), work.fields
    optimizer = torch.optim.RMSprop(
        network.parameters(),
        lr=fields["learning_rate"] * work.batch / fields["learning_rate_batch"],
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
    forward = torch.compile(network) if work.side == "timm-compile" else network
    labels = torch.arange(work.batch, device=DEVICE) % work.num_classes

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with _precision(work):
            main, side = forward(_scaled(batch))
        loss = loss_function(main.float(), labels)
        loss += fields["aux_loss_weight"] * loss_function(side.float(), labels)
        loss.backward()
        if fields["clip_norm"]:
            nn.utils.clip_grad_norm_(network.parameters(), fields["clip_norm"], foreach=True)
        optimizer.step()
        averages.update_parameters(network)

    how = "torch.compile" if work.side == "timm-compile" else "eager"
    does = (
        f"PyTorch {torch.__version__}, {how}, channels last, both heads with label smoothing, "
        "gradients, clip_grad_norm_, RMSprop with weight decay and AveragedModel (both foreach); "
        "batch norm over the batch, with scale"
    )
    return Side(step, _wait, does, _device_bytes)


def infer(work: Work) -> Side:
    """Evaluation from uint8 to logits, by the fastest of PyTorch's ways to fold and fuse."""
    network, batch = _network(work, aux_head=False).eval(), _batch(work)
    network = network.to(getattr(torch, work.dtype))
    inductor.freezing = True  # weights are constants, so batch norm is folded

    def of(make: Callable[[], Callable]) -> Call:
        forward = make()

        def call() -> None:
            with torch.inference_mode():
                forward(_scaled(batch, work.dtype))

        return call

    ways = {"torch.compile": lambda: of(lambda: torch.compile(network))}
    if work.side != "timm-compile":
        ways["optimize_for_inference"] = lambda: of(lambda: _optimized(network, work))
    if DEVICE.type == "cuda":
        graphs = partial(torch.compile, network, mode="reduce-overhead")
        ways["torch.compile with CUDA graphs"] = lambda: of(graphs)
    step, found = fastest(ways, _wait)
    does = f"PyTorch {torch.__version__}, channels last, uint8 to logits, the fastest of {found}"
    return Side(step, _wait, does, _device_bytes)


def _network(work: Work, aux_head: bool) -> nn.Module:
    torch.set_num_threads(work.threads)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as is JAX's default
    if work.side == "torchvision":
        from torchvision.models import inception_v3

        network = inception_v3(
            weights=None, aux_logits=aux_head, init_weights=False, num_classes=work.num_classes
        )
    else:
        import timm

        name = "inception_v3"
        network = timm.create_model(name, num_classes=work.num_classes, aux_logits=aux_head)
    for parameter in network.parameters():
        if parameter.ndim == 4:
            nn.init.kaiming_normal_(parameter)  # activations near 1, as ours have
    return network.to(DEVICE, memory_format=torch.channels_last)


def _batch(work: Work) -> torch.Tensor:
    """Noise, uint8 on the device; channels last, as ours."""
    shape = (work.batch, 3, work.size, work.size)
    images = torch.randint(256, shape, dtype=torch.uint8, device=DEVICE)
    return images.contiguous(memory_format=torch.channels_last)


def _scaled(images: torch.Tensor, dtype: str = "float32") -> torch.Tensor:
    return images.float().sub_(127.5).div_(127.5).to(getattr(torch, dtype))


def _precision(work: Work) -> Any:
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=work.dtype == "bfloat16")


def _optimized(network: nn.Module, work: Work) -> Callable:
    example = _scaled(_batch(work), work.dtype)
    with torch.inference_mode():
        traced = torch.jit.freeze(torch.jit.trace(network, example))
        return torch.jit.optimize_for_inference(traced)


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def _device_bytes() -> int | None:
    return torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else None
