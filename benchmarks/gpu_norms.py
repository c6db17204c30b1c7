"""Sections of the GPU report: instance norm++ in the shapes of the network, and the network's convolutions."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from gpu_common import sentence
from gpu_kernels import SEARCHED, case_rows, planned, release, timed

from langevin_ext.benchmarking import kernels as cases
from langevin_ext.benchmarking.timing import input_sets, rotated
from langevin_ext.ops import norm_forms

# (C, H, W) of the norms of NCSN, ngf 128, at 32 and at 64 pixels, and what a one-pass kernel should reach of the copy
SHAPES = {
    (128, 32, 32): 0.60,
    (256, 16, 16): 0.60,
    (128, 16, 16): 0.60,
    (128, 64, 64): 0.75,
    (256, 32, 32): 0.75,
}
BATCHES = (66, 99, 100, 128, 132)


def norms(result, setting):
    """Forward in all shapes, with the sum before it and the mean over 5x5 pixels behind it, and the gradients.

    torch.compile, which takes longest, has the widest shape in half precision alone.
    """
    device, half = setting.device, torch.float16
    batch, shapes = (2, {(8, 4, 4): 0.6, (8, 6, 6): 0.75}) if setting.quick else (100, SHAPES)
    wide = max(shapes, key=lambda shape: shape[0] * shape[1] * shape[2])
    options = {"dtype": half, "channels_last": True}
    with torch.no_grad():
        for shape, target in shapes.items():
            name = f"norm+ELU fp16 NHWC {'x'.join(map(str, (batch, *shape)))}"
            forms(result, setting, name, (batch, *shape), half)  # first, so that the fused row runs the faster one
            make = partial(cases.norm, (batch, *shape), device, **options)
            case_rows(result, setting, name, make, target, shape == wide)
        whole = (batch, *wide)
        text, gradients = "x".join(map(str, whole)), partial(cases.norm_backward, whole, device, channels_last=True)
        plan = [
            ("sum+norm+ELU fp16 NHWC", partial(cases.norm, whole, device, residual=True, **options), 0.80),
            ("norm+5x5 mean fp16 NHWC", partial(cases.pooled_norm, whole, device, **options), None),
            ("norm+ELU float32 NHWC", partial(cases.norm, whole, device, channels_last=True), None),
            ("norm+ELU float32 NCHW", partial(cases.norm, whole, device), None),
            ("norm+ELU gradients fp16 NHWC", partial(gradients, dtype=half), 0.70),
            ("norm+ELU gradients bf16 NHWC", partial(gradients, dtype=torch.bfloat16), 0.70),
        ]
        for name, make, target in plan:
            case_rows(result, setting, f"{name} {text}", make, target, "float32" not in name)
    result.say(bound="each input read once and each output written once at the copy's rate")


def forms(result, setting, name, shape, dtype):
    """The forms that the GPU has for this shape, and which of them `choose_norm` keeps: the fused rows ran that one.

    Their times are of one input over and over, which may be in the cache, as what a convolution just wrote is.
    """
    try:
        chosen, rate = (
            norm_forms.choose_norm(shape, dtype, setting.device),
            setting.of("ceilings").get("copy_bytes_per_s"),
        )
    except Exception as error:  # a kernel that does not run
        result.add(what=name, variant="one-pass", wrong=sentence(error))
        return
    if not chosen:
        result.absent(what=name, variant="one-pass")
    for (form, with_sum), seconds in chosen.items():
        moved = (4 if with_sum else 2) * math.prod(shape) * dtype.itemsize
        result.add(
            what=f"sum+{name}" if with_sum else name,
            variant=form,
            how="graph",
            median_us=1e6 * seconds,
            gb_per_s=moved / seconds / 1e9,
            **({} if rate is None else {"bound_us": 1e6 * moved / rate, "share": moved / rate / seconds}),
            faster=chosen["two-kernel", with_sum] / seconds,
        )


def convolutions(result, setting):
    """3x3 convolutions of the network in fp16, channels-last, over batches that fill the multiprocessors or do not.

    By the plans that the engine gets from cuDNN; for the last batch also by those that it finds by measurement.
    """
    if setting.quick:
        plan, batches = [(8, 4, 1), (8, 4, 2)], (2, 3)
    else:
        plan = [(256, size, dilation) for size in (16, 32) for dilation in (1, 2, 4)] + [(128, 32, 1), (128, 64, 1)]
        batches = BATCHES
    times = {}
    for key in plan:
        for batch in batches:
            target = 0.6 if batch == batches[-1] else None
            times[key, batch] = convolution_row(result, setting, key, batch, target)
        convolution_row(result, setting, key, batches[-1], None, searches=True)
    same = [times[key, 100] / times[key, 132] for key in plan if times.get((key, 100)) and times.get((key, 132))]
    if same:
        result.say(time_of_batch_100_over_132=f"{min(same):.2f} to {max(same):.2f} (1 where both need as many waves)")


def convolution_row(result, setting, key, batch, target, searches=False):
    """The row of one shape; its seconds, or None where it does not run."""
    channels, size, dilation = key
    what, seconds = f"{channels}->{channels} 3x3 at {size}x{size}, dilation {dilation}", None
    variant, repeats = f"batch {batch}" + SEARCHED * searches, 3 if setting.quick else 15
    try:
        time = planned(lambda: convolution(*key, batch, setting.device, repeats), searches)
    except Exception as error:  # cuDNN's, not ours
        result.add(what=what, variant=variant, why=sentence(error))
    else:
        flop, rate = 2 * batch * size**2 * 9 * channels**2, setting.of("ceilings").get("fp16_flop_per_s")
        seconds = time.median
        result.add(
            what=what,
            variant=variant,
            **timed(time),
            tflop_per_s=flop / seconds / 1e12,
            **({} if rate is None else {"bound_us": 1e6 * flop / rate, "share": flop / rate / seconds}),
            target=target,
        )
    release(result, setting, what)
    return seconds


@torch.no_grad()
def convolution(channels, size, dilation, batch, device, repeats):
    """Times of one shape, over several sets of inputs."""

    def random(*shape):
        return torch.randn(shape, device=device).to(torch.float16, memory_format=torch.channels_last)

    weight = random(channels, channels, 3, 3)
    moved = 2 * 2 * batch * channels * size**2
    inputs = [random(batch, channels, size, size) for _ in range(input_sets(moved, device))]
    calls = [lambda x=x: F.conv2d(x, weight, padding=dilation, dilation=dilation) for x in inputs]
    return rotated({"convolution": calls}, repeats, 2, device)["convolution"]
