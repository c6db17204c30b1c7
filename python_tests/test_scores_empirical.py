"""The exact score of points plus noise: the gradient of its log density, chunks, bits, draws and the memoriser."""

import math

import pytest
import torch

from langevin_ext import noise, sample
from langevin_ext.scores import Empirical, GaussianMixture, empirical

SIGMAS = torch.tensor([2.0, 0.5, 0.05], dtype=torch.float64)


def points(n, d, seed=1):
    return noise.normal((n, d), seed).double()


def log_density(x, data, v):
    return torch.logsumexp(-(x.flatten(1)[:, None] - data).square().sum(2) / (2 * v), 1)


@pytest.mark.parametrize("d", [1, 3, 64, 65, 100])  # both ways of summing
def test_score_is_the_gradient_of_the_log_density(d):
    data = points(29, d)
    for variance, sigma in ((0.0, 2.0), (0.3, 0.5), (0.0, 0.05)):
        x = (points(5, d, seed=2) / 2).reshape(5, d, 1, 1).requires_grad_()
        (expected,) = torch.autograd.grad(log_density(x, data, variance + sigma**2).sum(), x)
        field = Empirical(data, sigmas=SIGMAS, variance=variance)
        # rounding: |x| eps / v, some 100 of it where distances are expanded
        torch.testing.assert_close(field.at_sigma(x.detach(), sigma), expected, rtol=1e-9, atol=1e-9)


def test_it_is_the_mixture_of_the_points():
    data = points(17, 4)
    field, mixture = Empirical(data, SIGMAS, 0.2), GaussianMixture(data, torch.ones(17), 0.2, SIGMAS)
    x, level = points(6, 4, seed=3).reshape(6, 4, 1, 1), torch.tensor([0, 1, 2, 2, 1, 0])
    torch.testing.assert_close(field(x, level), mixture(x, level), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("d", [3, 80])
def test_chunks_change_nothing_but_rounding(d):
    data, x = points(50, d), points(7, d, seed=2).reshape(7, d, 1, 1)
    # the far start shows the running maximum at work: without it all weights of a chunk would vanish
    x = torch.cat([x, 100 + x])
    for sigma in (2.0, 0.05):
        whole = Empirical(data).at_sigma(x, sigma)
        assert whole.isfinite().all()
        for chunk in (1, 7, 49):
            torch.testing.assert_close(Empirical(data, chunk=chunk).at_sigma(x, sigma), whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("d", [1, 2, 10, 64])
def test_bits_do_not_depend_on_the_batch(d, monkeypatch):
    field, x = Empirical(points(301, d), SIGMAS, chunk=128), points(23, d, seed=2).reshape(23, d, 1, 1)
    level = torch.arange(23) % 3
    together = field(x, level)
    for i in range(23):
        assert torch.equal(together[i], field(x[i : i + 1], level[i : i + 1])[0])
    monkeypatch.setattr(empirical, "BLOCK", 1)
    assert torch.equal(field(x, level), together)
    single = field(x.float(), level)
    assert single.dtype == torch.float32
    assert torch.equal(single, field(x.float().double(), level).float())


def test_images_and_dtypes():
    data = points(12, 12).float()
    images = Empirical(data.reshape(12, 3, 2, 2), SIGMAS)
    assert images.shape == (3, 2, 2)
    assert images.data.dtype == torch.float32
    x = points(4, 12, seed=5)
    rows = Empirical(data, SIGMAS).at_sigma(x.reshape(4, 12, 1, 1), 0.5)
    assert torch.equal(images.at_sigma(x.reshape(4, 3, 2, 2), 0.5).flatten(), rows.flatten())
    assert Empirical(data, shape=(3, 4, 1)).shape == (3, 4, 1)


def test_draws_have_the_law_and_depend_on_the_global_index_alone():
    data = torch.tensor([[0.0], [1.0], [4.0], [5.0]])
    field, n = Empirical(data, variance=0.01), 20_000
    x = field.sample(n, seed=3).flatten()
    assert torch.equal(x[100:110], field.sample(10, seed=3, first=100).flatten())
    nearest = (x[:, None] - data[:, 0]).abs().argmin(1)
    shares = nearest.bincount(minlength=4) / n
    assert ((shares - 0.25).abs() < 4 * math.sqrt(0.1875 / n)).all()
    error = x - data[nearest, 0]
    assert abs(error.var().item() - 0.01) < 4 * 0.01 * math.sqrt(2 / n)
    assert torch.isin(Empirical(data).sample(50).flatten(), data.flatten()).all()


def test_langevin_with_the_memoriser_collapses_onto_the_data():
    # arXiv:2603.11319, section 9: noise level 10 of 1000 (sigma^2 = .0018948), h = .0025, so a = 1 - h / sigma^2 =
    # -.319 and each value has the standard deviation sqrt(2 h / (1 - a^2)) = .07462 about its point; the mean distance
    # in 10 dimensions is that times sqrt(2) Gamma(5.5) / Gamma(5) = .2302. From fresh points as from the points.
    variance, h, n = 1 - 0.9981052048, 0.0025, 60
    data = points(200, 10)
    field = Empirical(data, sigmas=[math.sqrt(variance)])
    spread = math.sqrt(2 * h / (1 - (1 - h / variance) ** 2))
    assert spread == pytest.approx(0.07462, abs=5e-6)
    for start in (data[:n], points(n, 10, seed=7)):
        run = {"n": n, "step_lr": h, "n_steps_each": 300, "denoise": False, "progress": False}
        with pytest.warns(UserWarning, match="every step overshoots"):  # a < 0
            x = sample(field, "langevin", init=start.float().reshape(n, 10, 1, 1), **run)
        distance = torch.cdist(x.flatten(1).double(), data).min(1).values
        # the deviation of a distance is about spread / sqrt(2): that of a chi law with 10 degrees of freedom
        assert abs(distance.mean().item() - 0.2302) < 4 * 0.07462 * 0.7 / math.sqrt(n)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Empirical(torch.zeros(3)), r"data must be \(n, D\) or \(n, C, H, W\), floating and finite"),
        (lambda: Empirical(torch.zeros(0, 3)), r"with at least one point, got torch.float32 \(0, 3\)"),
        (lambda: Empirical(torch.zeros(2, 3, dtype=torch.uint8)), r"got torch.uint8 \(2, 3\)"),
        (lambda: Empirical(torch.full((2, 3), math.nan)), "floating and finite"),
        (lambda: Empirical(torch.zeros(2, 3), variance=-1.0), "variance must be at least 0, got -1"),
        (lambda: Empirical(torch.zeros(2, 3), chunk=0), "chunk must be a positive integer, got 0"),
        (lambda: Empirical(torch.zeros(2, 3), shape=(1, 2, 2)), r"shape must hold the 3 values of a point, got \(1, 2"),
        (lambda: Empirical(torch.zeros(2, 3), sigmas=[1, 2]), "argument sigmas: must be strictly decreasing"),
        (lambda: Empirical(torch.zeros(2, 3)).at_sigma(torch.zeros(1, 2, 1, 1), 1.0), r"x must have shape \(B, 3"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=f"Empirical: .*{message}"):
        make()
