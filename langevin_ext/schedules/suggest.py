"""Noise levels and step sizes from data, by techniques 1, 2 and 4 of NCSNv2 (Song & Ermon 2020, arXiv:2006.09011)."""

import math

import numpy as np
import torch
from tqdm import tqdm

from .steps import check_sigmas, eps_from_step_lr, geometric_sigmas

__all__ = ["overlap", "suggest_ratio", "max_distance", "suggest_sigmas", "level_variance", "suggest_eps"]


def overlap(dim, ratio) -> float:
    """How far the noise of neighbouring levels overlaps (NCSNv2, arXiv:2006.09011, technique 2).

        C = Phi(sqrt(2 D) (ratio - 1) + 3 ratio) - Phi(sqrt(2 D) (ratio - 1) - 3 ratio)

    the probability that |z| of the smaller level lies within three standard deviations of the larger one's, both
    taken as N(sqrt(D) sigma, sigma^2 / 2), which needs D large.

    Args:
        dim: D, values of a sample.
        ratio: sigma_{i-1} / sigma_i, above 1.

    Returns:
        C in [0, 1].
    """
    shift = math.sqrt(2 * dim) * (ratio - 1)
    low, high = ((shift + side * 3 * ratio) / math.sqrt(2) for side in (-1, 1))
    return 0.5 * (math.erfc(low) - math.erfc(high))  # erfc keeps the digits of a small C


def suggest_ratio(dim, coverage=0.5) -> float:
    """The ratio of neighbouring levels that has a given `overlap` (NCSNv2, arXiv:2006.09011, technique 2).

    Args:
        dim: D, values of a sample, at least 5: in fewer dimensions C never falls, and every ratio would do.
        coverage: C in (0, 0.997), what a ratio near 1 has; the paper takes 0.5.

    Returns:
        sigma_{i-1} / sigma_i > 1, by bisection to float64: 1.03979642 for D = 3072.

    Raises:
        ValueError: an argument is out of its range.
    """
    if isinstance(dim, bool) or int(dim) != dim or dim < 5:
        raise ValueError(
            f"suggest_ratio: argument dim must be an integer of at least 5, got {dim!r}; in fewer dimensions choose "
            "the levels with geometric_sigmas"
        )
    if not 0 < coverage < overlap(dim, 1.0):
        raise ValueError(f"suggest_ratio: argument coverage must be in (0, 0.997), got {coverage!r}")
    low, high = 1.0, 2.0
    while overlap(dim, high) > coverage:
        low, high = high, 2 * high
    while (middle := 0.5 * (low + high)) not in (low, high):
        low, high = (middle, high) if overlap(dim, middle) > coverage else (low, middle)
    return middle


def max_distance(data, *, chunk=1024, progress=True) -> float:
    """The largest Euclidean distance between two samples: sigma_1 of NCSNv2 (arXiv:2006.09011, technique 1).

    Exact: pairs are left out only where the triangle inequality |x - y| <= |x - m| + |y - m| rules them out. Of a part
    of the data it is a lower bound of that of all.

    Args:
        data: (N, C, H, W) or (N, D) float, or uint8 counted as v/255; or a dataset. N >= 2.
        chunk: samples of each side compared at a time; changes nothing but memory.
        progress: show a bar where the run is long and the output a terminal.

    Returns:
        max_ij |x_i - x_j|, in the unit of the data.

    Raises:
        TypeError, ValueError: data have another shape or type, fewer than two samples, or values that are not finite.
    """
    points = _Points("max_distance", data)
    parts = [torch.arange(low, min(low + chunk, len(points))) for low in range(0, len(points), chunk)]
    radius = torch.cat([(points[part] - points.mean).norm(dim=1) for part in parts])
    radius, order = radius.sort(descending=True)
    pairs, best = [(i, j) for i in parts for j in parts if i[0] <= j[0]], 0.0
    for i, j in tqdm(pairs, desc="distances", disable=None if progress else True, leave=False):
        if radius[i[0]] + radius[j[0]] > best:
            best = max(best, _farthest(points[order[i]] - points.mean, points[order[j]] - points.mean))
    return best


def _farthest(a, b) -> float:
    """The largest distance between two sets; the pair is found by the expansion |a|^2 + |b|^2 - 2 ab."""
    squares = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
    i, j = divmod(int(squares.argmax()), len(b))
    return (a[i] - b[j]).norm().item()


class _Points:
    """Samples as float64 rows, converted where they are looked at: the data stay in their own type."""

    def __init__(self, name, data):
        data = torch.as_tensor(getattr(data, getattr(data, "content", "images"), data)).detach().cpu()
        if data.dtype != torch.uint8 and not data.is_floating_point():
            raise TypeError(f"{name}: argument data must be float or uint8, got {data.dtype}")
        if data.dim() not in (2, 4) or len(data) < 2 or data.numel() == 0:
            raise ValueError(
                f"{name}: argument data must be at least two samples (N, C, H, W) or (N, D), got {tuple(data.shape)}"
            )
        self.rows, self.unit = data.flatten(1), 255 if data.dtype == torch.uint8 else 1
        self.mean = self.rows.sum(0, dtype=torch.float64) / (len(data) * self.unit)
        if not self.mean.isfinite().all():
            raise ValueError(f"{name}: argument data must be finite, got values that are not")

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index].to(torch.float64) / self.unit


def suggest_sigmas(data, last=0.01, coverage=0.5, *, first=None, progress=True) -> torch.Tensor:
    """The ladder of noise levels that NCSNv2 derives from data (arXiv:2006.09011, techniques 1 and 2).

        sigma_1 = max_ij |x_i - x_j|,   L = 1 + log(sigma_1 / last) / log(ratio), rounded up,   geometric in between

    with `suggest_ratio`'s ratio. Rounding L up makes the ratio a little smaller, and the coverage larger, than asked.

    Args:
        data: as for `max_distance`; of a part of the data sigma_1 is a lower bound.
        last: the smallest level, in the unit of the data; below the largest.
        coverage: C of technique 2; the paper takes about 0.5.
        first: the largest level, instead of the largest distance in the data.
        progress: show a bar while distances are computed.

    Returns:
        float32 tensor (L,), strictly decreasing: 10,000 to 100,000 images of 32 x 32 x 3 give some 220 levels.

    Raises:
        TypeError, ValueError: as for `max_distance`, `suggest_ratio` and `geometric_sigmas`.
    """
    dim = _Points("suggest_sigmas", data).rows.shape[1]
    first = max_distance(data, progress=progress) if first is None else float(first)
    if not 0 < last < first:
        raise ValueError(f"suggest_sigmas: argument last must be in (0, {first:g}), below the largest, got {last}")
    ratio = suggest_ratio(dim, coverage)
    return geometric_sigmas(first, last, 1 + math.ceil(math.log(first / last) / math.log(ratio)))


def level_variance(sigmas, n_steps_each, eps) -> float:
    """Variance of x after a level, in units of sigma^2, for data in one point (NCSNv2, arXiv:2006.09011, technique 4).

        a^(2T) (ratio^2 - q) + q,   a = 1 - step_lr / sigma_L^2,   q = 2 step_lr / (sigma_L^2 (1 - a^2))

    with eps = 2 step_lr. 1 would be the variance of the level; the chain comes from the one before with ratio^2.

    Args:
        sigmas: (L,) geometric, L >= 2.
        n_steps_each: T, at least 1.
        eps: step size at the last level, in (0, 4 sigma_L^2).

    Returns:
        The variance, above 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    ratio, last = _geometric_ratio("level_variance", sigmas)
    if not 0 < eps < 4 * last**2:
        raise ValueError(f"level_variance: argument eps must be in (0, {4 * last**2:g}), got {eps!r}")
    return _level_variance(eps / (2 * last**2), ratio, _steps("level_variance", n_steps_each))


def _level_variance(step, ratio, n_steps_each) -> float:
    """The same with step = step_lr / sigma_L^2: 1 - a^2 = step (2 - step)."""
    q = 2 / (2 - step)
    return (1 - step) ** (2 * n_steps_each) * (ratio**2 - q) + q


def suggest_eps(sigmas, n_steps_each) -> float:
    """The step size whose `level_variance` is nearest to 1 (NCSNv2, arXiv:2006.09011, technique 4).

    It never is 1 (q > 1, ratio > 1), therefore the minimum is taken.

    Args:
        sigmas: (L,) geometric, L >= 2.
        n_steps_each: T, at least 1.

    Returns:
        eps of NCSN's Algorithm 1 at the last level; the paper's and the released code's number is step_lr = eps / 2:
        6.18e-6 for 232 levels from 50 to 0.01 and T = 5.

    Raises:
        ValueError: sigmas are not geometric, or n_steps_each is not a positive integer.
    """
    ratio, last = _geometric_ratio("suggest_eps", sigmas)
    n_steps_each = _steps("suggest_eps", n_steps_each)
    grid = np.geomspace(1e-9, 1, 2000)  # steps above 1 change sides
    best = int(np.argmin([_level_variance(step, ratio, n_steps_each) for step in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    while high - low > 1e-9 * high:  # golden section would save evaluations of a formula: thirds are simpler
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if _level_variance(left, ratio, n_steps_each) < _level_variance(right, ratio, n_steps_each):
            high = right
        else:
            low = left
    return eps_from_step_lr(float(low) * last**2)


def _geometric_ratio(name, sigmas) -> tuple[float, float]:
    """(sigma_{i-1} / sigma_i, sigma_L) of a geometric ladder."""
    levels = check_sigmas(sigmas, f"{name}: argument sigmas")
    ratios = [larger / smaller for larger, smaller in zip(levels, levels[1:], strict=False)]
    if not ratios or max(ratios) - min(ratios) > 1e-3 * (max(ratios) - 1):
        got = f"ratios from {min(ratios):g} to {max(ratios):g}" if ratios else "one level"
        raise ValueError(f"{name}: argument sigmas must be geometric with at least two levels, got {got}")
    return (levels[0] / levels[-1]) ** (1 / (len(levels) - 1)), levels[-1]


def _steps(name, n_steps_each) -> int:
    if isinstance(n_steps_each, bool) or int(n_steps_each) != n_steps_each or n_steps_each < 1:
        raise ValueError(f"{name}: argument n_steps_each must be a positive integer, got {n_steps_each!r}")
    return int(n_steps_each)
