"""Two modes (NCSN, arXiv:1907.05600, Figures 2 and 3): the exact chain, the runs against it, and the learned score."""

import math

import numpy as np
import pytest
import torch

from langevin_ext.experiments import _mode_chain as chain
from langevin_ext.experiments import _score_error as score_error
from langevin_ext.experiments import gmm_toy
from langevin_ext.experiments._sliced import zero_level
from langevin_ext.schedules import step_sizes

DIGIT = 6e-5  # half a unit of the fourth digit, and what the printed .5090, .50895 here, lacks of a right rounding


def ladder(first, last, eps, added=1.0):
    """(variance, step) of each of ten levels."""
    sigmas = np.geomspace(first, last, 10)
    return [(added + sigma**2, eps * (sigma / last) ** 2) for sigma in sigmas]


# --- the exact chain ---
@pytest.mark.parametrize(
    ("levels", "steps", "share"),
    [
        ([(1.0, 0.1)], 1000, 0.5090),
        (ladder(20, 1, 0.1, added=0.0), 100, 0.7823),
        (ladder(20, 1, 0.1), 100, 0.7828),
        (ladder(10, 0.1, 0.01), 100, 0.7738),
        (ladder(10, 0.1, 0.005), 100, 0.7842),
        (ladder(10, 0.1, 0.003), 100, 0.7846),
        (ladder(10, 0.1, 0.002), 100, 0.7819),
        (ladder(10, 0.1, 0.005), 1000, 0.7931),
    ],
)
def test_shares_of_the_exact_chain(levels, steps, share):
    assert chain.fractions(levels, steps)[-1] == pytest.approx(share, abs=DIGIT)


def test_shares_after_each_level():
    shares = chain.fractions(ladder(20, 1, 0.1, added=0.0), 100)
    printed = [0.581, 0.612, 0.650, 0.694, 0.738, 0.769, 0.781, 0.782, 0.782, 0.782]
    assert shares == pytest.approx(printed, abs=5.1e-4)  # half a unit of the third digit
    noisy = [chain.noisy_fraction(v) for v, _ in ladder(10, 0.1, 0.005)]
    assert noisy[:4] == pytest.approx([0.65549, 0.72661, 0.78259, 0.79913], abs=5.1e-6)
    assert noisy[4:] == pytest.approx([0.8] * 6, abs=5e-6)


def test_the_grid_is_fine_enough(monkeypatch):
    levels = ladder(10, 0.1, 0.005)
    coarse = chain.fractions(levels, 100)
    monkeypatch.setattr(chain, "SPACING", 0.4)
    monkeypatch.setattr(chain, "START_POINTS", 4001)
    assert coarse == pytest.approx(chain.fractions(levels, 100), abs=1e-6)


def test_overlapping_modes_mix():
    """Where both modes overlap (v large) one long level brings every start to the noisy distribution's own share."""
    levels = [(100.0, 2.0)]  # contraction .99 a step: 2,000 steps forget the start; the step's bias is of order 1 %
    for density in (None, lambda u: chain.data_density(u, (1.0, 0.0))):
        assert chain.fractions(levels, 2000, density)[0] == pytest.approx(chain.noisy_fraction(100.0), abs=3e-3)


def test_densities_and_the_variance_across():
    u = torch.linspace(-16, 16, 32001, dtype=torch.float64)
    for density in (chain.square_density(u), chain.data_density(u)):
        assert float(density.sum() * 1e-3) == pytest.approx(1.0, abs=1e-6)
    # 1/(1 - eps/4) of the unit variance; two modes of variance 1 + sigma_L^2 = 2
    assert chain.variance_across([(1.0, 0.1)], 1000) == pytest.approx(1.0256410256, abs=1e-9)
    assert chain.variance_across([(1.0, 0.1)], 1) == pytest.approx(0.95**2 * 64 / 3 + 0.1)
    assert chain.variance_across(ladder(20, 1, 0.1), 100) == pytest.approx(2.0315, abs=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: chain.fractions([(1.0, 0.1)], 1), "fractions: argument steps must be at least 2, got 1"),
        (lambda: chain.fractions([(1.0, 4.0)], 10), "must have 0 < alpha < 4 v, got alpha=4 and v=1"),
        (lambda: chain.fractions(ladder(10, 0.1, 0.1), 10), "got alpha=1000 and v=101"),
    ],
)
def test_diverging_chains_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- the runs ---
@pytest.mark.parametrize("one", gmm_toy.CHAINS, ids=lambda one: one.what)
def test_a_run_and_its_law_have_the_same_steps(one):
    """What is sampled is what the exact chain propagates: variances by the score's slope across, steps of `sample`."""
    variances, steps = zip(*one.steps, strict=True)
    if one.levels > 1:
        assert steps == pytest.approx(step_sizes(one.sigmas, one.eps).tolist(), rel=1e-6)
    x = torch.tensor([7.0, 3.0], dtype=torch.float64).reshape(1, 2, 1, 1)  # 2 sqrt 2 across from the mode
    for level, v in enumerate(variances):
        score = one.target(x, torch.tensor([level])).flatten()
        assert float(score[0] - score[1]) == pytest.approx(-4.0 / v, rel=1e-6)


def test_printed_settings_diverge_and_are_refused():
    """The factor at sigma 10 is 1 - 500/101 = -3.95; the largest stable eps there is .0404, and .04 is the limit."""
    found = gmm_toy.refused()
    assert found[0].ours == pytest.approx(500 / 101 - 1) and all(one.reproduced for one in found)
    for eps, fits in ((0.0403, True), (0.0405, False)):
        assert (eps * 100**2 < 4 * 101) == fits
        with pytest.raises(ValueError, match="above which Langevin dynamics diverges"):
            gmm_toy.sampling.plan(gmm_toy.PRINTED.target, "annealed", 4, eps=eps)


def test_a_refusal_for_another_reason_is_told(monkeypatch):
    def plan(*_, **__):
        raise ValueError("something else")

    monkeypatch.setattr(gmm_toy.sampling, "plan", plan)
    assert gmm_toy.refused()[1].verdict == "not reproduced: refused for another reason: something else"
    monkeypatch.setattr(gmm_toy.sampling, "plan", lambda *_, **__: None)
    assert gmm_toy.refused()[1].verdict == "not reproduced: it was accepted"


# --- the learned score ---
def test_errors_of_the_true_score_and_of_none():
    target = gmm_toy.PLAIN.target
    errors = score_error.measure(target, target, seed=3)
    assert (errors.half, errors.near, errors.far) == pytest.approx((0.0, 0.0, 0.0), abs=1e-5)  # float32 points
    assert errors.best == pytest.approx(errors.loss, abs=1e-9)
    assert abs(errors.best + 1.0) < 4 * errors.best_stderr

    def none(x, level):
        return 0 * x

    none.sigmas = target.sigmas
    errors = score_error.measure(none, target, seed=3)
    assert errors.loss == 0.0 and errors.relative_near == errors.relative_far == 1.0
    assert abs(errors.best + 1.0) < 4 * errors.best_stderr  # -half, half of chi^2 with two degrees of freedom
    assert errors.best == -errors.half and errors.best_stderr == pytest.approx(1 / math.sqrt(20_000), rel=0.1)


def test_window_is_ordered_as_pictures_are():
    points = score_error.window().flatten(1)
    assert points[0].tolist() == [-8.0, -8.0] and points[1].tolist() == [-7.8, -8.0] and len(points) == 81**2


# --- all of it ---
def test_experiment(tmp_path):
    report = gmm_toy.run(tmp_path, size=0.05, progress=False)
    assert [one.what for one in report.findings if not one.reproduced] == []
    assert [path.name for path in report.figures] == [
        "gmm-toy-scores.png",
        "gmm-toy-samples.png",
        "gmm-toy-levels.png",
    ]
    assert all(path.stat().st_size > 20_000 for path in report.figures)
    expected = {one.what: one for one in report.findings}
    shares = [one for what, one in expected.items() if "share at" in what]
    assert len(shares) == 4 and all(one.stderr < 0.0113 for one in shares)
    plain = expected["plain Langevin, T=1000: share at (5, 5)"]
    assert abs(plain.ours - 0.8) > 20 * plain.stderr  # the point of the figure


def test_zero_level():
    assert zero_level(torch.zeros(3, 2, 1, 1)).tolist() == [0, 0, 0]
