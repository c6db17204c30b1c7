"""Consistent annealed sampling (arXiv:2009.05475) against the variances it must have, level by level."""

import math

import pytest
from sampling_helpers import geometric, variances

from langevin_ext.sampling import plan, sample
from langevin_ext.scores import Gaussian

LADDER = geometric(1, 0.01, 10)
CIFAR = geometric(50, 0.01, 232)


def rows(sigmas, **options):
    model = Gaussian(0.0, variance=0.0, sigmas=sigmas, shape=(1, 1, 1))
    return plan(model, "consistent", **options).stages[1].rows


def test_the_noise_left_is_that_of_the_next_level():
    after = variances(rows(LADDER, eta=0.6, denoise=False), 0.0, 1.0)
    following = (LADDER[1:] ** 2).tolist()
    assert after[:-1] == pytest.approx(following, rel=1e-12)
    assert after[:2] == pytest.approx([0.3593813664, 0.1291549665], rel=1e-9)
    assert after[-1] == pytest.approx(0.4**2 * 1e-4, rel=1e-12)


def test_data_with_width_come_out_too_narrow():
    assert variances(rows(LADDER, eta=0.6, denoise=False), 0.0625, 1.0625)[-1] == pytest.approx(0.040880907, rel=1e-7)
    assert variances(rows(LADDER, eta=0.6), 0.0625, 1.0625)[-1] == pytest.approx(0.040828630, rel=1e-7)


@pytest.mark.parametrize(
    "width, denoise, expected", [(0.0, False, 8.91136e-5), (0.0625, False, 0.0608193945), (0.0625, True, 0.0606360867)]
)
def test_the_ladder_of_cifar(width, denoise, expected):
    after = variances(rows(CIFAR, eta=0.056, denoise=denoise), width, width + 2500)
    assert after[-1] == pytest.approx(expected, rel=5e-6 if width == 0 else 1e-8)


def test_the_default_is_ancestral_sampling():
    """x + (s_i^2 - s_{i+1}^2) score + sqrt(s_{i+1}^2 (s_i^2 - s_{i+1}^2) / s_i^2) z (arXiv:2011.13456, equation 47)."""
    for row, sigma, after in zip(rows(LADDER, denoise=False), LADDER, LADDER[1:], strict=False):
        difference = (sigma**2 - after**2).item()
        assert row.score_coef == pytest.approx(difference, rel=1e-12)
        assert row.noise_coef == pytest.approx((after / sigma).item() * math.sqrt(difference), rel=1e-9)


def test_monte_carlo():
    model = Gaussian(0.5, variance=0.0625, sigmas=LADDER, shape=(64, 1, 1))
    init = model.sample(2000, seed=9)
    x = sample(model, "consistent", 2000, eta=0.6, denoise=False, init=init, progress=False).double()
    assert abs(x.var() - 0.040880907) < 4 * 0.040880907 * math.sqrt(2 / x.numel())
    assert abs(x.mean() - 0.5) < 4 * math.sqrt(0.0409 / x.numel())


@pytest.mark.parametrize("eta", [0.4, 1.6, "a", True])
def test_steps_out_of_range(eta):
    with pytest.raises(ValueError, match=r"consistent: option eta must be a number in .* = \[0.400516, 1.59948\], got"):
        rows(LADDER, eta=eta)


def test_bounds_of_the_step_of_cifar():
    for step, inside in ((3.7e-6, True), (3.5e-6, False), (1.962e-4, True), (1.966e-4, False)):
        if inside:
            rows(CIFAR, eta=step / 1e-4)
        else:
            with pytest.raises(ValueError, match="option eta must be"):
                rows(CIFAR, eta=step / 1e-4)


def test_ladders_that_do_not_fit():
    with pytest.raises(ValueError, match="consistent: argument model must have noise levels of a constant ratio"):
        rows([1.0, 0.5, 0.1])
    with pytest.raises(ValueError, match="consistent: argument model must have at least two noise levels, got 1"):
        rows([1.0])
