"""From one resolution to the next: twice the height and width of x (arXiv:2006.11166, Algorithm 2, line 12)."""

import math

import torch
from torch.nn import functional

from .. import noise, ops
from . import inputs
from .table import Upsample

CUBIC = {"bicubic": -0.75, "bicubic-pil": -0.5}  # Keys' parameter a: that of torch, and that of PIL
UPSAMPLERS = (*CUBIC, "bilinear", "nearest")


def check_upsample(upsample) -> None:
    """Raises if `upsample` is neither a name in `UPSAMPLERS` nor callable."""
    if upsample not in UPSAMPLERS and not callable(upsample):
        raise ValueError(
            f"sample: argument upsample must be one of {', '.join(UPSAMPLERS)} or a callable, got {upsample!r}"
        )


def upsampled(x, stage, upsample, *, seed, first) -> torch.Tensor:
    """x at twice the height and width, plus the noise of the stage if it has any.

    Args:
        x: (B, C, H, W).
        stage: an `Upsample`.
        upsample: a name in `UPSAMPLERS` or a callable (B, C, H, W) -> (B, C, 2 H, 2 W).
        seed, first: sample b draws the noise of (seed, first + b), stream RENOISE.

    Raises:
        ValueError: the callable returns another shape.
        FloatingPointError: or values that are not finite.
    """
    if upsample in CUBIC:
        return ops.upsample_bicubic2x(x, a=CUBIC[upsample], sigma=stage.sigma, seed=seed, step=stage.step, first=first)
    if isinstance(upsample, str):
        corners = {} if upsample == "nearest" else {"align_corners": False}
        y = functional.interpolate(x, scale_factor=2, mode=upsample, **corners)
    else:
        y = _called(upsample, x)
    if stage.sigma == 0:
        return y
    sigma = torch.full((len(y),), stage.sigma, dtype=y.dtype, device=y.device)
    return ops.perturb(y, sigma, seed=seed, step=stage.step, first=first, stream=noise.RENOISE)


def _called(upsample, x):
    batch, channels, height, width = x.shape
    y = upsample(x)
    if not torch.is_tensor(y) or tuple(y.shape) != (batch, channels, 2 * height, 2 * width):
        raise ValueError(
            f"sample: argument upsample must return images of shape {(batch, channels, 2 * height, 2 * width)} for "
            f"{tuple(x.shape)}, got {tuple(y.shape) if torch.is_tensor(y) else type(y).__name__}"
        )
    if not torch.isfinite(y).all():
        raise FloatingPointError(f"sample: argument upsample returned values that are not finite for {tuple(x.shape)}")
    return y.to(x.device, x.dtype).contiguous()


def try_out(upsample, stages, shapes, dtype, device) -> None:
    """Calls a callable once, on a grey image, so that one that does not fit is found before the first step."""
    targets = [stage.model for stage in stages if isinstance(stage, Upsample)]
    if callable(upsample) and targets:
        with torch.inference_mode(), inputs.evaluation_mode([upsample]):
            _called(upsample, torch.full((1, *shapes[targets[0] - 1]), 0.5, dtype=dtype, device=device))


def check_ladder_of_sizes(shapes) -> None:
    """Raises if the models are not coarsest first, each of twice the height and width of the one before."""
    for low, high in zip(shapes, shapes[1:], strict=False):
        if high[0] != low[0] or high[1:] != (2 * low[1], 2 * low[2]):
            order = " (the list looks reversed)" if math.prod(high) < math.prod(low) else ""
            raise ValueError(
                "sample: argument model must list models coarsest first, each with the channels and twice the height "
                f"and width of the one before, got shapes {', '.join(map(str, shapes))}{order}"
            )
