"""The reverse Ornstein-Uhlenbeck process and the probability-flow ODE against the laws they have on Gaussian data."""

import math

import pytest
import torch

from langevin_ext import noise
from langevin_ext.samplers.diffusion import sigma_at
from langevin_ext.sampling import plan, sample
from langevin_ext.scores import Gaussian, GaussianMixture

QUIET = {"progress": False}
# variance and mean of the data: (mean, variance) of what T, gamma give, from N(0, 1), without the last denoising
LAWS = {
    (1.0, 0.0): {(3, 0.1): (0, 1.05253700), (3, 0.01): (0, 1.00501304), (5, 0.01): (0, 1.00502491)},
    (0.25, 1.0): {(3, 0.1): (0.98626732, 0.36470499), (5, 0.01): (0.99881828, 0.25964464)},
    (4.0, -2.0): {(3, 0.1): (-1.89532115, 3.74939957), (3, 0.01): (-1.97146088, 3.97278199)},
    (0.01, 0.5): {(3, 0.1): (0.49741764, 0.20061527), (5, 0.001): (0.49999383, 0.01106558)},
}
CASES = [(data, run, law) for data, runs in LAWS.items() for run, law in runs.items()]


def law(rows, variance, mean):
    """(mean, variance) after the rows, each the affine map that its update is for data N(mean, variance)."""
    m, v = 0.0, 1.0
    for row in rows:
        t = math.log(row.scale)
        assert row.sigma == pytest.approx(sigma_at(t), rel=1e-12)
        r = math.exp(-2 * t) * variance + 1 - math.exp(-2 * t)
        a = 1 + row.gamma - 2 * row.gamma / r
        m, v = a * m + 2 * row.gamma * math.exp(-t) * mean / r, a**2 * v + 2 * row.gamma
    return m, v


@pytest.mark.parametrize("data, run, expected", CASES)
def test_law_of_the_reverse_process(data, run, expected):
    model = Gaussian(data[1], variance=data[0], shape=(1, 1, 1))
    stages = plan(model, "ou-reverse", T=run[0], gamma=run[1], denoise=False).stages
    assert law(stages[0].rows, *data) == pytest.approx(expected, abs=6e-9)
    assert len(stages[0].rows) == round(run[0] / run[1])


def test_a_step_is_the_equation():
    model, gamma, t = Gaussian(0.4, variance=0.3, shape=(3, 1, 1)), 0.25, 0.5
    start = torch.linspace(-1, 1, 6).reshape(2, 3, 1, 1)
    x = sample(model, "ou-reverse", 2, T=t, gamma=gamma, denoise=False, init=start, seed=4, **QUIET)
    for k, time in enumerate((0.5, 0.25)):
        score = math.exp(time) * model.at_sigma(math.exp(time) * start, math.sqrt(math.exp(2 * time) - 1))
        z = noise.normal((2, 3, 1, 1), 4, step=k)
        start = start + gamma * start + 2 * gamma * score + math.sqrt(2 * gamma) * z
    torch.testing.assert_close(x, start, rtol=1e-5, atol=1e-6)


def test_reverse_process_monte_carlo():
    model = Gaussian(1.0, variance=0.25, shape=(64, 1, 1))
    x = sample(model, "ou-reverse", 2000, T=3, gamma=0.1, denoise=False, seed=1, **QUIET).double()
    mean, variance = LAWS[0.25, 1.0][3, 0.1]
    assert abs(x.var() - variance) < 4 * variance * math.sqrt(2 / x.numel())
    assert abs(x.mean() - mean) < 4 * math.sqrt(variance / x.numel())


def test_the_last_step_denoises():
    """y at t = gamma is e^-t (X + sigma N), so the mean of X given it shrinks e^t y - m by s^2 / (s^2 + sigma^2)."""
    model = Gaussian(1.0, variance=0.25, shape=(64, 1, 1))
    rows = plan(model, "ou-reverse", T=3, gamma=0.1).stages[0].rows
    mean, variance = law(rows[:-1], 0.25, 1.0)
    shrink = 0.25 / (0.25 + sigma_at(0.1) ** 2)
    expected_mean = 1 + shrink * (math.exp(0.1) * mean - 1)
    expected = (shrink * math.exp(0.1)) ** 2 * variance
    x = sample(model, "ou-reverse", 2000, T=3, gamma=0.1, seed=1, **QUIET).double()
    assert abs(x.var() - expected) < 4 * expected * math.sqrt(2 / x.numel())
    assert abs(x.mean() - expected_mean) < 4 * math.sqrt(expected / x.numel())


def test_weights_of_a_mixture():
    model = GaussianMixture([[3.0], [-3.0]], [0.8, 0.2], 1.0)
    x = sample(model, "ou-reverse", 10000, T=5, gamma=0.05, denoise=False, seed=2, **QUIET).flatten().double()
    plus = x[x > 0]
    # Euler's bias at this step, from 200,000 chains: the fraction is .7982, the mode at 2.961 with deviation 1.011
    assert abs((x > 0).double().mean() - 0.7982) < 4 * math.sqrt(0.8 * 0.2 / 10000)
    assert abs(plus.mean() - 2.961) < 4 * 1.011 / math.sqrt(len(plus))
    assert abs(plus.std() - 1.011) < 4 * 1.011 / math.sqrt(2 * len(plus))


def test_models_with_levels_alone_run_at_their_times():
    class Levels:
        sigmas, shape = torch.tensor([1.0, 0.5, 0.1]), (1, 1, 1)

        def __call__(self, x, level):
            return -x / (0.25 + self.sigmas[level].reshape(-1, 1, 1, 1) ** 2)

    rows = plan(Levels(), "ou-reverse").stages[0].rows
    assert [row.sigma for row in rows] == pytest.approx([1.0, 0.5, 0.1], rel=1e-6)
    assert sum(row.gamma for row in rows) == pytest.approx(math.log(2) / 2, rel=1e-6)  # the time of sigma = 1
    with pytest.raises(ValueError, match="ou-reverse: options T and gamma need a model with at_sigma"):
        plan(Levels(), "ou-reverse", T=5)
    with pytest.raises(ValueError, match="probability-flow: option method must be 'heun' for a model without at_sigma"):
        plan(Levels(), "probability-flow", method="rk4")
    assert plan(Levels(), "probability-flow").evaluations == {"1x1": 2 * 2 + 1}


# --- the ODE: for Gaussian data it multiplies x - m by sqrt((s^2 + sigma_L^2) / (s^2 + sigma_1^2)) ---
def flow_error(**options):
    model = Gaussian(0.5, variance=0.0625, shape=(4, 1, 1))
    run = {"n": 8, "seed": 3, "denoise": False, "dtype": torch.float64, "init": "zeros", **QUIET}
    x = sample(model, "probability-flow", **run, **options)
    start = noise.normal((8, 4, 1, 1), 3, stream=noise.MEASURE).double()
    exact = 0.5 + (start - 0.5) * math.sqrt((0.0625 + 1e-4) / (0.0625 + 1))
    return (x - exact).abs().max().item()


def test_the_ode_is_of_fourth_order():
    errors = [flow_error(n_steps=n) for n in (10, 20, 40)]
    orders = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert orders == pytest.approx([4, 4], abs=0.3) and errors[-1] < 1e-6


def test_heun_is_of_second_order():
    ladders = [torch.logspace(0, -2, n, dtype=torch.float64) for n in (33, 65, 129)]
    errors = [flow_error(method="heun", sigmas=ladder) for ladder in ladders]
    orders = [math.log2(a / b) for a, b in zip(errors, errors[1:], strict=False)]
    assert orders == pytest.approx([2, 2], abs=0.2)


def test_adaptive_steps():
    pytest.importorskip("torchdiffeq")
    loose, tight = (flow_error(method="dopri5", rtol=tol, atol=tol) for tol in (1e-3, 1e-9))
    assert tight < 1e-7 < loose < 1e-2
    model = Gaussian(0.5, variance=0.0625, shape=(4, 1, 1))
    _, info = sample(model, "probability-flow", 2, method="dopri5", return_info=True, **QUIET)
    assert info["calls"]["1x1"] > 20 and info["evaluations"]["1x1"] == 1  # the denoising is all that a plan can count


@pytest.mark.parametrize(
    "scheme, options, message",
    [
        ("ou-reverse", {"T": -1}, "ou-reverse: option T must be a positive number, got -1"),
        ("ou-reverse", {"T": 1.0, "gamma": 0.3}, "ou-reverse: option gamma must divide T = 1, got 0.3"),
        ("ou-reverse", {"gamma": "a"}, "ou-reverse: option gamma must be a positive number, got 'a'"),
        ("probability-flow", {"method": "rk5"}, "option method must be one of heun, rk4, dopri5, .* got 'rk5'"),
        ("probability-flow", {"n_steps": 0}, "option n_steps must be an integer of at least 1, got 0"),
    ],
)
def test_errors(scheme, options, message):
    with pytest.raises(ValueError, match=message):
        sample(Gaussian(0.5, variance=0.1, shape=(1, 1, 1)), scheme, **options, **QUIET)


def test_torchdiffeq_missing(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ImportError, match="probability-flow: method 'dopri5' needs torchdiffeq; run 'pip install"):
        flow_error(method="dopri5")
