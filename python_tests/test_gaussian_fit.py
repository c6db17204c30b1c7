"""KL divergence through fitted Gaussians: closed forms, its exact bias, and the first table of arXiv:2603.11319."""

import math

import pytest
import torch

from langevin_ext import noise
from langevin_ext.metrics import expected_gaussian_fit_kl, gaussian_fit_kl, gaussian_kl

D, H, STEPS = 50, 0.0025, 1000  # of Table 1
A = (1 - H) ** STEPS
V = A**2 + 2 * H * (1 - A**2) / (1 - (1 - H) ** 2)  # variance of the chain x += h (mu - x) + sqrt(2 h) z from N(0, I)
COV = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)


def isotropic(mean, variance, d=D):
    return torch.full((d,), float(mean), dtype=torch.float64), variance * torch.eye(d, dtype=torch.float64)


def draws(n, law, seed):
    mean, covariance = law
    return mean + noise.normal((n, len(mean)), seed).double() @ torch.linalg.cholesky(covariance).T


def test_pairs_and_samples_give_the_closed_form_both_ways():
    other = (torch.tensor([1.0, -1.0]).double(), torch.eye(2).double())
    law = (torch.zeros(2).double(), COV)
    # tr C = 3, |e|^2 = 2, log det C = log 1.75
    assert gaussian_fit_kl(law, other).forward == pytest.approx((3 + 2 - 2 - math.log(1.75)) / 2, rel=1e-13)
    # C^-1 = [[1, -.5], [-.5, 2]] / 1.75: trace 3 / 1.75, e^T C^-1 e = 4 / 1.75
    assert gaussian_fit_kl(law, other).reverse == pytest.approx((7 / 1.75 - 2 + math.log(1.75)) / 2, rel=1e-13)
    assert gaussian_fit_kl(other, law) == gaussian_fit_kl(law, other)[::-1]
    x = draws(40, law, 1)
    fitted = x.mean(0), torch.cov(x.T)  # n - 1 in the denominator
    assert gaussian_fit_kl(x, other) == pytest.approx(gaussian_fit_kl(fitted, other), rel=1e-12)
    assert gaussian_fit_kl(x.reshape(40, 1, 2, 1), other) == gaussian_fit_kl(x, other)
    assert gaussian_fit_kl(x, other).forward == gaussian_kl(*fitted, *other)
    assert gaussian_fit_kl(x, x) == pytest.approx((0, 0), abs=1e-13)


# Table 1 of arXiv:2603.11319 by its closed form at n = 5000, mean mu = k (1, ..., 1): without sampling error, with it
# for KL(pi || fit), and for KL(fit || pi).
ROWS = {
    1: (0.16721, 0.3034, 0.3004),
    2: (0.66878, 0.8101, 0.8026),
    3: (1.50473, 1.6547, 1.6396),
    4: (2.67505, 2.8371, 2.8113),
    5: (4.17976, 4.3573, 4.3179),
    6: (6.01884, 6.2153, 6.1593),
    7: (8.19231, 8.4112, 8.3355),
}


@pytest.mark.parametrize("k", ROWS)
def test_table_1_by_its_closed_form(k):
    law, target = isotropic((1 - A) * k, V), isotropic(k, 1.0)
    population, reverse, forward = ROWS[k]
    # to the digits given
    assert gaussian_fit_kl(law, target).reverse == pytest.approx(population, abs=6e-6)
    assert expected_gaussian_fit_kl(5000, law, target) == pytest.approx((forward, reverse), abs=6e-5)


@pytest.mark.parametrize("n", [8, 12, 40])
def test_expectation_is_the_mean_over_fits(n):
    law = torch.tensor([0.3, -0.2]).double(), COV
    target = torch.tensor([0.0, 0.4]).double(), torch.tensor([[1.0, -0.3], [-0.3, 1.5]]).double()
    trials = 2000
    x = draws(n * trials, law, seed=n).reshape(trials, n, 2)
    found = torch.tensor([gaussian_fit_kl(fit, target) for fit in x], dtype=torch.float64)
    stderr = found.std(0) / math.sqrt(trials)
    expected = torch.tensor(expected_gaussian_fit_kl(n, law, target), dtype=torch.float64)
    # four standard errors; the divergence of the law itself is far outside, so the bias is seen
    assert ((found.mean(0) - expected).abs() < 4 * stderr).all()
    assert ((found.mean(0) - torch.tensor(gaussian_fit_kl(law, target))).abs() > 8 * stderr).all()


def test_too_few_samples_are_refused():
    target = isotropic(0, 1.0, 3)
    message = r"samples of a must be more than D \+ 2 = 5 for a fit in 3 dimensions, got 5"
    with pytest.raises(ValueError, match=f"gaussian_fit_kl: {message}"):
        gaussian_fit_kl(torch.randn(5, 3, generator=torch.manual_seed(0)), target)
    assert gaussian_fit_kl(torch.randn(6, 3, generator=torch.manual_seed(0)), target).forward > 0
    with pytest.raises(ValueError, match="gaussian_fit_kl: samples of b must be more than"):
        gaussian_fit_kl(target, torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"expected_gaussian_fit_kl: n must be more than D \+ 2 = 5 .*, got 5"):
        expected_gaussian_fit_kl(5, target, target)


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"a must be a tensor of samples or a pair \(mean, covariance\), got str"):
        gaussian_fit_kl("a", isotropic(0, 1.0, 3))
    with pytest.raises(ValueError, match=r"gaussian_kl: shapes must be"):
        gaussian_fit_kl(isotropic(0, 1.0, 2), isotropic(0, 1.0, 3))
    with pytest.raises(ValueError, match="gaussian_kl: covariance1 must be positive definite"):
        gaussian_fit_kl(isotropic(0, 0.0, 2), isotropic(0, 1.0, 2))
    with pytest.raises(ValueError, match="gaussian_statistics: features must be finite"):
        gaussian_fit_kl(torch.full((9, 2), math.nan), isotropic(0, 1.0, 2))


def test_dependent_features_are_refused():
    x = noise.normal((1000, 8), 3)
    with pytest.raises(ValueError, match="none of them constant or a combination of others"):
        gaussian_fit_kl(torch.cat([x, x.sum(1, keepdim=True)], 1), noise.normal((1000, 9), 4))
