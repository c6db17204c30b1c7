"""From numbers to words: what each check asks, what failed, and what to do.

A deviation counts where it exceeds its bound by more standard errors than `threshold` leaves to chance; there is no
other tolerance.
"""

import math

from .estimate import Limits, difference
from .result import Check

__all__ = ["checks", "tests"]

REVERSE = "the reverse SDE (scheme ou-reverse), which stays at each level for a short time"
DRIFT = (
    "do not run Langevin dynamics for long at the levels where the norm drifts: take fewer steps on more levels, or "
    f"{REVERSE}."
)
FRESH = (
    "start from noise or from fresh data, never from the training data (arXiv:2603.11319, theorem 7); compare samples "
    "with the training data (metrics.memorisation); train on more data, with flips, or stop earlier."
)


def tests(levels) -> int:
    """Number of comparisons that `checks` makes: loss, scale, drift, norm, and what needs more data or a score."""
    each = [4 + (level.held_out_loss is not None) * 2 + (level.error is not None) for level in levels]
    return sum(each) + (levels[0].gap is not None)


def checks(levels, gap, limits: Limits) -> list[Check]:
    """All checks, in the order of their report.

    Args:
        levels: list of `Level`.
        gap: the memorisation gap on average over them, or None.
        limits: standard errors beyond which a deviation counts.
    """
    of_images = [_loss(levels, limits.images), _memory(levels, gap, limits.images), _scale(levels, limits.images)]
    return of_images + [check(levels, limits.chains) for check in (_starts, _drift, _norm, _error)]


def _failing(levels, scores, threshold) -> tuple[list, int]:
    """The levels whose score is beyond the threshold, and the place of the largest."""
    bad = [level for level, score in zip(levels, scores, strict=True) if score > threshold]
    return bad, max(range(len(levels)), key=lambda i: scores[i])


def _at(levels) -> str:
    return ", ".join(f"{level.sigma:.3g}" for level in levels)


def _indices(levels) -> tuple[int, ...]:
    return tuple(level.index for level in levels)


def _loss(levels, threshold) -> Check:
    """Is the score better than none on data that it has not seen?"""
    found = [level.held_out_loss or level.loss for level in levels]
    scores = [one.beyond(level.zero_loss) for one, level in zip(found, levels, strict=True)]
    bad, _ = _failing(levels, scores, threshold)
    data = "held-out data" if levels[0].held_out_loss else "the training data"
    if not bad:
        return Check("loss", True, (), f"On {data} the loss is nowhere above D/2, that of the score 0.")
    worst = max(range(len(levels)), key=lambda i: found[i].value)
    return Check(
        "loss",
        False,
        _indices(bad),
        f"On {data} the score is worse than none at sigma = {_at(bad)}: at sigma = {levels[worst].sigma:.3g} the loss "
        f"is {found[worst]}, that of the score 0 is {levels[worst].zero_loss:g}.",
        "do not run the dynamics at the levels where the loss is above D/2; train on more data, or end the ladder "
        "above them.",
    )


def _memory(levels, gap, threshold) -> Check:
    """Is the loss on held-out data that on training data?"""
    if gap is None:
        return Check(
            "memory", None, (), "Needs held_out data.", "give held_out data: without, memorisation cannot be seen."
        )
    scores = [level.gap.beyond(0.0) for level in levels]
    bad, worst = _failing(levels, scores, threshold)
    top = levels[worst]
    average = f"on average over the levels by {gap}, {gap.beyond(0.0):.1f} standard errors"
    if not bad and gap.beyond(0.0) <= threshold:
        return Check(
            "memory", True, (), f"The loss on held-out data is that on training data, up to chance: {average}."
        )
    learned = top.zero_loss - top.loss.value
    share = f", {top.gap.value / learned:.0%} of what training gained over the score 0" if 0 < learned else ""
    return Check(
        "memory",
        False,
        _indices(bad),
        "The score knows its training data: the loss on held-out data is above that on training data, "
        f"{average}; {f'at sigma = {_at(bad)}' if bad else 'at no level alone'}, most surely at sigma = "
        f"{top.sigma:.3g} by {top.gap}{share}.",
        FRESH,
    )


def _scale(levels, threshold) -> Check:
    """Does the score pull back as hard as the noise pushes out?"""
    found = [level.held_out_scale or level.scale for level in levels]
    scores = [abs(one.beyond(1.0)) for one in found]
    bad, worst = _failing(levels, scores, threshold)
    data = "held-out" if levels[0].held_out_scale else "training"
    if not bad:
        return Check("scale", True, (), f"On {data} data the score pulls back as hard as the noise pushes out.")
    way = "inwards" if found[worst].value > 1 else "outwards"
    return Check(
        "scale",
        False,
        _indices(bad),
        f"On {data} data the pull towards the mean is not that of a score at sigma = {_at(bad)}: at sigma = "
        f"{levels[worst].sigma:.3g} it is {found[worst]} times what keeps E|x - m|^2, which drifts {way}.",
        DRIFT,
    )


def _starts(levels, threshold) -> Check:
    """Do chains from training data move like chains from held-out data?"""
    if levels[0].held_out_moved is None:
        return Check("starts", None, (), "Needs held_out data.")
    gaps = [difference(level.held_out_moved, level.moved) for level in levels]
    scores = [abs(gap.beyond(0.0)) for gap in gaps]
    bad, worst = _failing(levels, scores, threshold)
    top = levels[worst]
    if not bad:
        return Check(
            "starts",
            True,
            (),
            "Chains from training data move as far as chains from held-out data; the largest difference is "
            f"{scores[worst]:.1f} standard errors.",
        )
    return Check(
        "starts",
        False,
        _indices(bad),
        f"Chains from training data and from fresh data differ at sigma = {_at(bad)}: at sigma = {top.sigma:.3g} they "
        f"end {_root(top.moved)} and {_root(top.held_out_moved)} sigma sqrt(D) from the image they began at. Runs from "
        "the training data mislead: they show the training data again.",
        FRESH,
    )


def _root(estimate) -> str:
    return f"{math.sqrt(estimate.value):.3g}" if math.isfinite(estimate.value) else "infinitely many"


def _drift(levels, threshold) -> Check:
    """Do chains that start at q_sigma keep its norm, up to what the step size does?"""
    found = [level.held_out_drift or level.drift for level in levels]
    scores = [max(-one.beyond(0.0), one.beyond(level.drift_allowed)) for one, level in zip(found, levels, strict=True)]
    bad, worst = _failing(levels, scores, threshold)
    data = "held-out" if levels[0].held_out_drift else "training"
    if not bad:
        return Check("drift", True, (), f"Chains at one level, started at {data} data plus noise, keep their norm.")
    top, one = levels[worst], found[worst]
    way = "diverge" if math.isinf(one.value) else "leave it outwards" if one.value > 0 else "contract"
    amount = "" if math.isinf(one.value) else f" |x - m|^2 changes by {one} sigma^2 D, of which the step size explains "
    amount += "" if math.isinf(one.value) else f"0 to {top.drift_allowed:.3g}."
    return Check(
        "drift",
        False,
        _indices(bad),
        f"Chains that start at the law of their level {way} at sigma = {top.sigma:.3g}; the norm drifts at sigma = "
        f"{_at(bad)}.{amount}",
        DRIFT,
    )


def _norm(levels, threshold) -> Check:
    """Has the sampler's own chain the norm that its levels predict?"""
    scores = []
    for level in levels:
        low, high = sorted((level.norm_level.value, level.norm_sampler))
        high = max(high, level.norm_level.value + level.sigma**2 * level.drift_allowed)
        off = difference(level.norm, level.norm_level)
        scores.append(max(-off.beyond(low - level.norm_level.value), off.beyond(high - level.norm_level.value)))
    bad, worst = _failing(levels, scores, threshold)
    if not bad:
        return Check("norm", True, (), "The sampler's chain has the norm that its levels predict.")
    top = bad[0]
    diverged = math.isinf(top.norm.value)
    what = "the chain diverged" if diverged else f"E|x - m|^2 / D is {top.norm}, predicted {top.norm_level.value:.4g}"
    what += f" (with this sampler on Gaussian data {top.norm_sampler:.4g})"
    return Check(
        "norm",
        False,
        _indices(bad),
        f"The sampler's chain has left the norm of its levels at sigma = {_at(bad)}, first at sigma = {top.sigma:.3g}: "
        f"{what}.",
        "look at the first level that is off: take more levels from there (schedules.suggest_sigmas), smaller steps, "
        f"or {REVERSE}.",
    )


def _error(levels, threshold) -> Check:
    """Is the score's error where the chain goes that where the data are?"""
    if levels[0].error is None:
        return Check("error", None, (), "Needs the exact score.")
    gaps = [difference(level.path_error, level.error) for level in levels]
    scores = [gap.beyond(_rounding(level)) for gap, level in zip(gaps, levels, strict=True)]
    bad, worst = _failing(levels, scores, threshold)
    top = levels[worst]
    errors = f"{_root(top.path_error)} along the chain, {_root(top.error)} on the data"
    if not bad:
        top = max(levels, key=lambda level: level.path_error.value)
        return Check(
            "error",
            True,
            (),
            "The score's relative error is no larger along the chain than on the data; at most "
            f"{_root(top.path_error)}, at sigma = {top.sigma:.3g}.",
        )
    return Check(
        "error",
        False,
        _indices(bad),
        f"The score is wrong where the chain goes, not where the data are: at sigma = {_at(bad)} its relative error is "
        f"larger on the path, at sigma = {top.sigma:.3g} {errors}.",
        f"a small loss says nothing here (arXiv:2603.11319, theorem 1): start from fresh data, or use {REVERSE}.",
    )


def _rounding(level) -> float:
    """Squared relative error that float32 leaves: x is rounded by |x| 2^-24, its score by that over sigma^2."""
    return level.norm_level.value * (2.0**-24 / level.sigma) ** 2 * 16
