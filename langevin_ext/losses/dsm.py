"""Denoising score matching."""

import torch

from .. import noise, ops
from .common import check_batch, check_score

__all__ = ["dsm"]


def dsm(model, x, level, *, seed, step, first=0, anneal_power=2.0) -> torch.Tensor:
    """Denoising score matching, the objective of NCSN (Song & Ermon 2019, arXiv:1907.05600, eq. 5 and 6).

        loss[i] = 1/2 sigma^p |s(x + sigma z, level) + z / sigma|^2
                = 1/2 sigma^(p-2) |sigma s(x + sigma z, level) + z|^2

    with sigma = model.sigmas[level[i]], p = anneal_power and z ~ N(0, I), summed over the D pixels of a sample; the
    objective is the mean over the batch. The second form is the one computed: it has no 1/sigma^2 to blow up.
    For every s the unweighted loss (p = 0) exceeds the implicit one, E[tr Ds + 1/2 |s|^2] under q_sigma, by
    D / (2 sigma^2). With p = 2 the zero network has D/2, and no network is below 1/2 (D - sigma^2 J(q_sigma)), J the
    Fisher information; for data N(m, C) that is 1/2 tr(C (C + sigma^2 I)^-1).

    Args:
        model: score = model(x, level), the shape of x; `model.sigmas` (L,).
        x: (B, C, H, W) float, the data.
        level: (B,) int64 in [0, L).
        seed, step: integers, the coordinates of the noise with `first`, the global index of the first sample.
        anneal_power: the power p of sigma in the weight; 2 gives every level about the same loss.

    Returns:
        (B,) float32 (float64 for float64 x), differentiable in the model's parameters.

    Raises:
        TypeError, ValueError: x or level has the wrong type or shape.

    The noise depends on (seed, step, first + i) alone (stream DSM).
    """
    check_batch("dsm", model, x, level)
    sigma = model.sigmas.to(device=x.device, dtype=torch.float32)[level]
    draw = {"seed": seed, "step": step, "first": first, "stream": noise.DSM}
    score = model(ops.perturb(x, sigma, **draw), level)
    check_score("dsm", score, x)
    return ops.dsm_loss(score, sigma, anneal_power=anneal_power, **draw)
