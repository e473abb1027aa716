"""torchvision's and timm's Inception-v3 in PyTorch, channels last, as one would train and use them.

On a CPU that is oneDNN. Loaded in the process of the benchmark's side; see
inception/benchmark/work.py for what a `Work` and a `Side` are.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from inception.benchmark.work import Side, Work

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(work: Work) -> Side:
    """The same step as ours without augmentation, of PyTorch's own parts."""
    network, batch, fields = _network(work, side_head=True).train(), _batch(work), work.fields
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

    does = (
        f"{_described(work)}, both heads with label smoothing, gradients, clip_grad_norm_, "
        "RMSprop with weight decay (foreach), AveragedModel (foreach); batch norm over the batch, "
        "with scale"
    )
    return Side(step, _wait, does, _device_bytes)


def infer(work: Work) -> Side:
    """Evaluation from uint8 to logits, by the faster of PyTorch's two ways to fold and fuse."""
    network, batch = _network(work, side_head=False).eval(), _batch(work)
    network = network.to(getattr(torch, work.dtype))
    ways: dict[str, Callable[[nn.Module, torch.Tensor], Callable]] = {
        "optimize_for_inference": _optimized,
        "torch.compile": _compiled,
    }
    seconds, calls, notes = {}, {}, []
    for name, make in ways.items():
        try:
            calls[name] = make(network, _scaled(batch, work.dtype))
            seconds[name] = _seconds(lambda name=name: calls[name](_scaled(batch, work.dtype)))
            notes.append(f"{name} {1000 * seconds[name]:.1f} ms")
        except Exception as error:  # without a compiler, for instance
            notes.append(f"{name} failed: {str(error).strip().splitlines()[0][:80]}")
    if not seconds:
        raise RuntimeError("; ".join(notes))
    best = calls[min(seconds, key=lambda name: seconds[name])]

    def step() -> None:
        with torch.inference_mode():
            best(_scaled(batch, work.dtype))

    does = f"{_described(work)}, uint8 to logits, the faster of {'; '.join(notes)}"
    return Side(step, _wait, does, _device_bytes)


def _network(work: Work, side_head: bool) -> nn.Module:
    torch.set_num_threads(work.threads)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as is JAX's default
    if work.side == "torchvision":
        from torchvision.models import inception_v3

        network = inception_v3(
            weights=None, aux_logits=side_head, init_weights=False, num_classes=work.num_classes
        )
    else:
        import timm

        name = "inception_v3"
        network = timm.create_model(name, num_classes=work.num_classes, aux_logits=side_head)
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


def _optimized(network: nn.Module, images: torch.Tensor) -> Callable:
    with torch.inference_mode():
        traced = torch.jit.freeze(torch.jit.trace(network, images))
        return torch.jit.optimize_for_inference(traced)


def _compiled(network: nn.Module, images: torch.Tensor) -> Callable:
    torch._inductor.config.freezing = True  # weights are constants, so batch norm is folded
    return torch.compile(network)


def _seconds(call: Callable[[], object]) -> float:
    """The median of five calls, after three in which all is compiled."""
    times = []
    with torch.inference_mode():
        for _ in range(8):
            start = time.perf_counter()
            call()
            _wait()
            times.append(time.perf_counter() - start)
    return statistics.median(times[3:])


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def _device_bytes() -> int | None:
    return torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else None


def _described(work: Work) -> str:
    how = {"timm-compile": "torch.compile"}.get(work.side, "eager")
    return f"PyTorch {torch.__version__}, channels last" + (
        f", {how}" if work.mode == "train" else ""
    )
