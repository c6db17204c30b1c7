"""The denoising score matching loss and its gradient in one pass."""

import math

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
    per_sample,
    signed,
    unsigned,
)

CHUNK = 1024  # elements to a partial sum, kDsmChunk of csrc/dsm_loss.h


def _power(sigma, exponent):
    """sigma^exponent through float64, so that the rounding to sigma's dtype is the only one that can be seen."""
    return (sigma.double() ** exponent).to(sigma.dtype)


def _dsm_loss(score, sigma, anneal_power, with_grad, seed, step, first, stream):
    """(loss, gradient of loss in score; empty unless asked for)."""
    core = _native.core_for(score)
    score = dense(score)
    sigma = sigma.to(compute_dtype(score)).contiguous()
    if core is None:
        loss, grad = reference.dsm_loss_and_grad(
            score, sigma, seed=unsigned(seed), step=step, first=first, stream=stream, anneal_power=anneal_power
        )
        return loss, grad if with_grad else grad.new_empty(0)
    loss = sigma.new_empty(len(score))
    grad = torch.empty_like(score) if with_grad else score.new_empty(0)
    if score.numel() == 0:
        return loss.zero_(), grad
    partials = sigma.new_empty(len(score) * -(-score.numel() // (len(score) * CHUNK)))
    weight = None if anneal_power == 2.0 else _power(sigma, anneal_power - 2.0)
    core.dsm_loss(
        score,
        sigma,
        weight,
        loss,
        grad if with_grad else None,
        partials,
        seed,
        step,
        first,
        stream,
        torch.get_num_threads(),
    )
    return loss, grad


def _fake(score, sigma, anneal_power, with_grad, seed, step, first, stream):
    score = dense(score)
    loss = score.new_empty(len(score), dtype=compute_dtype(score))
    return loss, torch.empty_like(score) if with_grad else score.new_empty(0)


def _setup_context(ctx, inputs, output):
    _, sigma, ctx.anneal_power, *_ = inputs
    ctx.save_for_backward(output[1], sigma)
    ctx.set_materialize_grads(False)


def _backward(ctx, loss_weight, grad_weight):
    """The second output, the gradient, is linear in the score with slope sigma^p: that is the double backward."""
    grad, sigma = ctx.saved_tensors
    result = None
    if loss_weight is not None:
        result = (per_sample(loss_weight, grad) * grad).to(grad.dtype)
    if grad_weight is not None:
        slope = _power(sigma.to(compute_dtype(grad)), ctx.anneal_power)
        curvature = (per_sample(slope, grad) * grad_weight).to(grad.dtype)
        result = curvature if result is None else result + curvature
    return result, None, None, None, None, None, None, None


_dsm_loss_op = define(
    "dsm_loss(Tensor score, Tensor sigma, float anneal_power, bool with_grad, int seed, int step, int first, "
    "int stream) -> (Tensor, Tensor)",
    _dsm_loss,
    _fake,
    backward=_backward,
    setup_context=_setup_context,
)


def dsm_loss(score, sigma, *, seed, step, first=0, stream=3, anneal_power=2.0) -> torch.Tensor:
    """The denoising score matching loss of each sample, 1/2 sigma^(p-2) sum (sigma score + z)^2, p = anneal_power.

    Vincent 2011; Song and Ermon 2019 (arXiv:1907.05600), equations 5 and 6 with lambda(sigma) = sigma^p: it is
    1/2 sigma^p |score - target|^2 with target = -(x_noisy - x) / sigma^2 = -z / sigma. z is made again inside the
    kernel, equal to that of `perturb` with the same coordinates. Twice differentiable in score; within torch.func and
    with forward-mode tangents in plain torch.

    Args:
        score: (samples, ...) float32, bfloat16, float16 or float64: the model at perturb(x, sigma).
        sigma: (samples,) float32, or float64 with a float64 score; positive unless anneal_power >= 2.
        seed, step, first, stream: where the noise z lies, see `langevin_ext.noise`; z depends on nothing else.
        anneal_power: finite number; 2 weights the levels evenly, 0 leaves the loss unweighted.

    Returns:
        (samples,) float32, or float64 for a float64 score. The bits do not depend on the memory format, the batch a
        sample is in or the number of threads.

    Raises:
        TypeError, ValueError: a dtype, shape, device or coordinate does not fit.
    """
    name = "dsm_loss"
    check_tensor(name, "score", score, ACTIVATION)
    check_batch(name, "score", score)
    check_sigma(name, sigma, "score", score)
    if not math.isfinite(anneal_power):
        raise ValueError(f"{name}: anneal_power must be finite, got {anneal_power}")
    check_counter(name, seed, step, first, stream, score.shape)
    if transformed():
        at = {"seed": seed, "step": step, "first": first, "stream": stream}
        return reference.dsm_loss(score, sigma, anneal_power=anneal_power, **at)
    with_grad = score.requires_grad and torch.is_grad_enabled()
    return _dsm_loss_op(score, sigma, float(anneal_power), with_grad, signed(seed), step, first, stream)[0]
