"""Sliced score matching, with and without variance reduction."""

import torch

from .. import noise
from .common import evaluate, inner, jacobian_vector

__all__ = ["ssm", "ssm_vr"]

HALF = 2**31  # of the 32-bit words


def ssm(
    model, x, level, *, seed, step, first=0, anneal_power=2.0, noisy=True, projection="gaussian", projections=1
) -> torch.Tensor:
    """Sliced score matching (Song, Garg, Shi & Ermon 2019, arXiv:1905.07088, eq. 7 and 8).

        loss[i] = sigma^p mean_m ( v_m' Ds(y) v_m + 1/2 (v_m' s(y))^2 ),    y = x + sigma z

    with sigma = model.sigmas[level[i]], p = anneal_power, z ~ N(0, I), Ds the Jacobian of s(., level) and v_1, ..., v_M
    random directions with E v v' = I. Its mean over v is the implicit loss sigma^p (tr Ds + 1/2 |s|^2) of `ism`. The
    weight and the noise z make it an objective of NCSN (arXiv:1907.05600, section 4.2); without them, y = x and p = 0,
    it is that of the paper. One backward pass in x for each direction, and the training step differentiates it again.

    Args:
        model: score = model(x, level), the shape of x, twice differentiable; `model.sigmas` (L,).
        x: (B, C, H, W) float, the data.
        level: (B,) int64 in [0, L).
        seed, step: integers, the coordinates of the noise with `first`, the global index of the first sample.
        anneal_power: the power p of sigma in the weight; 2 gives every level about the same loss.
        noisy: evaluate at x + sigma z; False: at the data, y = x.
        projection: the law of v: "gaussian", "rademacher" (independent signs), or "sphere", v = g / |g| of Gaussian g.
            The sphere has E v v' = I / D and makes the mean over v that of `ism` divided by D: the released NCSN code's
            `sliced_score_estimation`.
        projections: M, at least 1.

    Returns:
        (B,) float32 (float64 for float64 x), differentiable in the model's parameters.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape or range, or the score cannot be differentiated.

    z depends on (seed, step, first + i) alone (stream DSM), v on these and on m (stream SSM).
    """
    draw = {"seed": seed, "step": step, "first": first}
    return _sliced("ssm", model, x, level, draw, anneal_power, noisy, projection, projections, False)


def ssm_vr(
    model, x, level, *, seed, step, first=0, anneal_power=2.0, noisy=True, projection="gaussian", projections=1
) -> torch.Tensor:
    """Sliced score matching with variance reduction (Song, Garg, Shi & Ermon 2019, arXiv:1905.07088, eq. 9).

        loss[i] = sigma^p ( mean_m v_m' Ds(y) v_m + 1/2 |s(y)|^2 ),    y = x + sigma z

    `ssm` with E (v's)^2 = |s|^2 in the place of (v's)^2. For Gaussian directions it has the same mean and the smaller
    variance; the objective of Figure 2 of NCSN (arXiv:1907.05600) and, on noisy data, of its section 4.2.

    Args:
        model, x, level, seed, step, first, anneal_power, noisy, projections: see `ssm`.
        projection: "gaussian" or "rademacher"; on the sphere the two terms would have different scales.

    Returns:
        (B,) float32 (float64 for float64 x), differentiable in the model's parameters.

    Raises:
        TypeError, ValueError: as `ssm`.

    The noise is that of `ssm`.
    """
    if projection == "sphere":
        raise ValueError("ssm_vr: projection must be 'gaussian' or 'rademacher', got 'sphere', which is for ssm alone")
    draw = {"seed": seed, "step": step, "first": first}
    return _sliced("ssm_vr", model, x, level, draw, anneal_power, noisy, projection, projections, True)


def _sliced(name, model, x, level, draw, anneal_power, noisy, projection, count, reduced):
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"{name}: projections must be a positive integer, got {count!r}")
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        y, score, weight = evaluate(name, model, x, level, **draw, anneal_power=anneal_power, noisy=noisy)
        vectors = directions(name, projection, (len(x), count, *x.shape[1:]), **draw, device=x.device).to(score.dtype)
        loss = 0.5 * inner(score, score) if reduced else torch.zeros_like(weight)
        for v in vectors.unbind(1):
            term = jacobian_vector(y, score, v, create_graph)
            loss = loss + (term if reduced else term + 0.5 * inner(score, v) ** 2) / count
    loss = weight * loss
    return loss if create_graph else loss.detach()


def directions(name, kind, shape, *, seed, step, first, device=None) -> torch.Tensor:
    """Random directions (B, M, C, H, W), a function of (seed, step, first + i) and the place in a sample."""
    draw = {"seed": seed, "step": step, "first": first, "stream": noise.SSM, "device": device}
    if kind == "gaussian":
        return noise.normal(shape, **draw)
    if kind == "rademacher":
        return torch.where(noise.words(shape, **draw) < HALF, -1.0, 1.0)
    if kind == "sphere":
        g = noise.normal(shape, **draw)
        return g / g.flatten(2).norm(dim=2)[:, :, None, None, None]
    raise ValueError(f"{name}: projection must be 'gaussian', 'rademacher' or 'sphere', got {kind!r}")
