"""Exact score fields against the gradient of their log density, their covariances and their draws."""

import math

import numpy as np
import pytest
import torch

from langevin_ext.schedules import geometric_sigmas
from langevin_ext.scores import Gaussian, GaussianField, GaussianMixture, ScoreFunction

SIGMAS = torch.tensor([2.0, 0.5, 0.1], dtype=torch.float64)
COV = torch.tensor([[1.0, 0.5, 0.1], [0.5, 2.0, -0.3], [0.1, -0.3, 0.7]], dtype=torch.float64)
MEANS = torch.tensor([[-1.0, 0.5], [1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


def log_gaussian(x, mean, cov):
    return torch.distributions.MultivariateNormal(mean, cov).log_prob(x.flatten(1))


def log_mixture(x, variance):
    parts = [
        w.log() + log_gaussian(x, m, variance * torch.eye(2, dtype=x.dtype))
        for w, m in zip(WEIGHTS, MEANS, strict=True)
    ]
    return torch.logsumexp(torch.stack(parts), 0)


def field_covariance(height, width, correlation=0.9):
    r, c = np.divmod(np.arange(height * width), width)
    return torch.tensor(0.0625 * correlation ** (abs(r[:, None] - r) + abs(c[:, None] - c)))


CASES = {
    "diagonal": (
        Gaussian([0.5, -1.0], variance=0.3, sigmas=SIGMAS),
        lambda x, s: log_gaussian(x, torch.tensor([0.5, -1.0]).double(), (0.3 + s**2) * torch.eye(2).double()),
    ),
    "pixels": (
        Gaussian(0.5, variance=torch.tensor([[[0.3, 0.1]]]).double(), sigmas=SIGMAS, shape=(1, 1, 2)),
        lambda x, s: log_gaussian(
            x, torch.tensor([0.5, 0.5]).double(), torch.diag(torch.tensor([0.3, 0.1]).double() + s**2)
        ),
    ),
    "cov": (
        Gaussian([0.5, -1.0, 0.0], cov=COV, sigmas=SIGMAS),
        lambda x, s: log_gaussian(x, torch.tensor([0.5, -1.0, 0.0]).double(), COV + s**2 * torch.eye(3).double()),
    ),
    "field": (
        GaussianField((1, 3, 4), sigmas=SIGMAS),
        lambda x, s: log_gaussian(
            x, torch.full((12,), 0.5).double(), field_covariance(3, 4) + s**2 * torch.eye(12).double()
        ),
    ),
    "mixture": (GaussianMixture(MEANS, WEIGHTS, 0.4, SIGMAS), lambda x, s: log_mixture(x, 0.4 + s**2)),
    "replaced": (GaussianMixture(MEANS, WEIGHTS, 0.4, SIGMAS, form="replaced"), lambda x, s: log_mixture(x, s**2)),
}


@pytest.mark.parametrize("case", CASES)
def test_score_is_the_gradient_of_the_log_density(case):
    field, log_density = CASES[case]
    for level, sigma in enumerate(SIGMAS.tolist()):
        x = torch.randn(5, *field.shape, dtype=torch.float64, generator=torch.manual_seed(level), requires_grad=True)
        (expected,) = torch.autograd.grad(log_density(x, sigma).sum(), x)
        x = x.detach()
        torch.testing.assert_close(field(x, torch.full((5,), level)), expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(field.at_sigma(x, sigma), expected, rtol=1e-9, atol=1e-9)
        single = field(x.float(), torch.full((5,), level))
        assert single.dtype == torch.float32
        torch.testing.assert_close(single, field(x.float().double(), torch.full((5,), level)).float(), rtol=0, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_levels_may_differ_within_a_batch_and_bits_do_not_depend_on_it(case):
    field, _ = CASES[case]
    x, level = torch.randn(7, *field.shape, generator=torch.manual_seed(1)), torch.tensor([0, 1, 2, 2, 1, 0, 1])
    together = field(x, level)
    for i in range(7):
        assert torch.equal(together[i], field(x[i : i + 1], level[i : i + 1])[0])
    assert torch.equal(together, field.at_sigma(x, SIGMAS[level]))


@pytest.mark.parametrize("case", ["pixels", "cov", "field", "mixture"])
def test_draws_have_the_law(case):
    field, _ = CASES[case]
    n = 40_000
    x = field.sample(n, seed=5).double().flatten(1)
    if case == "mixture":
        mean = WEIGHTS @ MEANS
        cov = (WEIGHTS * MEANS.T) @ MEANS - mean[:, None] * mean + 0.4 * torch.eye(2)
    else:
        mean, cov = field._constants["mean"].expand(field.shape).flatten(), field.covariance()
    spread = cov.diagonal().sqrt()
    assert ((x.mean(0) - mean).abs() < 4 * spread / math.sqrt(n)).all()
    error = 4 * ((spread[:, None] * spread) ** 2 + cov**2).sqrt() / math.sqrt(n)
    assert ((torch.cov(x.T) - cov).abs() < error * (1.2 if case == "mixture" else 1)).all()


def test_draws_depend_on_the_global_index_alone():
    for field, _ in CASES.values():
        whole = field.sample(6, seed=3)
        assert torch.equal(whole, torch.cat([field.sample(2, seed=3), field.sample(4, seed=3, first=2)]))
        assert not torch.equal(whole, field.sample(6, seed=4))


def test_field_covariance_and_pooling():
    # 8x8 field, mean .5, .0625 * .9^distance; its 2x2 average pool has these entries.
    field = GaussianField()
    np.testing.assert_allclose(field.covariance(), field_covariance(8, 8), atol=1e-15)
    pool = np.kron(np.kron(np.eye(4), np.full((1, 2), 0.5)), np.kron(np.eye(4), np.full((1, 2), 0.5)))
    low = field.pooled()
    assert low.shape == (1, 4, 4)
    np.testing.assert_allclose(low.covariance(), pool @ field_covariance(8, 8).numpy() @ pool.T, atol=1e-15)
    assert low.covariance()[0, 0] == pytest.approx(0.05640625, abs=1e-12)
    assert low.covariance()[0, 1] == pytest.approx(0.04822734, abs=1e-8)
    np.testing.assert_allclose(low.pooled().covariance(), field.pooled(4).covariance(), atol=1e-15)
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64, generator=torch.manual_seed(0))
    dense = Gaussian(0.5, cov=low.covariance(), shape=(1, 4, 4))
    torch.testing.assert_close(low.at_sigma(x, 0.3), dense.at_sigma(x, 0.3), rtol=1e-9, atol=1e-9)


def test_non_square_field_with_channels():
    field = GaussianField((2, 3, 6), correlation=0.5)
    expected = np.kron(np.eye(2), field_covariance(3, 6, 0.5))
    np.testing.assert_allclose(field.covariance(), expected, atol=1e-15)


def test_score_function_broadcasts_sigma():
    model = ScoreFunction(lambda x, sigma: -x / (1 + sigma**2), [1.0, 0.1], (2, 3, 3))
    x = torch.ones(2, 2, 3, 3)
    expected = torch.tensor([-1 / 1.01, -0.5]).reshape(2, 1, 1, 1).expand_as(x)
    torch.testing.assert_close(model(x, torch.tensor([1, 0])), expected)
    torch.testing.assert_close(model.at_sigma(x, 1.0), torch.full_like(x, -0.5))
    assert len(Gaussian(variance=1.0).sigmas) == 10


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Gaussian(0.0), "give one of the arguments variance and cov"),
        (lambda: Gaussian(0.0, variance=-1.0), "variance must be at least 0, got -1"),
        (lambda: Gaussian([0.0, 0.0], cov=[[1.0, 0.5], [0.0, 1.0]]), "must be a symmetric 2 x 2 matrix"),
        (lambda: Gaussian([0.0, 0.0], cov=[[1.0, 2.0], [2.0, 1.0]]), "positive semi-definite, got the eigenvalue -1"),
        (lambda: Gaussian(0.0, variance=1.0, shape=(3, 3)), r"shape must be \(C, H, W\), got \(3, 3\)"),
        (lambda: Gaussian(0.0, variance=1.0, sigmas=[1, 2]), "argument sigmas: must be strictly decreasing"),
        (lambda: GaussianField(correlation=1.0), r"correlation must be in \[0, 1\), got 1.0"),
        (lambda: GaussianField(variance=0.0), "variance must be positive"),
        (lambda: GaussianField((1, 6, 4)).pooled(4), "factor must divide 6 and 4, got 4"),
        (lambda: GaussianMixture([[0.0]], [1.0, 2.0]), "with K positive weights"),
        (lambda: GaussianMixture([[0.0]], [1.0], form="both"), "form must be 'convolved' or 'replaced', got 'both'"),
        (lambda: GaussianMixture([[0.0]], [1.0], -1.0), "variance must be at least 0"),
        (
            lambda: Gaussian(0.0, variance=1.0).at_sigma(torch.zeros(1, 2, 1, 1), 1.0),
            r"x must have shape \(B, 1, 1, 1\)",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_score_function_needs_a_function():
    with pytest.raises(TypeError, match="argument fn must be callable, got int"):
        ScoreFunction(3, geometric_sigmas(1, 0.1, 2), (1, 1, 1))
