"""What the objectives share: the checks of their arguments, the score at noisy samples, and its derivatives."""

import math

import torch

from .. import noise, ops


def check_batch(name, model, x, level) -> None:
    """Raises TypeError or ValueError unless x is float (B, C, H, W) and level int64 (B,) in [0, L)."""
    if not x.is_floating_point() or x.dim() != 4:
        raise TypeError(f"{name}: x must be a float tensor (B, C, H, W), got {x.dtype} {tuple(x.shape)}")
    if level.dtype != torch.int64 or level.shape != x.shape[:1]:
        raise ValueError(f"{name}: level must be int64 of shape ({len(x)},), got {level.dtype} {tuple(level.shape)}")
    if level.device.type == "cpu" and len(level) and not 0 <= int(level.min()) <= int(level.max()) < len(model.sigmas):
        raise ValueError(
            f"{name}: level must be in [0, {len(model.sigmas)}), got {int(level.min())} to {int(level.max())}"
        )


def check_score(name, score, x) -> None:
    """Raises ValueError unless the model's score has the shape of x."""
    if score.shape != x.shape:
        raise ValueError(f"{name}: model must return a score of shape {tuple(x.shape)}, got {tuple(score.shape)}")


def evaluate(name, model, x, level, *, seed, step, first, anneal_power, noisy):
    """The score of perturbed samples, ready for derivatives in x.

    Returns:
        (y, s, weight): y = x + sigma z, or x itself where `noisy` is False, requiring gradients; s = model(y, level);
        weight (B,), sigma^p. s and weight are float32, or float64 for float64 x.

    Raises:
        TypeError, ValueError: x or level has the wrong type or shape, p is not finite, or the score has the wrong shape
            or no graph back to y.
    """
    check_batch(name, model, x, level)
    if not math.isfinite(anneal_power):
        raise ValueError(f"{name}: anneal_power must be finite, got {anneal_power}")
    sigma = model.sigmas.to(device=x.device, dtype=torch.float32)[level]
    draw = {"seed": seed, "step": step, "first": first, "stream": noise.DSM}
    y = (ops.perturb(x, sigma, **draw) if noisy else x).detach().clone().requires_grad_()
    score = model(y, level)
    check_score(name, score, x)
    if not score.requires_grad:
        raise ValueError(f"{name}: model must give a score that can be differentiated in x, got one without a graph")
    dtype = torch.promote_types(y.dtype, torch.float32)
    return y, score.to(dtype), (sigma.double() ** anneal_power).to(dtype)


def jacobian_vector(y, score, v, create_graph) -> torch.Tensor:
    """v' Ds v of each sample (B,), by one backward pass: the gradient of sum(s v) in y, times v.

    It takes the score of a sample for a function of that sample alone, as it is without batch normalisation.
    """
    (gradient,) = torch.autograd.grad(
        (score * v).sum(), y, create_graph=create_graph, retain_graph=True, materialize_grads=True
    )
    return inner(gradient.to(v.dtype), v)


def inner(a, b) -> torch.Tensor:
    """The inner product of each pair of samples (B,)."""
    return (a * b).flatten(1).sum(1)
