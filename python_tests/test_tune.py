"""`tune`: the search against brute force and known schemes, its choice against `plan`, the command, what is refused."""

import itertools

import numpy as np
import pytest
import torch
from sampling_helpers import Counting, geometric

from langevin_ext import plan, sample
from langevin_ext.data import ImageDataset
from langevin_ext.scores import GaussianField
from langevin_ext.tuning import evolve, fit, tune
from langevin_ext.tuning.search import GAIN, Search, stages_of
from langevin_ext.tuning.tuner import FAR, default_schemes

LADDER = geometric(1, 0.01, 10)
SHORT = geometric(1, 0.05, 4).tolist()
QUIET = {"progress": False}
FIELD = GaussianField((1, 8, 8), sigmas=LADDER)
MODELS = [FIELD.pooled(), FIELD]


def searched(data=FIELD, **arguments):
    return tune(data, **({"sigmas": LADDER} | QUIET | arguments))


@pytest.fixture(scope="module")
def found():
    return searched(budget=0.25, n_steps_each=(10, 30, 100), eps=(2e-5, 1.2e-4))


def one(result, scheme):
    return next(candidate for candidate in (*result.paper, result.reference) if candidate.scheme == scheme)


# --- known values ---
def test_known_distances_of_denoised_schemes(found):
    """Digits as they were given; each was computed independently, with the cost of the denoising step left out."""
    assert found.reference.cost == pytest.approx(1.0)
    assert found.reference.distance == pytest.approx(0.0036, abs=5e-5)
    steep = searched(schemes=["HRS-10"], n_steps_each=100, eps=1.2e-4).front[-1]
    assert (steep.scheme, steep.cost) == ("HRS-10", pytest.approx(1.0))
    assert steep.distance == pytest.approx(0.0002, abs=5e-5)
    known = searched(schemes=["LRS-9-up-HRS-6"], n_steps_each=30, eps=1.2e-4, renoise=False).front[0]
    assert known.distance == pytest.approx(0.00104, abs=5e-6)
    assert known.cost == pytest.approx(0.2475, abs=1e-3)


def test_a_quarter_of_the_cost_comes_nearer_than_the_default(found):
    assert found.best.cost <= 0.25
    assert found.best.distance <= 0.00104  # the known scheme is among the candidates


def test_costs_are_those_of_pixels_and_of_the_denoising_step(found):
    paper = one(found, "LRS-2-up-HRS-9")
    assert paper.evaluations == {"4x4": 200, "8x8": 901}
    assert paper.cost == pytest.approx((200 / 4 + 901) / 1001)
    assert one(found, "LRS-up").cost == pytest.approx(1001 / 4 / 1001)


# --- the search itself ---
def every_candidate(data, schemes, steps, eps, ladder, renoises):
    """Cost and distance of all combinations, one by one."""
    fitted = fit(data)
    models = [GaussianField(part.shape, sigmas=torch.tensor(ladder, dtype=torch.float64)) for part in fitted]
    for scheme, low, high, size, renoise in itertools.product(schemes, steps, steps, eps, renoises):
        option = {"renoise": renoise} if "up" in scheme else {}
        laid = plan(models, scheme, 1, n_steps_each=[low, high], eps=size, **option)
        counts = list(laid.evaluations.values())
        yield (counts[0] / 4 + counts[1]) / (100 * len(ladder) + 1), evolve(laid.stages, fitted).frechet()


@pytest.mark.parametrize("budget", [0.1, None])
def test_the_front_is_that_of_all_candidates_one_by_one(budget):
    """Bounds, sharing and order of the search change nothing: each on the front, and none missing by more than GAIN."""
    data, steps, eps = GaussianField((1, 4, 4)), (3, 20), (5e-4, 3e-3)
    result = tune(data, sigmas=SHORT, n_steps_each=steps, eps=eps, budget=budget, **QUIET)
    schemes = default_schemes([4, 4])
    every = list(every_candidate(data, schemes, steps, eps, SHORT, (False, True)))
    assert len(schemes) == 4 + 4 + 16
    assert result.considered == 4 * 2 * 2 + 4 * 2 * 2 + 16 * 4 * 2 * 2  # renoise only where levels follow
    assert len(result.evaluated) < result.considered / 2
    for entry in result.front[:-1]:
        assert min(abs(entry.cost - cost) + abs(entry.distance - distance) for cost, distance in every) < 1e-7
    if budget is not None:
        nearest = min(distance for cost, distance in every if cost <= budget)
        assert result.best.distance == pytest.approx(nearest, rel=1e-9) and result.best.cost <= budget
    for cost, distance in every:
        cheaper = [entry.distance for entry in result.front if entry.cost <= cost + 1e-12]
        assert distance >= min([*cheaper, FAR * result.reference.distance]) * GAIN * (1 - 1e-9)


@pytest.mark.parametrize("shapes", [[(1, 2, 2), (1, 4, 4)], [(1, 1, 2), (1, 2, 4), (1, 4, 8)]])
def test_every_candidate_of_the_search_is_what_its_plan_runs(shapes):
    """Costs and distances are those of the stages of `sample`, and bounds those of the same law without covariances."""
    ladder = SHORT[:3]
    data, levels = fit(GaussianField(shapes[-1]), shapes), [3] * len(shapes)
    unit_costs = [4.0**place for place in range(len(shapes))]
    settings = [{(steps, size): (steps, size) for steps in (2, 5) for size in (3e-2, 5e-2)}] * len(shapes)
    options = {"denoise": True, "init": "uniform", "unit_costs": unit_costs, "shared": len(shapes) > 2}
    search = Search(data, [ladder] * len(shapes), default_schemes(levels), settings, upsample=("bicubic", "nearest"),
                    renoise=(False, True), **options)  # fmt: skip
    seen = set()
    for cost, bound, index, row in zip(*search.bounds(False), strict=True):
        name, chosen, upsample, renoise = search._described(index, int(row))
        seen.add((name, tuple(chosen), upsample, renoise))
        stages = stages_of(name, [ladder] * len(shapes), chosen, denoise=True, renoise=renoise)
        assert cost == pytest.approx(sum(len(stage.rows) * unit_costs[stage.model] for stage in stages))
        law = evolve(stages, data, upsample=upsample)
        assert search.distance(search.prefixes[index][0], int(row)) == pytest.approx(law.frechet(), abs=1e-9)
        spectrum, mean = law.data.spectrum[law.blocks], law.data.mean[law.blocks]
        apart = (law.variances.sqrt() - spectrum.sqrt()).square().sum() + (law.mean - mean).square().sum()
        assert bound == pytest.approx(apart.item(), abs=1e-12) and bound <= law.frechet() + 1e-9
    assert len(seen) == len(search.bounds(False)[0])


def test_the_front_falls_and_a_larger_budget_is_never_farther(found):
    for cheaper, dearer in itertools.pairwise(found.front):
        assert cheaper.cost < dearer.cost and dearer.distance < cheaper.distance
        assert found.best in (cheaper, dearer) or dearer.distance < GAIN * cheaper.distance
    near = [searched(schemes=["LRS-7-up-HRS-5", "HRS-8"], budget=b, n_steps_each=(10, 30), eps=1.2e-4, renoise=False)
            for b in (0.12, 0.2, 0.5)]  # fmt: skip
    assert all(result.best.cost <= result.budget for result in near)
    distances = [result.best.distance for result in near]
    assert distances == sorted(distances, reverse=True) and distances[0] > distances[-1]


def test_without_a_budget_the_cheapest_as_near_as_the_default():
    result = searched(schemes=["LRS-9-up-HRS-6"], n_steps_each=(10, 30), eps=1.2e-4)
    assert result.best.distance <= result.reference.distance
    assert all(entry.distance > result.reference.distance for entry in result.front if entry.cost < result.best.cost)


def test_the_renoise_question_on_the_field(found):
    """At equal cost the noise helps where few levels follow and hurts where many do: known to the printed digits."""
    renoised = {candidate.scheme: candidate for candidate in found.renoised}
    assert "LRS-up" not in renoised
    for scheme, sign in (("LRS-up-HRS-3", -1), ("LRS-8-up-HRS-3", -1), ("LRS-up-HRS-9", 1), ("LRS-2-up-HRS-9", 1)):
        plain, noisy = one(found, scheme), renoised[scheme]
        assert noisy.renoise and not plain.renoise and noisy.cost == plain.cost
        assert np.sign(noisy.distance - plain.distance) == sign, scheme


# --- other resolutions, costs, forms ---
def test_one_resolution_and_three():
    alone = tune(GaussianField((1, 4, 4)), shapes=[(1, 4, 4)], sigmas=SHORT, n_steps_each=(5, 20), **QUIET)
    assert {entry.scheme.rstrip("0123456789") for entry in alone.front} <= {"HRS-", "HRS"}
    assert alone.paper == () and alone.renoised == ()
    shapes = [(1, 2, 4), (1, 4, 8), (1, 8, 16)]
    three = tune(GaussianField((1, 8, 16)), shapes=shapes, sigmas=SHORT, n_steps_each=20, eps=3e-3, **QUIET)
    assert any(entry.scheme.startswith("R2[1:") for entry in three.front)
    best = three.best
    models = [GaussianField(shape, sigmas=torch.tensor(SHORT)) for shape in shapes]
    assert plan(models, n=2, **three.plan_arguments).evaluations == best.evaluations
    assert default_schemes([2, 2, 2]) == [
        "HRS-1", "HRS-2",
        "R2[1:1]-up-R1[1:1]-up-R0[1:2]", "R2[1:1]-up-R1[1:1]-up-R0[2:2]", "R2[1:1]-up-R1[1:2]-up-R0[2:2]",
        "R2[1:1]-up-R1[2:2]-up-R0[2:2]", "R2[1:2]-up-R1[2:2]-up-R0[2:2]",
        "R1[1:1]-up-R0[1:2]", "R1[1:1]-up-R0[2:2]", "R1[1:2]-up-R0[2:2]",
    ]  # fmt: skip
    assert len([name for name in default_schemes([3, 3, 3]) if name.startswith("R1")]) == 2 + 2 + 1
    assert tune(GaussianField((1, 8, 16)), shapes=shapes, sigmas=SHORT, schemes=["R2[1:2]-up-up-R0[2:4]"],
                n_steps_each=20, eps=3e-3, **QUIET).front[0].scheme in ("HRS", "R2[1:2]-up-up-R0[2:4]")  # fmt: skip


def test_large_images_are_searched_by_their_spectra():
    x = torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    result = tune(x, schemes=["HRS-9", "LRS-8-up-HRS-5"], n_steps_each=(10, 30), sigmas=LADDER, **QUIET)
    assert result.stationary and ", from spectra alone" in str(result)
    dense = searched(schemes=["LRS-8-up-HRS-5"], n_steps_each=30, eps=1.2e-4, renoise=False)
    near = searched(schemes=["LRS-8-up-HRS-5"], n_steps_each=30, eps=1.2e-4, renoise=False, stationary=True)
    assert near.front[0].distance == pytest.approx(dense.front[0].distance, rel=0.06)  # the border, as for the law


def test_costs_measured_on_models_and_costs_given():
    result = tune(FIELD, MODELS, schemes=["LRS-9-up-HRS-6"], n_steps_each=10, eps=1.2e-4, **QUIET)
    assert result.measured and all(0 < cost < 1 for cost in result.costs) and "as measured" in str(result)
    given = searched(schemes=["LRS-9-up-HRS-6"], n_steps_each=30, eps=1.2e-4, renoise=False, costs=(1, 3))
    assert given.front[0].cost == pytest.approx((270 / 3 + 181) / 1001)
    assert not given.measured


def test_unstable_step_sizes_are_left_out():
    result = searched(schemes=["HRS-8"], n_steps_each=10, eps=(1.2e-4, 4e-4, 1.0))
    assert result.considered == 1


# --- the choice runs ---
@pytest.mark.parametrize(
    "arguments",
    [
        {"schemes": ["LRS-7-up-HRS-5"], "renoise": True, "upsample": "bilinear"},
        {"schemes": ["LRS-3-up-HRS-8"], "n_steps_each": (10, 30), "eps": 1.6e-4},
        {"schemes": ["HRS-9"], "denoise": False, "init": "normal"},
        {"schemes": ["LRS-9-up"], "budget": 0.4},
    ],
)
def test_the_plan_of_the_choice_has_the_predicted_evaluations_and_law(arguments):
    result = searched(**({"n_steps_each": 30, "eps": (1.2e-4,)} | arguments))
    laid = plan(MODELS, n=4, **result.plan_arguments)
    assert laid.evaluations == result.best.evaluations
    law = evolve(laid.stages, fit(FIELD), init=result.best.init, upsample=result.best.upsample)
    assert law.frechet() == pytest.approx(result.best.distance, rel=1e-9)
    assert laid.scheme == result.best.scheme


def test_the_choice_samples_with_that_many_evaluations():
    result = searched(schemes=["LRS-9-up-HRS-6"], n_steps_each=(2, 3), eps=1.2e-4, budget=1.0)
    counting = [Counting(model) for model in MODELS]
    x = sample(counting, n=2, batch_size=2, **QUIET, **result.plan_arguments)
    assert x.shape == (2, 1, 8, 8)
    assert [model.calls for model in counting] == list(result.best.evaluations.values())


def test_noise_levels_that_were_given_are_among_the_arguments():
    arguments = {"schemes": ["HRS-2"], "n_steps_each": 5, "eps": 3e-3, **QUIET}
    assert "sigmas" not in tune(GaussianField((1, 4, 4)), **arguments | {"eps": 1e-5}).plan_arguments
    given = tune(GaussianField((1, 4, 4)), sigmas=SHORT, **arguments)
    assert given.plan_arguments["sigmas"] == [SHORT, SHORT]
    each = tune(GaussianField((1, 4, 4)), sigmas=[SHORT[1:], SHORT], **arguments)
    laid = plan([GaussianField((1, 2, 2)), GaussianField((1, 4, 4))], n=1, **each.plan_arguments)
    assert laid.sigmas == [pytest.approx(SHORT[1:]), pytest.approx(SHORT)]  # float32 levels


def test_arguments_name_lists_where_models_differ(found):
    mixed = [entry for entry in found.front if "up" in entry.scheme and len(set(entry.n_steps_each)) == 2]
    assert mixed and all(isinstance(entry.arguments["n_steps_each"], list) for entry in mixed)
    same = [entry for entry in found.front if len(set(entry.n_steps_each)) == 1]
    assert same and all(isinstance(entry.arguments["n_steps_each"], int) for entry in same)


# --- what is refused ---
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"budget": 1e-4}, r"budget must be at least 0\.\d+, the cost of .*, got 0.0001"),
        ({"budget": -1}, "budget must be a positive number, got -1"),
        ({"budget": "cheap"}, "budget must be a positive number, got 'cheap'"),
        ({"models": MODELS, "shapes": [(1, 8, 8)]}, "shapes must not be given with models, which have their own"),
        ({"n_steps_each": 0}, "n_steps_each must be positive integers, got 0"),
        ({"n_steps_each": (10, 2.5)}, "n_steps_each must be positive integers, got 2.5"),
        ({"n_steps_each": ()}, "n_steps_each must be positive integers, got none"),
        ({"eps": -1e-5}, "eps must be positive numbers, got -1e-05"),
        ({"eps": 1.0}, r"eps must have a value below 4 sigma_L\^2 = 0.0004, got \[1.0\]"),
        ({"upsample": ("bicubic", "lanczos")}, "upsample must be among bicubic, bicubic-pil, .*, got 'lanczos'"),
        ({"renoise": "no"}, r"renoise must be True, False or both, got \['no'\]"),
        ({"costs": (1, 0)}, r"costs must be 2 positive numbers, one for each resolution, got \(1, 0\)"),
        ({"costs": (1,)}, "costs must be 2 positive numbers"),
        ({"schemes": ["LRS"]}, "schemes must end at the resolution of the data, got LRS"),
        ({"schemes": []}, "schemes must hold at least one name, got none"),
        ({"sigmas": [SHORT] * 3}, "sigmas must be one ladder or 2, one for each resolution, got 3"),
        ({"init": "zeros"}, "init must be one of uniform, normal, got 'zeros'"),
        (
            {"shapes": [(1, 2, 2), (1, 4, 4), (1, 8, 8)], "sigmas": [SHORT, SHORT, SHORT[1:]]},
            r"schemes must be given where models have different numbers of levels, got \[4, 4, 3\]",
        ),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(arguments, message):
    quick = {"schemes": ["HRS-9"], "n_steps_each": 5} if "shapes" not in arguments else {}
    with pytest.raises(ValueError, match=f"^tune: argument {message}"):
        searched(**(quick | arguments))


def test_unknown_schemes_are_refused_by_the_parser():
    with pytest.raises(ValueError, match="argument scheme must be .*, got 'LRS-11-up'"):
        searched(schemes=["LRS-11-up"])


def test_a_dataset_is_fitted_as_networks_see_it():
    v = torch.randint(0, 256, (30, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    arguments = {"sigmas": SHORT, "schemes": ["HRS-4"], "n_steps_each": 20, "eps": 3e-3, **QUIET}
    as_dataset = tune(ImageDataset(v), **arguments).front[0].distance
    as_floats = tune((v.double() + 0.5) / 256, **arguments).front[0].distance
    assert as_dataset == pytest.approx(as_floats, rel=1e-3)  # apart from the variance of the dequantisation
    assert as_dataset != as_floats
