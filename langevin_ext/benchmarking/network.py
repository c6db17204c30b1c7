"""What a forward pass of a network must do at least, counted, and the time that takes at the ceilings of a machine.

The floor of a pass is the time of its convolutions and matrix products at the rate of a large matrix product, plus the
time of its norms and sums at the bandwidth of a large copy: a norm with its ELU reads and writes its input once, a sum
costs one more reading and writing. Networks without such norms have the first part alone.
"""

import functools
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from .. import engine
from ..models.norm import ConditionalInstanceNorm2dPlus, InstanceNorm2dPlus
from ..models.refinenet import ChainedPooling, MultiResolutionFusion, ResidualBlock, ResidualConvUnit
from .timing import interleaved

SUMS = {
    ResidualBlock: lambda module: 1,
    ResidualConvUnit: lambda module: module.n_blocks,
    ChainedPooling: lambda module: len(module.convs),
    MultiResolutionFusion: lambda module: len(module.convs) - 1,
}


class Work(NamedTuple):
    """Of one evaluation for one image."""

    flop: int  # of convolutions and matrix products, a multiplication and an addition counting as two
    normed: int  # values that norms read
    summed: int  # values of the sums of two branches

    def floor(self, batch, itemsize, flop_per_s, bytes_per_s) -> float:
        """Seconds for a batch of values of `itemsize` bytes, at these ceilings."""
        return batch * (self.flop / flop_per_s + 2 * (self.normed + self.summed) * itemsize / bytes_per_s)


class Ceilings(NamedTuple):
    """What a machine does at most, as measured."""

    bytes_per_s: float  # of a large copy, counting what is read and what is written
    flop_per_s: float  # of a large float32 matrix product, as torch is set up


def ceilings(device, seconds=3.0) -> Ceilings:
    """Both, measured for about so many seconds."""
    cuda = torch.device(device).type == "cuda"
    source = torch.ones((1 << 28) if cuda else (1 << 25), device=device)
    target = torch.empty_like(source)
    n = 8192 if cuda else 1024
    a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
    fns = {"copy": lambda: target.copy_(source), "matmul": lambda: a @ b}
    times = interleaved(fns, 20, 2, device, flush=False, seconds=seconds)
    return Ceilings(2 * source.nbytes / times["copy"].median, 2 * n**3 / times["matmul"].median)


def inputs(model, batch, device):
    """Something that a model, a score network or a velocity model, can be called with: x and levels or times."""
    channels, height, width = (int(size) for size in model.shape)
    if hasattr(model, "process"):
        return torch.rand(batch, 2 * channels, height, width, device=device), torch.rand(batch, device=device)
    level = torch.arange(batch, device=device) % len(model.sigmas)
    return torch.rand(batch, channels, height, width, device=device), level


def work(model, device="cpu") -> Work:
    """Counted while the model is evaluated for one image."""
    counts = {"normed": 0, "summed": 0}

    def norm(module, args):
        counts["normed"] += args[0].numel()

    def branches(module, args, output):
        counts["summed"] += SUMS[type(module)](module) * output.x.numel()

    handles = []
    for module in model.modules() if isinstance(model, torch.nn.Module) else ():
        if isinstance(module, ConditionalInstanceNorm2dPlus | InstanceNorm2dPlus):
            handles.append(module.register_forward_pre_hook(norm))
        elif type(module) in SUMS:
            handles.append(module.register_forward_hook(branches))
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(*inputs(model, 1, device))
    finally:
        for handle in handles:
            handle.remove()
    return Work(counter.get_total_flops(), **counts)


def forward_rows(name, model, batches, limits, device="cpu", seconds=20.0, progress=None) -> list[dict]:
    """The forward pass of a model, and of its engine where it has one, in batches, timed in turn.

    Args:
        name: of the model, for the rows.
        batches: sizes.
        limits: `Ceilings`.
        seconds: for all batches together.
        progress: called after each timing.

    Returns:
        rows for each batch: median, images/s, GFLOP/s, and the share of the floor of the whole pass (None where no
        products were counted). An engine that makes fewer products than the definition may have more than all of it.
    """
    found, runners = work(model, device), {name: model}
    if not engine.why_not(model):
        runners[f"{name}, engine"] = engine.build(model, batch=max(batches))
    rows = []
    with torch.inference_mode():
        for batch in batches:
            x, level = inputs(model, batch, device)
            calls = {each: functools.partial(runner, x, level) for each, runner in runners.items()}
            times = interleaved(calls, 10, 1, device, False, seconds / len(batches))
            floor = found.floor(batch, 4, limits.flop_per_s, limits.bytes_per_s)
            for each, time in times.items():
                rows.append(
                    {
                        "model": each,
                        "batch": batch,
                        "median_s": time.median,
                        "iqr_s": time.iqr,
                        "images_per_s": batch / time.median,
                        "gflop_per_s": batch * found.flop / time.median / 1e9,
                        "floor_s": floor,
                        "share_of_floor": floor / time.median if found.flop else None,
                    }
                )
            if progress is not None:
                progress()
    return rows
