"""`diagnose`: can Langevin dynamics with this score be trusted, and if not, what to do."""

import time

from ..samplers.inputs import integer, models_of
from ..schedules import check_sigmas, max_distance, overlap, resolve_eps, suggest_sigmas
from . import inputs
from .estimate import Limits, threshold
from .expected import IMAGES, Expected
from .job import Job
from .result import Diagnosis
from .verdict import checks, tests

__all__ = ["diagnose"]


def diagnose(
    model,
    data,
    held_out=None,
    *,
    exact=None,
    n=512,
    chains=24,
    draws=1,
    levels=None,
    eps=None,
    step_lr=None,
    n_steps_each=100,
    start_steps=20,
    init="uniform",
    alarm=0.01,
    seed=0,
    progress=True,
) -> Diagnosis:
    """Whether Langevin dynamics with this score can be trusted, from measurements at each of its noise levels.

    A score that is accurate in L2 where the data are does not make Langevin dynamics accurate (Cao, Chen, Sridharan,
    Wu 2026, arXiv:2603.11319): its error may sit where the chain starts or goes (theorem 1), and around the training
    points (theorem 7), where no loss on training data sees it. Seven checks, m the mean of the data, D their values:

        loss    1/2 |sigma s(x + sigma z) + z|^2 on held-out data is not above D/2, that of the score 0
        memory  the same loss on held-out data is that on training data, at each level and on average over them
        scale   -E (y - m) . s(y) = D at y = x + sigma z on held-out data, Stein's identity: else |y - m| drifts at once
        starts  chains at one level from training data + sigma z move as far as those from held-out data + sigma z
        drift   the latter keep E|x - m|^2: an exact score changes it by at most what the step size explains
        norm    the sampler's own chain has E|x - m|^2 = E|x0 - m|^2 + sigma^2 D at the end of each level, or what this
                sampler reaches on Gaussian data of the same mean and covariance, or anything between
        error   |s - s*|^2 / |s*|^2 along the sampler's chain is not above that on held-out data, for a given exact s*

    Nothing is judged by taste: a check fails where an estimate is beyond its bound by more standard errors than chance
    explains in a share `alarm` of diagnoses of a perfect score, over all comparisons together.

    Args:
        model: score = model(x, level) with sigmas (L,) and shape, as for `sample`.
        data: what it was trained on: a dataset of `langevin_ext.data` or a float tensor (N, C, H, W), N >= 8.
        held_out: data of the same law that it was not trained on; without them memory, the main risk, stays unknown.
        exact: the exact score with at_sigma(x, sigma), if there is one: a field of `langevin_ext.scores`.
        n: images of each set whose losses are taken, at most all.
        chains: number of chains of the sampler, and of those from each set.
        draws: noise draws per image and level.
        levels: indices of the levels to look at; by default all, of more than ten ten that are evenly spread.
        eps, step_lr: step size of the sampler, as for `sample`.
        n_steps_each: steps per level of the sampler's chain, "annealed".
        start_steps: steps of the chains from data, at each level looked at.
        init: start of the sampler, "uniform" or "normal".
        alarm: share of false alarms for a perfect score, in (0, 1).
        seed: of all noise; image i and chain i depend on (seed, i).
        progress: show a bar.

    Returns:
        `Diagnosis`: print it; `verdict`, `trusted`, `failed`, `to_dict()`, `plot(path)`. The sampler takes L
        n_steps_each evaluations for each chain, the rest about 2 start_steps a level.

    Raises:
        TypeError, ValueError: an argument is wrong, shapes differ, or the step size is unstable.
    """
    began = time.perf_counter()
    if hasattr(model, "process"):
        raise TypeError(
            f"diagnose: argument model must be a score with noise levels, got {type(model).__name__}, a velocity model"
        )
    [model] = models_of(model)
    if isinstance(alarm, bool) or not isinstance(alarm, int | float) or not 0 < alarm < 1:
        raise ValueError(f"diagnose: argument alarm must be in (0, 1), got {alarm!r}")
    if exact is not None and not hasattr(exact, "at_sigma"):
        raise TypeError(f"diagnose: argument exact must have at_sigma(x, sigma), got {type(exact).__name__}")
    sigmas, eps = check_sigmas(model.sigmas, "diagnose: model.sigmas"), resolve_eps(eps, step_lr, "diagnose")
    places, remarks = inputs.places(levels, len(sigmas)), inputs.provenance(model, data, held_out)
    n, chains = (inputs.count(name, value) for name, value in (("n", n), ("chains", chains)))
    steps = {"n_steps_each": n_steps_each, "start_steps": start_steps, "draws": draws}
    steps = {name: integer(name, value, 1) for name, value in steps.items()}
    named = {"data": data} | ({} if held_out is None else {"held_out": held_out})
    sets = [inputs.images(name, one, model.shape, max(n, chains), seed) for name, one in named.items()]
    several = inputs.images("data", data, model.shape, IMAGES, seed)
    job = Job(model, exact, sigmas, sets, Expected.of(several), eps, init, seed, n, chains, **steps)
    found, gap = job.run(places, progress)
    limits = Limits(*(threshold(alarm, tests(found), count) for count in job.counts))
    settings = {"eps": eps, "init": init, "seed": seed, "alarm": alarm, **steps}
    settings |= dict(zip(("images", "chains"), job.counts, strict=True))
    remarks += _remarks(sigmas, several)
    verdicts = tuple(checks(found, gap, limits))
    return Diagnosis(tuple(found), gap, verdicts, tuple(remarks), limits, settings, time.perf_counter() - began)


def _remarks(sigmas, images) -> list[str]:
    """What NCSNv2 (arXiv:2006.09011) says of the ladder."""
    size, largest, remarks = images[0].numel(), max_distance(images, progress=False), []
    if sigmas[0] < largest:
        remarks.append(
            f"Ladder: sigma_1 = {sigmas[0]:.4g} is below the largest distance in the data, {largest:.4g} (NCSNv2, "
            "technique 1): chains from noise may not reach all of the data."
        )
    ratio = max((a / b for a, b in zip(sigmas, sigmas[1:], strict=False)), default=1.0)
    if size >= 5 and overlap(size, ratio) < 0.5:
        wanted = len(suggest_sigmas(images, sigmas[-1], first=max(sigmas[0], largest)))
        remarks.append(
            f"Ladder: neighbouring levels overlap by C = {overlap(size, ratio):.2g}, NCSNv2 (technique 2) takes 0.5: "
            f"{wanted} levels down to {sigmas[-1]:.4g}."
        )
    return remarks
