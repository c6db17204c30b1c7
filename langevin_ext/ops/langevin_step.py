"""The Langevin update with its noise, in place."""

import math

import torch

from .. import _native, reference
from ..reference import check_counter
from .common import (
    STATE,
    apart,
    check_batch,
    check_like,
    check_no_gradient,
    check_tensor,
    define,
    dense,
    signed,
    unsigned,
    write_back,
)


def _langevin_step(x, score, mask, score_coef, noise_coef, seed, step, first, stream):
    core = _native.core_for(x)
    if core is None:
        reference.langevin_step(
            x, score, score_coef, noise_coef, seed=unsigned(seed), step=step, first=first, stream=stream, mask=mask
        )
        return
    target = dense(x)
    core.langevin_step(
        target,
        apart(dense(score), target),
        None if mask is None else apart(mask.contiguous(), target),
        score_coef,
        noise_coef,
        seed,
        step,
        first,
        stream,
        torch.get_num_threads(),
    )
    write_back(x, target)


_langevin_step_op = define(
    "langevin_step(Tensor(a!) x, Tensor score, Tensor? mask, float score_coef, float noise_coef, "
    "int seed, int step, int first, int stream) -> ()",
    _langevin_step,
    lambda x, score, mask, score_coef, noise_coef, seed, step, first, stream: None,
)


def langevin_step(x, score, score_coef, noise_coef, *, seed, step, first=0, stream=0, mask=None):
    """One Langevin step in place, x <- x + score_coef score + noise_coef z, the noise made inside the kernel.

    Song and Ermon 2019 (arXiv:1907.05600), Algorithm 1, line 6: score_coef = alpha_i / 2, noise_coef = sqrt(alpha_i).
    The unadjusted Langevin algorithm with step g: score_coef = g, noise_coef = sqrt(2 g).

    Args:
        x: (samples, ...) float32, or float64; changed in place.
        score: x's shape; float32, bfloat16 or float16, or float64 with a float64 x.
        score_coef, noise_coef: finite numbers, noise_coef >= 0.
        seed, step, first, stream: where the noise z lies, see `langevin_ext.noise`; z depends on nothing else.
        mask: bool, x's shape or one sample's shape; True marks known pixels, which stay as they are (Algorithm 2).

    Returns:
        x.

    Raises:
        TypeError, ValueError: a dtype, shape, device or coordinate does not fit.
    """
    name = "langevin_step"
    check_tensor(name, "x", x, STATE)
    check_batch(name, "x", x)
    check_images(name, x, score, mask)
    if not (math.isfinite(score_coef) and math.isfinite(noise_coef) and noise_coef >= 0):
        raise ValueError(
            f"{name}: score_coef and noise_coef must be finite and noise_coef >= 0, got {score_coef} and {noise_coef}"
        )
    check_counter(name, seed, step, first, stream, x.shape)
    _langevin_step_op(x, score, mask, float(score_coef), float(noise_coef), signed(seed), step, first, stream)
    return x


def check_images(name, x, score, mask):
    """What must hold of the score and the mask of a step of x."""
    half = (torch.float32, torch.bfloat16, torch.float16)
    check_tensor(name, "score", score, (torch.float64,) if x.dtype == torch.float64 else half)
    check_like(name, "score", score, "x", x)
    if mask is not None:
        check_tensor(name, "mask", mask, (torch.bool,))
        check_like(name, "mask", mask, "x", x, x.shape if mask.dim() == x.dim() else x.shape[1:])
    check_no_gradient(name, "x", x)
    check_no_gradient(name, "score", score)
