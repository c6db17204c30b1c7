"""Implicit and sliced score matching against closed forms (Hyvarinen 2005; arXiv:1905.07088, eq. 7 to 9)."""

import importlib
import math

import pytest
import torch
from torch import nn

from langevin_ext import losses, noise, scores
from langevin_ext.models import MLP
from langevin_ext.schedules import geometric_sigmas

SIGMAS = geometric_sigmas(1, 0.01, 10)
SLICED = importlib.import_module("langevin_ext.losses.ssm")  # the attribute of that name is the function
OBJECTIVES = [losses.ism, losses.ssm, losses.ssm_vr]


class Score:
    """A score function for the tests: fn(x, sigma) with sigma (B, 1, 1, 1)."""

    def __init__(self, fn, sigmas=SIGMAS):
        self.fn, self.sigmas = fn, torch.as_tensor(sigmas)

    def __call__(self, x, level):
        return self.fn(x, self.sigmas.to(x.dtype)[level].view(-1, 1, 1, 1))


def zeros(x):
    return torch.zeros(len(x), dtype=torch.int64)


def gaussian(shape, seed=11):
    return 0.5 + 0.25 * noise.normal(shape, seed, stream=noise.INIT)


def close(values, expected):
    """The mean within four of its standard errors; returns the standard error."""
    values = values.double()
    error = values.std().item() / len(values) ** 0.5
    assert values.mean().item() == pytest.approx(expected, abs=4 * error)
    return error


CUBIC = Score(lambda y, s: -torch.tensor([1.0, 2.0]).view(2, 1, 1) * y + 0.1 * y**3, [1.0])
X = torch.tensor([[1.0, -1.0], [0.5, 2.0]]).view(2, 2, 1, 1)
V = torch.tensor([[1.0, 2.0], [-1.0, 0.5]]).view(2, 1, 2, 1, 1)


def test_worked_example(monkeypatch):
    # s_i = -lambda_i x_i + .1 x_i^3, lambda = (1, 2), x = (1, -1), (.5, 2), v = (1, 2), (-1, .5)
    options = {"seed": 0, "step": 0, "noisy": False, "anneal_power": 0.0}
    implicit = losses.ism(CUBIC, X, zeros(X), **options)
    torch.testing.assert_close(implicit, torch.tensor([-0.19, 3.51382813]))
    monkeypatch.setattr(SLICED, "directions", lambda name, kind, shape, **_: V)
    assert losses.ssm(CUBIC, X, zeros(X), **options).mean().item() == pytest.approx(-1.90058594, abs=1e-6)
    assert losses.ssm_vr(CUBIC, X, zeros(X), **options).mean().item() == pytest.approx(-0.58808594, abs=1e-6)
    unit = V / V.flatten(2).norm(dim=2).view(2, 1, 1, 1, 1)
    monkeypatch.setattr(SLICED, "directions", lambda name, kind, shape, **_: unit)
    assert losses.ssm(CUBIC, X, zeros(X), **options).mean().item() == pytest.approx(-0.53196875, abs=1e-6)


def test_laws_of_the_directions():
    draw = {"seed": 3, "step": 1, "first": 0}
    shape = (20_000, 2, 3, 1, 1)
    for kind, second in (("gaussian", 1.0), ("rademacher", 1.0), ("sphere", 1 / 3)):
        v = SLICED.directions("ssm", kind, shape, **draw).flatten(2).double()
        moments = (v[..., :, None] * v[..., None, :]).flatten(0, 1)
        # entries of v v' are at most about 15 in size and have a standard deviation of at most sqrt(2)
        assert (moments.mean(0) - second * torch.eye(3)).abs().max() < 4 * math.sqrt(2 / len(moments))
        later = SLICED.directions("ssm", kind, (100, *shape[1:]), seed=3, step=1, first=50)
        assert torch.equal(later.flatten(2).double(), v[50:150])
    signs = SLICED.directions("ssm", "rademacher", shape, **draw)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(signs, torch.where(noise.words(shape, 3, 1, stream=noise.SSM) < 2**31, -1.0, 1.0))
    sphere = SLICED.directions("ssm", "sphere", shape, **draw)
    torch.testing.assert_close(sphere.flatten(2).square().sum(2), torch.ones(20_000, 2))
    g = noise.normal(shape, 3, 1, stream=noise.SSM)
    assert torch.equal(SLICED.directions("ssm", "gaussian", shape, **draw), g)


@pytest.mark.parametrize("kind, share", [("gaussian", 1.0), ("rademacher", 1.0), ("sphere", 0.5)])
def test_mean_over_the_directions_is_the_implicit_loss(kind, share):
    # for one x: E v' Ds v = tr Ds and E (v's)^2 = |s|^2; on the sphere both are 1/D of that, D = 2
    x = X[1:].expand(40_000, 2, 1, 1)
    options = {"seed": 5, "step": 2, "noisy": False, "anneal_power": 0.0}
    implicit = losses.ism(CUBIC, x[:1], zeros(x[:1]), **options).item()
    error = close(losses.ssm(CUBIC, x, zeros(x), projection=kind, **options), share * implicit)
    assert error < 0.2 and abs(implicit) > 3  # 4 errors tell a missing 1/2 or a wrong sign from the right value
    if kind == "sphere":
        return
    reduced = losses.ssm_vr(CUBIC, x, zeros(x), projection=kind, **options)
    if kind == "rademacher":  # Ds is diagonal here, and v_i^2 = 1: no variance is left
        torch.testing.assert_close(reduced, torch.full_like(reduced, implicit))
    else:
        assert close(reduced, implicit) < error


def test_more_directions_average():
    x = gaussian((6, 2, 1, 1))
    options = {"seed": 5, "step": 2, "noisy": True}
    v = SLICED.directions("ssm", "gaussian", (6, 3, 2, 1, 1), seed=5, step=2, first=0)
    y = x + noise.normal(x.shape, 5, 2, stream=noise.DSM)
    s = CUBIC(y, zeros(y))
    slope = 0.3 * y**2 - torch.tensor([1.0, 2.0]).view(2, 1, 1)
    trace = (v**2 * slope[:, None]).flatten(2).sum(2)
    along = (v * s[:, None]).flatten(2).sum(2)
    expected = (trace + 0.5 * along**2).mean(1)
    torch.testing.assert_close(losses.ssm(CUBIC, x, zeros(x), projections=3, **options), expected)
    expected = trace.mean(1) + 0.5 * s.flatten(1).square().sum(1)
    torch.testing.assert_close(losses.ssm_vr(CUBIC, x, zeros(x), projections=3, **options), expected)


def test_linear_score():
    # s = -2.5 (x - m), variance .0625, sigma = .35938137: implicit loss -1.90107823, that of DSM 3.87131841 above
    sigma = 0.35938137
    model, x = Score(lambda y, s: -2.5 * (y - 0.5), [sigma]), gaussian((100_000, 1, 1, 1))
    options = {"seed": 3, "step": 0, "anneal_power": 0.0}
    implicit = losses.ism(model, x, zeros(x), **options)
    close(implicit, -1.90107823)
    close(losses.dsm(model, x, zeros(x), **options) - implicit, 3.87131841)
    close(losses.ssm(model, x, zeros(x), **options), -1.90107823)
    close(losses.ssm_vr(model, x, zeros(x), **options), -1.90107823)
    weighted = losses.ssm_vr(model, x, zeros(x), seed=3, step=0)
    torch.testing.assert_close(weighted, sigma**2 * losses.ssm_vr(model, x, zeros(x), **options))


@pytest.mark.parametrize("index", [0, 3, 6])
def test_distance_to_denoising_for_any_score(index):
    # sigma^p D / (2 sigma^2) also for a score that is nobody's gradient; D = 2, p = 1.5
    model = Score(lambda y, s: torch.stack([torch.sin(y[:, 0] + y[:, 1]), y[:, 0] ** 2], dim=1))
    x = gaussian((100_000, 2, 1, 1))
    level, options = torch.full((len(x),), index), {"seed": 8, "step": 1, "anneal_power": 1.5}
    difference = losses.dsm(model, x, level, **options) - losses.ism(model, x, level, **options)
    close(difference, SIGMAS[index].item() ** -0.5)


def test_optimum_of_gaussian_data():
    # -1/2 sigma^2 J, J = 1 / (s0^2 + sigma^2), at each level; D = 1
    model, x = Score(lambda y, s: -(y - 0.5) / (0.0625 + s**2)), gaussian((20_000, 1, 1, 1))
    for index, sigma in enumerate(SIGMAS.double().tolist()):
        level = torch.full((len(x),), index)
        expected = -0.5 * sigma**2 / (0.0625 + sigma**2)
        close(losses.ism(model, x, level, seed=3, step=index), expected)
        close(losses.ssm(model, x, level, seed=3, step=index), expected)
        denoising = 0.5 + expected  # 1/2 (D - sigma^2 J)
        close(losses.dsm(model, x, level, seed=3, step=index), denoising)


def test_optimum_of_a_mixture():
    # .8/.2 at +-5, variance 1: J = .49690605, .06811156, .00857304 at sigma = 1, 3, 10
    mixture = scores.GaussianMixture([[5.0], [-5.0]], [0.8, 0.2], 1.0, sigmas=torch.tensor([10.0, 3.0, 1.0]))
    x = mixture.sample(40_000, seed=23)
    for index, fisher in enumerate((0.00857304, 0.06811156, 0.49690605)):
        level = torch.full((len(x),), index)
        options = {"seed": 4, "step": index, "anneal_power": 0.0}
        close(losses.ism(mixture, x, level, **options), -fisher / 2)
        close(losses.ssm_vr(mixture, x, level, **options), -fisher / 2)
        close(losses.ssm(mixture, x, level, **options), -fisher / 2)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_noise_is_optional(objective):
    model, x = Score(lambda y, s: -(y**3) * s), gaussian((5, 2, 2, 1)).double()
    level = torch.tensor([0, 2, 4, 6, 9])
    moved = x + SIGMAS[level].double().view(-1, 1, 1, 1) * noise.normal(x.shape, 1, 4, stream=noise.DSM).double()
    noisy = objective(model, x, level, seed=1, step=4)
    torch.testing.assert_close(noisy, objective(model, moved, level, seed=1, step=4, noisy=False))
    assert noisy.dtype == torch.float64 and not torch.equal(noisy, objective(model, x, level, seed=1, step=5))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_independent_of_the_batch_split(objective):
    x, level = gaussian((7, 2, 3, 1)), torch.tensor([0, 9, 3, 3, 5, 1, 8])
    model = Score(lambda y, s: -(y**3) / (1 + s**2))
    whole = objective(model, x, level, seed=1, step=4)
    parts = [objective(model, x[i:j], level[i:j], seed=1, step=4, first=i) for i, j in ((0, 3), (3, 4), (4, 7))]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, objective(model, x, level, seed=2, step=4))


def test_gradient_of_the_weights():
    # s = -a y^3: d/da of -3 a sum v^2 y^2 + 1/2 a^2 sum y^6, and 1/2 (v's)^2 = 1/2 a^2 (sum v y^3)^2
    x, level = gaussian((5, 1, 2, 2)).double(), torch.tensor([0, 2, 4, 6, 8])
    sigma = SIGMAS[level].double().view(-1, 1, 1, 1)
    y = x + sigma * noise.normal(x.shape, 1, stream=noise.DSM).double()
    v = noise.normal(x.shape, 1, stream=noise.SSM).double()
    slope, weight = -3 * (v * v * y * y).flatten(1).sum(1), sigma.flatten() ** 2
    size, along = (y**6).flatten(1).sum(1), (v * y**3).flatten(1).sum(1) ** 2
    trace = -3 * (y * y).flatten(1).sum(1)
    expected = {"ism": trace + 0.7 * size, "ssm": slope + 0.7 * along, "ssm_vr": slope + 0.7 * size}
    for name, gradient in expected.items():
        a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        getattr(losses, name)(Score(lambda y, s, a=a: -a * y**3), x, level, seed=1, step=0).sum().backward()
        torch.testing.assert_close(a.grad, (weight * gradient).sum())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_without_gradients(objective):
    torch.manual_seed(0)
    model, x = MLP((3, 1, 1), (8,), sigmas=[1.0, 0.1]), gaussian((4, 3, 1, 1))
    level = torch.tensor([0, 1, 1, 0])
    trained = objective(model, x, level, seed=1, step=0)
    with torch.no_grad():
        measured = objective(model, x, level, seed=1, step=0)
    assert trained.requires_grad and not measured.requires_grad and torch.equal(trained.detach(), measured)
    assert x.requires_grad is False and all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_double_backward_through_a_network(objective):
    # against a difference quotient of the loss in one weight: float64, step 1e-6, relative error about 1e-8
    torch.manual_seed(0)
    model, x = MLP((2, 2, 1), (6, 5), "silu", [1.0, 0.1]).double(), gaussian((3, 2, 2, 1)).double()
    level, weight = torch.tensor([0, 1, 1]), model.net[2].weight

    def loss():
        return objective(model, x, level, seed=2, step=0).sum()

    loss().backward()
    expected = weight.grad[1, 2].item()
    values = []
    for move in (1e-6, -2e-6):
        with torch.no_grad():
            weight[1, 2] += move
        values.append(loss().item())
    assert expected == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6)


BAD = [
    ({"x": torch.zeros(2, 4)}, r": x must be a float tensor \(B, C, H, W\), got torch.float32 \(2, 4\)"),
    ({"level": torch.tensor([0, 10])}, r": level must be in \[0, 10\), got 0 to 10"),
    ({"level": torch.zeros(2)}, r": level must be int64 of shape \(2,\), got torch.float32"),
    ({"anneal_power": math.nan}, r": anneal_power must be finite, got nan"),
    (
        {"model": Score(lambda y, s: y[:, :, 0, 0])},
        r": model must return a score of shape \(2, 1, 2, 2\), got \(2, 1\)",
    ),
    ({"model": Score(lambda y, s: y.detach())}, r": model must give a score that can be differentiated in x, got one"),
]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("changed, message", BAD)
def test_wrong_arguments(objective, changed, message):
    arguments = {"model": Score(lambda y, s: y), "x": torch.zeros(2, 1, 2, 2), "level": torch.tensor([0, 1])}
    with pytest.raises((TypeError, ValueError), match=objective.__name__ + message):
        objective(seed=0, step=0, **{**arguments, **changed})


def test_wrong_options():
    x = torch.zeros(2, 3, 20, 20)
    arguments = {"model": Score(lambda y, s: y), "x": x, "level": zeros(x), "seed": 0, "step": 0}
    with pytest.raises(
        ValueError, match=r"ism: x must have at most max_dimension = 1024 values .*got 1200; take ssm_vr"
    ):
        losses.ism(**arguments)
    with pytest.raises(ValueError, match=r"ssm: projection must be 'gaussian', 'rademacher' or 'sphere', got 'cube'"):
        losses.ssm(**arguments, projection="cube")
    with pytest.raises(ValueError, match=r"ssm_vr: projection must be 'gaussian' or 'rademacher', got 'sphere'"):
        losses.ssm_vr(**arguments, projection="sphere")
    for count in (0, 1.5, True):
        with pytest.raises(ValueError, match=rf"ssm: projections must be a positive integer, got {count}"):
            losses.ssm(**arguments, projections=count)
    constant = nn.Parameter(torch.ones(2, 3, 20, 20))  # does not depend on x: no derivative, not an error
    loss = losses.ssm_vr(**{**arguments, "model": Score(lambda y, s: constant)}, anneal_power=0.0)
    torch.testing.assert_close(loss, torch.full((2,), 600.0))
