"""Walk-jump and multi-measurement sampling against the laws they have on Gaussian data.

Walk-jump is arXiv:1903.02503, several measurements arXiv:2305.19473.
"""

import math

import numpy as np
import pytest
import torch
from sampling_helpers import variances

from langevin_ext import load, noise
from langevin_ext.samplers.measurement import jump
from langevin_ext.sampling import plan, sample
from langevin_ext.scores import Gaussian, GaussianMixture

QUIET = {"progress": False}


def gaussian(variance, dim=1):
    return Gaussian(0.0, variance=variance, sigmas=[1.0], shape=(dim, 1, 1))


def close(x, variance, mean=0.0):
    """Within 4 standard errors of N(mean, variance), all elements being independent."""
    x = x.double()
    assert abs(x.var() - variance) < 4 * variance * math.sqrt(2 / x.numel())
    assert abs(x.mean() - mean) < 4 * math.sqrt(variance / x.numel())


# --- walk-jump ---
@pytest.mark.parametrize(
    "variance, sigma, jumped, distance",
    [(1.0, 1.0, 0.5, 0.08578644), (1.0, 0.5, 0.8, 0.01114562), (0.25, 1.0, 0.05, 0.07639320)],
)
def test_law_of_the_jump(variance, sigma, jumped, distance):
    """Var xhat = s^4 / (s^2 + sigma^2), W2^2 = (s - s^2 / sqrt(s^2 + sigma^2))^2; the walk inflates the variance."""
    delta = 0.01
    rows = plan(gaussian(variance), "walk-jump", sigma=sigma, delta=delta, n_steps_each=6000).stages[1].rows
    target = variance + sigma**2
    inflated = 1 / (1 - delta * sigma**2 / (2 * target))
    assert variances(rows, variance, sigma**2)[-1] == pytest.approx(jumped * inflated, rel=1e-10)
    assert (math.sqrt(variance) - math.sqrt(jumped)) ** 2 == pytest.approx(distance, abs=5e-9)


def test_walk_jump_monte_carlo():
    run = {"sigma": 0.5, "delta": 0.5, "n_steps_each": 40, "init": "zeros"}
    walk = 1.25 / (1 - 0.5 * 0.25 / (2 * 1.25))
    close(sample(gaussian(1.0, 64), "walk-jump", 1000, denoise=False, **run, **QUIET), walk)
    close(sample(gaussian(1.0, 64), "walk-jump", 1000, **run, **QUIET), walk * 0.8**2)


def test_many_jumps_along_one_walk():
    model = gaussian(1.0, 16)
    run = {"sigma": 1.0, "n_steps_each": 60, "snapshot": 20, "return_info": True}
    x, info = sample(model, "walk-jump", 300, **run, **QUIET)
    assert len(info["snapshots"]) == 3
    torch.testing.assert_close(jump(model, info["snapshots"][-1], 1.0), x, rtol=1e-6, atol=1e-6)
    without, other = sample(model, "walk-jump", 300, denoise=False, **run, **QUIET)
    assert all(torch.equal(a, b) for a, b in zip(info["snapshots"], other["snapshots"], strict=True))


# --- several measurements: with exact Y the jump has the variance s^4 / (s^2 + sigma^2 / m) ---
def sequential(variance, sigma, m, delta, steps):
    """Variance of xhat_m of the chain, by the covariance of (y, S): all updates are linear."""
    c = [variance / (variance + sigma**2 / k) for k in range(1, m + 1)]
    cov = np.array([[sigma**2, 0.0], [0.0, 0.0]])
    for k in range(1, m + 1):
        pull = c[k - 1] / k
        walk = np.array([[1 - delta + delta * pull, delta * pull], [0, 1]])
        for _ in range(steps):
            cov = walk @ cov @ walk.T + np.diag([2 * delta * sigma**2, 0])
        renew = np.array([[pull, pull], [1, 1]])
        cov = renew @ cov @ renew.T + (np.diag([sigma**2, 0]) if k < m else 0)
    return cov[0, 0]


def joint(variance, sigma, m, delta, steps):
    """Variance of xhat_m of the chain on (y_1 ... y_m)."""
    pull = variance / (variance + sigma**2 / m) / m
    walk = (1 - delta) * np.eye(m) + delta * pull
    cov = sigma**2 * np.eye(m)
    for _ in range(steps):
        cov = walk @ cov @ walk.T + 2 * delta * sigma**2 * np.eye(m)
    return (m * pull) ** 2 * cov.mean()


@pytest.mark.parametrize("scheme, law", [("sms", sequential), ("jms", joint)])
@pytest.mark.parametrize("m", [1, 3])
def test_laws_of_the_chains(scheme, law, m):
    run = {"sigma": 1.0, "m": m, "delta": 0.3, "n_steps_each": 7}
    close(sample(gaussian(1.5, 64), scheme, 2000, seed=2, **run, **QUIET), law(1.5, 1.0, m, 0.3, 7))


@pytest.mark.parametrize("law", [sequential, joint])
@pytest.mark.parametrize("m, distance", [(4, 0.01114562), (16, 0.00089147), (64, 5.963e-5)])
def test_small_steps_reach_the_law_of_exact_measurements(law, m, distance):
    exact = 1 / (1 + 1 / m)
    assert (1 - math.sqrt(exact)) ** 2 == pytest.approx(distance, rel=1e-4)
    steps = 800 * m if law is joint else 2000  # the joint chain needs ever more steps, the sequential one does not
    if m <= 16 or law is sequential:
        assert law(1.0, 1.0, m, 0.01, steps) == pytest.approx(exact, rel=0.01)  # the walk inflates it by delta / 2


def test_the_sequential_chain_step_by_step():
    """Two measurements of one step each, with the noise written out."""
    model, sigma, delta = gaussian(1.5, 3), 0.7, 0.2
    x = sample(model, "sms", 4, seed=8, sigma=sigma, m=2, delta=delta, n_steps_each=1, **QUIET)

    def z(step, stream=noise.LANGEVIN):
        return noise.normal((4, 3, 1, 1), 8, step=step, stream=stream)

    def xhat(mean, k):
        return mean + sigma**2 / k * model.at_sigma(mean, sigma / math.sqrt(k))

    y = sigma * z(0, noise.MEASURE)
    y = y + delta * (xhat(y, 1) - y) + math.sqrt(2 * delta) * sigma * z(0)
    total = y
    y = xhat(total, 1) + sigma * z(1)
    y = y + delta * (xhat((total + y) / 2, 2) - y) + math.sqrt(2 * delta) * sigma * z(2)
    torch.testing.assert_close(x, xhat((total + y) / 2, 2), rtol=1e-5, atol=1e-6)


def test_the_state_of_the_sequential_chain_does_not_grow():
    stages = plan(gaussian(1.0), "sms", sigma=1.0, m=50, n_steps_each=1).stages
    assert [stage.copies for stage in stages] == [2, 2, 1]
    assert [s.copies for s in plan(gaussian(1.0), "jms", sigma=1.0, m=50, n_steps_each=1).stages] == [50, 50, 1]


def test_the_jump_finds_the_weights_of_a_mixture():
    """Two modes at +-3 with weight .8; sigma = 2.83 makes every conditional law log-concave. The plus fraction of the
    exact law is .80128 for m = 4, .82766 for m = 1; chains that see each other's total find it."""
    model = GaussianMixture([[3.0], [-3.0]], [0.8, 0.2], 1.0, sigmas=[3.0])
    run = {"sigma": 2.8284, "delta": 0.1, "n_steps_each": 60}
    for m, expected in ((1, 0.82766), (4, 0.80128)):
        x = sample(model, "sms", 4000, m=m, seed=1, **run, **QUIET).flatten()
        fraction = (x > 0).double().mean()
        # 4 standard errors and what steps of this size shift: .005, seen at ten times as many chains
        assert abs(fraction - expected) < 4 * math.sqrt(0.8 * 0.2 / 4000) + 0.005


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sigma": -1.0}, "walk-jump: option sigma must be a positive number, got -1.0"),
        ({"sigma": True}, "option sigma must be a positive number, got True"),
        ({"sigma": 1.0, "delta": 2.0}, r"walk-jump: option delta must be in \(0, 2\), beyond which the walk diverges"),
        ({"scheme": "sms", "sigma": 1.0, "m": 0}, "sms: option m must be an integer of at least 1, got 0"),
        ({"scheme": "jms", "sigma": 1.0, "m": 2.0}, "jms: option m must be an integer of at least 1, got 2.0"),
        ({}, "scheme 'walk-jump' needs the option sigma"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        sample(gaussian(1.0), **({"scheme": "walk-jump"} | options), **QUIET)


def test_levels_that_a_model_lacks():
    class Levels:
        sigmas, shape = [1.0, 0.5], (1, 1, 1)

        def __call__(self, x, level):
            return -x

    with pytest.raises(ValueError, match="the noise levels of the scheme must be levels of the model, which has no at"):
        sample(Levels(), "sms", sigma=1.0, m=3, **QUIET)
    assert sample(Levels(), "walk-jump", 2, sigma=0.5, n_steps_each=2, **QUIET).shape == (2, 1, 1, 1)


def test_jump_checks_and_keeps_no_graph():
    network = load("digits")
    assert jump(network, np.zeros((2, 1, 8, 8), "f4"), network.sigmas[-1]).numpy().shape == (2, 1, 8, 8)
    for bad, message in (
        (torch.zeros(2, 3), r"jump: argument y must have shape \(B, 1, 8, 8\), got \(2, 3\)"),
        (torch.zeros(2, 1, 8, 8), "jump: option sigma must be a positive number, got 'a'"),
    ):
        with pytest.raises(ValueError, match=message):
            jump(network, bad, "a" if bad.dim() == 4 else 0.01)
