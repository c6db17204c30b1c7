"""Distances of optimal transport between two sets of points, each point with the same weight.

W_p(a, b)^p = min_P sum_ij P_ij |a_i - b_j|^p,   P_ij >= 0, rows of P sum to 1/n and columns to 1/m
"""

import math

import torch
from tqdm import tqdm

__all__ = ["sinkhorn", "wasserstein"]


def wasserstein(a, b, p=2) -> float:
    """Wasserstein-p distance of two sets of samples, exactly, by the network simplex of POT (extra `metrics`).

    Args:
        a, b: (n, D) and (m, D) points; images (n, C, H, W) count as their pixels. Time grows as n m (n + m), memory
            as n m: 2,000 against 2,000 take seconds, 10,000 against 10,000 minutes and gigabytes.
        p: power of the Euclidean distance, at least 1.

    Returns:
        The distance (the p-th root of the cost), in the unit of the points.

    Raises:
        ModuleNotFoundError: POT is not installed.
        ValueError: shapes differ, a set is empty, a value is not finite, p is below 1, or no optimum was found.
    """
    cost = _cost("wasserstein", a, b, p).cpu()
    try:
        import ot
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "wasserstein: needs the package POT; install it with: pip install 'langevin_ext[metrics]'", name="ot"
        ) from error
    weights = [torch.full((size,), 1.0 / size, dtype=torch.float64).numpy() for size in cost.shape]
    # POT warns where it stops early; here the log's word is turned into an error.
    plan, log = ot.emd(*weights, cost.numpy(), numItermax=10**9, log=True, center_dual=False)
    if log["warning"] is not None:
        raise ValueError(f"wasserstein: a and b must have a transport that POT can find, got: {log['warning']}")
    return math.pow(max((torch.from_numpy(plan) * cost).sum().item(), 0.0), 1.0 / p)


def sinkhorn(a, b, reg, p=2, *, debias=True, tolerance=1e-4, max_iterations=10_000) -> float:
    """Entropy-regularised Wasserstein-p distance, its bias removed (Feydy et al. 2019, arXiv:1810.08278).

        OT(a, b) = min_P sum_ij P_ij |a_i - b_j|^p + reg KL(P || 1/(n m))
        S = OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2

    It tends to `wasserstein` for reg -> 0 and needs no further package. geomloss's SamplesLoss(p=2, blur) halves the
    cost: with reg = 2 blur^2 its value is half of the square of this one.

    Args:
        a, b: (n, D) and (m, D) points, of any device; images count as their pixels.
        reg: weight of the entropy, in units of |a - b|^p, above 0.
        p: power of the Euclidean distance, at least 1.
        debias: return S^(1/p); False: OT(a, b)^(1/p).
        tolerance: the updates stop when the rows of P sum to 1/n within this share, on average.
        max_iterations: bound on the updates at the final regularisation.

    Returns:
        The distance, computed in float64 in the log domain.

    Raises:
        ValueError: shapes differ, a set is empty, a value is not finite, reg or p is out of range, or the updates did
            not converge.
    """
    if not reg > 0 or not math.isfinite(reg):
        raise ValueError(f"sinkhorn: reg must be above 0, got {reg}")
    limits = tolerance, max_iterations
    value = _entropic(_cost("sinkhorn", a, b, p), reg, *limits)
    if debias:
        value -= sum(0.5 * _entropic(_cost("sinkhorn", side, side, p), reg, *limits, same=True) for side in (a, b))
    return math.pow(max(value, 0.0), 1.0 / p)


def _cost(name, a, b, p):
    """|a_i - b_j|^p as float64 (n, m)."""
    if not p >= 1 or not math.isfinite(p):
        raise ValueError(f"{name}: p must be at least 1, got {p}")
    a, b = (torch.as_tensor(points) for points in (a, b))
    shapes = f"got {tuple(a.shape)} and {tuple(b.shape)}"
    if a.dim() < 2 or b.dim() < 2 or 0 in (a.numel(), b.numel()):
        raise ValueError(f"{name}: a and b must be (n, D) and (m, D) with at least one point, {shapes}")
    a, b = (points.flatten(1).to(a.device, torch.float64) for points in (a, b))
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{name}: a and b must have points of one size, {shapes}")
    if not bool(a.isfinite().all() and b.isfinite().all()):
        raise ValueError(f"{name}: a and b must be finite, got values that are not")
    # |a|^2 + |b|^2 - 2 ab, the fast way, would lose the small distances
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").pow_(p)


def _entropic(cost, reg, tolerance, max_iterations, same=False):
    """OT(a, b) by Sinkhorn's updates of the dual potentials f (n,) and g (m,), f = g where a is b.

    f_i = -eps log mean_j exp((g_j - C_ij) / eps), and the same for g;  OT = mean f + mean g once they agree.
    eps comes down to reg by quarters, each time from the last potentials, which takes far fewer updates than reg alone.
    """
    f, g = cost.new_zeros(cost.shape[0]), cost.new_zeros(cost.shape[1])
    update, error = (_symmetric if same else _alternating), math.inf
    eps = max(reg, cost.max().item())
    while eps > reg:
        f, g, _ = update(cost, f, g, eps)
        eps = max(reg, eps / 4)
    for _ in tqdm(range(max_iterations), desc="sinkhorn", disable=None, leave=False):
        f, g, error = update(cost, f, g, reg)
        if error <= tolerance:
            return (f.mean() + g.mean()).item()
    raise ValueError(
        f"sinkhorn: max_iterations or reg must be larger, got {max_iterations} and {reg:g}, after which the rows of the"
        f" plan are off by {error:.2g} of their sums"
    )


def _alternating(cost, f, g, eps):
    """The next f, g, and by how much the rows of the plan of the last ones are off."""
    after = _soft_minimum(cost, g, eps)
    # the sums of the rows of P, times n, are exp((f - after) / eps)
    return after, _soft_minimum(cost.T, after, eps), torch.expm1((f - after) / eps).abs().mean().item()


def _symmetric(cost, f, _, eps):
    """The same where a is b: steps of half the way converge at once, alternating ones hardly (Feydy et al.)."""
    after = _soft_minimum(cost, f, eps)
    middle = 0.5 * (f + after)
    return middle, middle, torch.expm1((f - after) / eps).abs().mean().item()


def _soft_minimum(cost, g, eps):
    """-eps log mean_j exp((g_j - C_ij) / eps)"""
    return eps * (math.log(len(g)) - torch.logsumexp((g - cost) / eps, 1))
