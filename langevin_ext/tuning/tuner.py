"""`tune`: which scheme, how many steps, which step size, from the mean and covariance of the data alone."""

import math
import time

import torch

from ..samplers import inputs
from ..samplers.table import evaluations
from ..samplers.upsampling import UPSAMPLERS
from ..sampling import plan
from ..schedules import DEFAULT_EPS, check_sigmas, geometric_sigmas
from .fit import fit
from .law import evolve
from .result import Candidate, TuneResult
from .search import GAIN, Search, stages_of

STEPS = (5, 10, 20, 30, 50, 100)
EPS = (0.2, 0.4, 0.8, 1.2, 1.6)  # in units of sigma_L^2; 0.2 is the usual 2e-5 for sigma_L = 0.01
REFERENCE_STEPS = 100
FAR = 3.0  # schemes this many times as far from the data as HRS with the defaults are not looked at, unless named


def tune(
    data,
    models=None,
    *,
    budget=None,
    shapes=None,
    sigmas=None,
    schemes=None,
    n_steps_each=STEPS,
    eps=None,
    upsample="bicubic",
    renoise=(False, True),
    denoise=True,
    init="uniform",
    costs=None,
    stationary=None,
    progress=True,
) -> TuneResult:
    """Predicts distance against cost of every scheme (arXiv:2006.11166, Algorithm 2) and chooses one.

    On Gaussian data the law of any scheme is known exactly (see `evolve`), and so is its Frechet distance to the data.
    Real data is taken for Gaussian with its mean and covariance, and networks for exact scores of it: what comes out
    is the part of the distance that levels, steps, step sizes and upsampling cause. Nothing is random.

    Args:
        data: a dataset of `langevin_ext.data`, a float tensor (N, C, H, W) or an exact Gaussian field; see `fit`.
        models: score models, coarsest first, the last of the size of data: their shapes, noise levels and seconds per
            evaluation are taken. None: no networks are needed.
        budget: cost that the chosen scheme may have, 1 being HRS at 100 steps a level. None: choose the cheapest scheme
            that is as near to the data as HRS is with the defaults of `sample`.
        shapes: (C, H, W) of each resolution, coarsest first, by default that of data and its half; not with models.
        sigmas: noise levels for all models, or a list of them for each; by default the models', or 1 to 0.01 in ten.
        schemes: names to try. By default all of the paper's: HRS-j, LRS-i-up, LRS-i-up-HRS-j. For three resolutions and
            more HRS-j and the chains to the last level that go on at the level they were at or at the next.
        n_steps_each: steps per level to try; for two resolutions in all combinations, for more the same for all.
        eps: step sizes at the last level to try, the same for all models; by default 0.2 to 1.6 sigma_L^2 of each.
            Those of 4 sigma_L^2 and more, with which Langevin dynamics diverges, are left out.
        upsample, renoise: a value of these options of `sample`, or several to try.
        denoise, init: as for `sample`.
        costs: of one evaluation with each model, in any unit; by default seconds measured with `models`, else their
            numbers of pixels. Upsampling counts nothing.
        stationary: keep spectra instead of covariance matrices, by default above 1,024 values an image; see `fit`.
        progress: show bars.

    Returns:
        `TuneResult`; sample(models, n=64, **result.plan_arguments) runs its choice.

    Raises:
        TypeError, ValueError: an argument is none of the above, or no scheme within the budget comes near the data.
    """
    began = time.monotonic()
    if budget is not None and (isinstance(budget, bool | str) or not 0 < budget < math.inf):
        raise ValueError(f"tune: argument budget must be a positive number, got {budget!r}")
    fitted, ladders = _resolutions(data, models, shapes, sigmas, stationary)
    settings = _settings(ladders, _several(n_steps_each), None if eps is None else _several(eps))
    upsamples, renoises = _checked(_several(upsample), _several(renoise))
    names = list(schemes) if schemes is not None else default_schemes([len(ladder) for ladder in ladders])
    if not names:
        raise ValueError("tune: argument schemes must hold at least one name, got none")
    weights = _costs(costs, models, [one.shape for one in fitted])
    unit = weights[-1] * (REFERENCE_STEPS * len(ladders[-1]) + bool(denoise))
    common = {"denoise": bool(denoise), "init": init, "unit_costs": [weight / unit for weight in weights]}
    search = Search(
        fitted, ladders, names, settings, shared=len(fitted) > 2, upsample=upsamples, renoise=renoises, **common
    )

    def candidate(name, setting, upsample, renoise):
        return _candidate(fitted, ladders, name, setting, upsample, renoise, **common)

    default = [(REFERENCE_STEPS, _default_eps(ladder)) for ladder in ladders]
    reference = candidate("HRS", default, upsamples[0], False)
    paper = tuple(candidate(name, default, upsamples[0], False) for name in _paper_names(ladders))
    again = [one.scheme for one in paper if "up-HRS" in one.scheme and True in renoises]
    far = FAR * reference.distance if schemes is None else math.inf
    found, computed, considered = search.front(far, budget, progress)
    front, best = _chosen([reference, *(candidate(*one) for one in found)], budget)
    return TuneResult(
        front=front,
        best=best,
        reference=reference,
        paper=paper,
        renoised=tuple(candidate(name, default, upsamples[0], True) for name in again),
        evaluated=tuple(computed),
        considered=considered,
        budget=budget,
        sigmas=None if sigmas is None else ladders,
        shapes=tuple(one.shape for one in fitted),
        costs=tuple(weights),
        measured=costs is None and models is not None,
        stationary=fitted[-1].basis is None,
        seconds=time.monotonic() - began,
    )


def _candidate(data, ladders, name, settings, upsample, renoise, *, denoise, init, unit_costs) -> Candidate:
    """A scheme with the law of the very stages that `sample` runs."""
    stages = stages_of(name, ladders, settings, denoise=denoise, renoise=renoise)
    counts = evaluations(stages, [one.shape for one in data])
    cost = sum(count * unit for count, unit in zip(counts.values(), unit_costs, strict=True))
    steps, eps = zip(*settings, strict=True)
    distance = evolve(stages, data, init=init, upsample=upsample).frechet()
    return Candidate(name, steps, eps, upsample, renoise, denoise, init, counts, cost, distance)


def _chosen(candidates, budget) -> tuple[tuple[Candidate, ...], Candidate]:
    """The front, and the nearest within the budget or the cheapest as near as the first of the candidates."""
    front: list[Candidate] = []
    for one in sorted(candidates, key=lambda one: (one.cost, one.distance)):
        if not front or one.distance < GAIN * front[-1].distance:
            front.append(one)
    if budget is None:
        near = [one for one in candidates if one.distance <= candidates[0].distance]
        best = min(near, key=lambda one: (one.cost, one.distance))
    elif any(one.cost <= budget for one in candidates):
        best = min((one for one in candidates if one.cost <= budget), key=lambda one: (one.distance, one.cost))
    else:
        raise ValueError(
            f"tune: argument budget must be at least {front[0].cost:.4g}, the cost of {front[0].scheme} with "
            f"{front[0].settings} (cheaper schemes are over {FAR:g} times as far from the data as HRS by default: "
            f"name them in schemes, or try other n_steps_each and eps), got {budget:g}"
        )
    others = [one for one in front if one.cost < best.cost or one.distance < best.distance]
    return tuple(sorted([*others, best], key=lambda one: one.cost)), best


def default_schemes(levels) -> list[str]:
    """The names that `tune` tries by default, for models with these numbers of levels, coarsest first."""
    high = [f"HRS-{j}" for j in range(1, levels[-1] + 1)]
    if len(levels) == 1:
        return high
    if len(levels) == 2:
        low = [f"LRS-{i}-up" for i in range(1, levels[0] + 1)]
        return high + low + [f"{one}-{other}" for one in low for other in high]
    if len(set(levels)) > 1:
        raise ValueError(
            f"tune: argument schemes must be given where models have different numbers of levels, got {levels}"
        )
    starts = range(len(levels) - 1)
    return high + ["-up-".join(chain) for start in starts for chain in _chains(len(levels) - 1 - start, 1, levels[0])]


def _chains(resolution, first, last):
    """Lists of parts that start with level `first` at a resolution and end with level `last` at the finest."""
    if resolution == 0:
        yield [f"R0[{first}:{last}]"]
        return
    for end in range(first, last + 1):
        for start in range(end, min(end + 1, last) + 1):
            for rest in _chains(resolution - 1, start, last):
                yield [f"R{resolution}[{first}:{end}]", *rest]


def _paper_names(ladders) -> list[str]:
    """The rows of the paper's tables that models with these ladders have."""
    if len(ladders) != 2:
        return []
    low, high = map(len, ladders)
    chains = [f"LRS-{i}-up-HRS-{high - i + 1}" for i in range(2, min(low, high))]
    return ["LRS-up", *(f"LRS-up-HRS-{j}" for j in (3, 9) if j <= high), *chains]


def _resolutions(data, models, shapes, sigmas, stationary):
    """The data and the noise levels at each resolution."""
    if models is not None:
        if shapes is not None:
            raise ValueError("tune: argument shapes must not be given with models, which have their own")
        models = inputs.models_of(models)
        fitted = fit(data, [tuple(model.shape) for model in models], stationary=stationary)
        return fitted, inputs.ladders_of(models, sigmas)[1]
    fitted = fit(data, shapes, stationary=stationary)
    several = isinstance(sigmas, list | tuple) and not all(isinstance(one, int | float) for one in sigmas)
    ladders = list(sigmas) if several else [sigmas] * len(fitted)
    if len(ladders) != len(fitted):
        raise ValueError(
            f"tune: argument sigmas must be one ladder or {len(fitted)}, one for each resolution, got {len(ladders)}"
        )
    default = geometric_sigmas(1, 0.01, 10)
    exact = [torch.as_tensor(default if ladder is None else ladder, dtype=torch.float64) for ladder in ladders]
    return fitted, [check_sigmas(ladder, "tune: argument sigmas") for ladder in exact]


def _several(value) -> list:
    return list(value) if isinstance(value, list | tuple | range) else [value]


def _settings(ladders, steps, eps) -> list[dict]:
    """For each model {(steps, name of eps): (steps, eps)}, without the unstable."""
    if not steps:
        raise ValueError("tune: argument n_steps_each must be positive integers, got none")
    for one in steps:
        if isinstance(one, bool) or not isinstance(one, int) or one < 1:
            raise ValueError(f"tune: argument n_steps_each must be positive integers, got {one!r}")
    for one in eps or ():
        if isinstance(one, bool) or not isinstance(one, int | float) or not 0 < one < math.inf:
            raise ValueError(f"tune: argument eps must be positive numbers, got {one!r}")
    settings: list[dict] = []
    for ladder in ladders:
        sizes = {one: one if eps else float(f"{one * ladder[-1] ** 2:.6g}") for one in eps or EPS}
        stable = {name: size for name, size in sizes.items() if size < 4 * ladder[-1] ** 2}
        settings.append({(one, name): (one, size) for one in steps for name, size in stable.items()})
    limit = min(4 * ladder[-1] ** 2 for ladder in ladders)
    if not all(settings):
        raise ValueError(f"tune: argument eps must have a value below 4 sigma_L^2 = {limit:g}, got {eps}")
    return settings


def _default_eps(ladder) -> float:
    """That of `sample`, or, where it diverges, the same share of sigma_L^2 as with the usual levels."""
    return DEFAULT_EPS if DEFAULT_EPS < 4 * ladder[-1] ** 2 else EPS[0] * ladder[-1] ** 2


def _checked(upsamples, renoises):
    for one in upsamples:
        if one not in UPSAMPLERS:
            raise ValueError(f"tune: argument upsample must be among {', '.join(UPSAMPLERS)}, got {one!r}")
    if not all(isinstance(one, bool) for one in renoises):
        raise ValueError(f"tune: argument renoise must be True, False or both, got {renoises}")
    return upsamples, renoises


def _costs(costs, models, shapes) -> list[float]:
    """Of one evaluation with each model: given, measured in seconds, or numbers of pixels."""
    if costs is not None:
        if len(costs) != len(shapes) or not all(0 < cost < math.inf for cost in costs):
            raise ValueError(
                f"tune: argument costs must be {len(shapes)} positive numbers, one for each resolution, got {costs}"
            )
        return [float(cost) for cost in costs]
    if models is None:
        return [float(height * width) for _, height, width in shapes]
    models = inputs.models_of(models)
    chain = "-up-".join(f"R{resolution}[1:1]" for resolution in reversed(range(len(models))))
    eps = [_default_eps(ladder) for ladder in inputs.ladders_of(models, None)[1]]
    measured = plan(models, chain, 2**16, measure=True, eps=eps, n_steps_each=1, denoise=False)
    return [(measured.unit_seconds or {})[size] for size in measured.sizes]
