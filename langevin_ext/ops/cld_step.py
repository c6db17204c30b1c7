"""One step of critically-damped Langevin diffusion with its noise, in place."""

import math

import torch

from .. import _native, reference
from ..reference import CLD_STREAMS, check_counter
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

NAME = "cld_step"


def _cld_step(u, score, a, b, noise, seed, step, first):
    core = _native.core_for(u)
    if core is None:
        reference.cld_step(u, score, a, b, noise, seed=unsigned(seed), step=step, first=first)
        return
    target = dense(u)
    core.cld_step(
        target,
        None if score is None else apart(dense(score), target),
        *a,
        *b,
        *noise,
        seed,
        step,
        first,
        *CLD_STREAMS,
        torch.get_num_threads(),
    )
    write_back(u, target)


_cld_step_op = define(
    "cld_step(Tensor(a!) u, Tensor? score, float[] a, float[] b, float[] noise, int seed, int step, int first) -> ()",
    _cld_step,
    lambda u, score, a, b, noise, seed, step, first: None,
)


def cld_step(u, score, a, b, noise, *, seed, step, first=0) -> torch.Tensor:
    """One step of critically-damped Langevin diffusion in place, linear in position, velocity, score and noise.

    Dockhorn, Vahdat and Kreis 2022 (arXiv:2112.07068), section 3.3 and appendix D; u = (x, v), s the score in v:

        (x, v) <- A (x, v) + b s + N (z_x, z_v)

    Euler-Maruyama, the merged half-steps of SSCS and the final denoising are special cases, see csrc/cld_step.h.
    z_x is drawn on `langevin_ext.noise.CLD_X` and z_v on `CLD_V`; one whose coefficients are 0 is not drawn at all.

    Args:
        u: (samples, 2 C, ...) float32, or float64: x in the first C channels, v in the others; changed in place.
        score: (samples, C, ...) in u's dtype; or None, then b must be 0.
        a: (A_xx, A_xv, A_vx, A_vv), finite numbers; float32 is used on A - I, so that small steps lose nothing.
        b: (b_x, b_v), finite numbers.
        noise: (N_xx, N_vx, N_vv), the lower triangle of N, finite numbers, N_xx and N_vv >= 0.
        seed, step, first: where the noise lies, see `langevin_ext.noise`; the element counts inside (C, ...). z
            depends on nothing else.

    Returns:
        u.

    Raises:
        TypeError, ValueError: a dtype, shape, device, number or coordinate does not fit.
    """
    check_tensor(NAME, "u", u, STATE)
    check_batch(NAME, "u", u)
    if u.shape[1] % 2:
        raise ValueError(f"{NAME}: u must have shape (samples, 2 C, ...), x then v, got {tuple(u.shape)}")
    a, b, noise = _numbers("a", a, 4), _numbers("b", b, 2), _numbers("noise", noise, 3)
    if noise[0] < 0 or noise[2] < 0:
        raise ValueError(f"{NAME}: noise must have N_xx >= 0 and N_vv >= 0, got {noise}")
    half = (u.shape[0], u.shape[1] // 2, *u.shape[2:])
    if score is not None:
        check_tensor(NAME, "score", score, (u.dtype,))
        check_like(NAME, "score", score, "u", u, half)
        check_no_gradient(NAME, "score", score)
    elif any(b):
        raise ValueError(f"{NAME}: b must be (0, 0) without a score, got {b}")
    check_no_gradient(NAME, "u", u)
    check_counter(NAME, seed, step, first, 0, half)
    _cld_step_op(u, score, a, b, noise, signed(seed), step, first)
    return u


def _numbers(label, values, count):
    """`count` finite numbers as a list of floats."""
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        raise TypeError(f"{NAME}: {label} must be {count} numbers, got {values!r}") from None
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{NAME}: {label} must be {count} finite numbers, got {numbers}")
    return numbers
