"""Implicit score matching with the exact trace."""

import math

import torch

from .common import evaluate, inner, jacobian_vector

__all__ = ["ism"]

LIMIT = 1024  # backward passes to a batch, beyond which sliced score matching is the objective to take


def ism(model, x, level, *, seed, step, first=0, anneal_power=2.0, noisy=True, max_dimension=LIMIT) -> torch.Tensor:
    """Implicit score matching (Hyvarinen 2005, "Estimation of non-normalized statistical models by score matching").

        loss[i] = sigma^p ( tr Ds(y) + 1/2 |s(y)|^2 ),    y = x + sigma z

    with sigma = model.sigmas[level[i]], p = anneal_power, z ~ N(0, I) and Ds the Jacobian of s(., level), whose D
    diagonal elements take a backward pass each. For every s its mean is sigma^p D / (2 sigma^2) below that of `dsm`
    with the same p; no score is below -1/2 sigma^p J(q_sigma), J the Fisher information.

    Args:
        model, x, level, seed, step, first, anneal_power, noisy: see `ssm`.
        max_dimension: the largest D = C H W to accept.

    Returns:
        (B,) float32 (float64 for float64 x), differentiable in the model's parameters.

    Raises:
        TypeError, ValueError: as `ssm`, or D exceeds max_dimension.

    The noise depends on (seed, step, first + i) alone (stream DSM).
    """
    draw = {"seed": seed, "step": step, "first": first}
    size = math.prod(x.shape[1:])
    if size > max_dimension:
        raise ValueError(
            f"ism: x must have at most max_dimension = {max_dimension} values a sample, for each costs a backward pass,"
            f" got {size}; take ssm_vr, which needs one"
        )
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        y, score, weight = evaluate("ism", model, x, level, **draw, anneal_power=anneal_power, noisy=noisy)
        loss = 0.5 * inner(score, score)
        for unit in torch.eye(size, dtype=score.dtype, device=x.device):
            loss = loss + jacobian_vector(y, score, unit.view(1, *x.shape[1:]), create_graph)
    loss = weight * loss
    return loss if create_graph else loss.detach()
