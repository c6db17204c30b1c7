"""Noisy images for denoising score matching."""

import torch

from .. import _native, reference
from .._transforms import transformed
from ..reference import check_counter
from .common import (
    ACTIVATION,
    check_batch,
    check_sigma,
    check_tensor,
    compute_dtype,
    define,
    dense,
    signed,
    unsigned,
)


def _perturb(x, sigma, seed, step, first, stream):
    core = _native.core_for(x)
    if core is None:
        return reference.perturb(dense(x), sigma, seed=unsigned(seed), step=step, first=first, stream=stream)
    x = dense(x)
    out = torch.empty_like(x)
    core.perturb(x, sigma.to(compute_dtype(x)).contiguous(), out, seed, step, first, stream, torch.get_num_threads())
    return out


_perturb_op = define(
    "perturb(Tensor x, Tensor sigma, int seed, int step, int first, int stream) -> Tensor",
    _perturb,
    lambda x, sigma, seed, step, first, stream: torch.empty_like(dense(x)),
    backward=lambda ctx, grad: (grad, None, None, None, None, None),
)


def perturb(x, sigma, *, seed, step, first=0, stream=3) -> torch.Tensor:
    """Images with Gaussian noise of the level given for each, x + sigma z, the noise made inside the kernel.

    Vincent 2011; Song and Ermon 2019 (arXiv:1907.05600), equation 5. `dsm_loss` with the same coordinates makes the
    same z again. Differentiable in x; within torch.func and with forward-mode tangents in plain torch.

    Args:
        x: (samples, ...) float32, bfloat16, float16 or float64.
        sigma: (samples,) float32, or float64 with a float64 x.
        seed, step, first, stream: where the noise z lies, see `langevin_ext.noise`; z depends on nothing else.

    Returns:
        Tensor like x, in x's memory format where that is contiguous or channels-last. The arithmetic is float32
        (float64 for a float64 x), rounded once to x's dtype.

    Raises:
        TypeError, ValueError: a dtype, shape, device or coordinate does not fit.
    """
    name = "perturb"
    check_tensor(name, "x", x, ACTIVATION)
    check_batch(name, "x", x)
    check_sigma(name, sigma, "x", x)
    check_counter(name, seed, step, first, stream, x.shape)
    if transformed():
        return reference.perturb(x, sigma, seed=seed, step=step, first=first, stream=stream)
    return _perturb_op(x, sigma, signed(seed), step, first, stream)
