"""NCSNv2's techniques 1, 2 and 4 (arXiv:2006.09011): levels and steps from data, against the values of the paper."""

import math

import pytest
import torch

from langevin_ext.data import open_dataset
from langevin_ext.schedules import (
    geometric_sigmas,
    level_variance,
    max_distance,
    overlap,
    suggest_eps,
    suggest_ratio,
    suggest_sigmas,
)

CIFAR, CELEBA = geometric_sigmas(50, 0.01, 232), geometric_sigmas(90, 0.01, 500)  # the released ladders


# --- technique 2 ---
@pytest.mark.parametrize(
    "dim, ratio, spans",
    [
        (784, 1.08197174, {}),
        (3072, 1.03979642, {50 / 0.01: 219.25}),
        (12288, 1.01950999, {90 / 0.01: 472.22, 140 / 0.01: 495.09}),
    ],
)
def test_ratio_of_half_overlap(dim, ratio, spans):
    found = suggest_ratio(dim)
    assert found == pytest.approx(ratio, abs=6e-9)  # the digits known
    assert overlap(dim, found) == pytest.approx(0.5, abs=1e-12)
    for span, levels in spans.items():
        assert 1 + math.log(span) / math.log(found) == pytest.approx(levels, abs=6e-3)


def test_overlap_of_the_released_ladders():
    assert overlap(3072, 1.03755913) == pytest.approx(0.56697, abs=6e-6)
    assert overlap(12288, 1.01841394) == pytest.approx(0.56692, abs=6e-6)
    assert overlap(3072, 1.6681) < 1e-300  # NCSN's ten levels do not overlap at all
    assert overlap(3072, 1.0) == pytest.approx(math.erf(3 / math.sqrt(2)))
    assert 0 < overlap(3072, 1.1) < 1e-3  # small values keep their digits: a difference of two Phi would be 0 or noise


@pytest.mark.parametrize("share", [1e-12, 0.1, 0.9, 0.997])
def test_ratio_inverts_the_overlap(share):
    assert overlap(3072, suggest_ratio(3072, share)) == pytest.approx(share, rel=1e-9)


def test_five_dimensions_are_the_fewest():
    assert overlap(5, suggest_ratio(5)) == pytest.approx(0.5)


@pytest.mark.parametrize("dim", [4, 2.5, True])
def test_ratio_refuses_dimensions(dim):
    with pytest.raises(ValueError, match="suggest_ratio: argument dim must be an integer of at least 5, got"):
        suggest_ratio(dim)


@pytest.mark.parametrize("share", [0, 1, 0.9974, float("nan")])
def test_ratio_refuses_overlaps(share):
    with pytest.raises(ValueError, match=r"suggest_ratio: argument coverage must be in \(0, 0.997\), got"):
        suggest_ratio(3072, share)


# --- technique 1 ---
@pytest.mark.parametrize("chunk", [1, 7, 64, 1024])
def test_largest_distance_is_exact(chunk):
    x = torch.randn(70, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.pdist(x.flatten(1).double()).max().item()
    assert max_distance(x, chunk=chunk) == pytest.approx(expected, rel=1e-12)
    assert max_distance(x[:40]) <= expected  # of a part: a lower bound


def test_largest_distance_far_from_the_origin():
    x = 1e6 + torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]], dtype=torch.float64)
    assert max_distance(x) == pytest.approx(5.0, rel=1e-9)  # |a|^2 + |b|^2 - 2 ab alone would lose it
    assert max_distance(torch.ones(3, 5)) == 0


def test_datasets_count_as_their_images():
    digits = open_dataset("digits", limit=50)
    expected = torch.pdist(digits.images.flatten(1).double() / 255).max().item()
    assert max_distance(digits) == max_distance(digits.images) == pytest.approx(expected, rel=1e-12)
    vectors = open_dataset("rings", limit=50)
    assert max_distance(vectors) == pytest.approx(torch.pdist(vectors.vectors.flatten(1).double()).max().item())


@pytest.mark.parametrize("data", [torch.zeros(1, 5), torch.zeros(5), torch.zeros(3, 0)])
def test_largest_distance_refuses_shapes(data):
    with pytest.raises(ValueError, match="max_distance: argument data must be at least two samples"):
        max_distance(data)


def test_largest_distance_refuses_values():
    with pytest.raises(TypeError, match="max_distance: argument data must be float or uint8, got torch.int64"):
        max_distance(torch.zeros(3, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="max_distance: argument data must be finite"):
        max_distance(torch.tensor([[0.0] * 5, [float("inf")] * 5]))


# --- both ---
def test_ladder_of_cifar_size():
    # two points 50 apart in 3072 dimensions: the paper's ladder, one level more than 219.25 rounded down
    data = torch.zeros(2, 3072)
    data[1, 0] = 50
    sigmas = suggest_sigmas(data)
    assert len(sigmas) == 220 and sigmas[0] == 50 and sigmas[-1] == torch.tensor(0.01)
    assert overlap(3072, (sigmas[0] / sigmas[1]).item()) >= 0.5
    assert len(suggest_sigmas(data, coverage=0.56697)) == pytest.approx(232, abs=1)
    assert torch.equal(suggest_sigmas(data, first=50), sigmas)


def test_ladder_refuses_its_ends():
    with pytest.raises(ValueError, match=r"suggest_sigmas: argument last must be in \(0, 0\), below the largest"):
        suggest_sigmas(torch.ones(3, 8))
    with pytest.raises(
        ValueError, match=r"suggest_sigmas: argument last must be in \(0, 2\), below the largest, got 3"
    ):
        suggest_sigmas(torch.ones(3, 8), 3, first=2)


# --- technique 4 ---
@pytest.mark.parametrize(
    "sigmas, steps, step_lr, paper",
    [(CIFAR, 5, 6.184e-6, 6.2e-6), (CELEBA, 5, 3.337e-6, 3.3e-6), (CIFAR, 1, 7.109e-6, None)],
)
def test_step_of_the_released_ladders(sigmas, steps, step_lr, paper):
    found = suggest_eps(sigmas, steps) / 2
    assert found == pytest.approx(step_lr, abs=6e-10)  # the digits known
    if paper is not None:
        assert found == pytest.approx(paper, rel=0.02)  # two digits are printed
    at = level_variance(sigmas, steps, 2 * found)
    assert all(level_variance(sigmas, steps, 2 * found * factor) > at > 1 for factor in (0.98, 1.02))


def test_variance_of_cifar():
    assert level_variance(CIFAR, 5, 2 * 6.184e-6) == pytest.approx(1.055475, abs=6e-7)
    assert level_variance(CIFAR, 5, 2 * 6.2e-6) == pytest.approx(1.055475, abs=6e-7)


def test_variance_is_that_of_the_chain():
    """The recursion of Langevin dynamics on data in one point, V <- (1 - step_lr/sigma^2)^2 V + 2 step_lr."""
    ratio, sigma, step_lr = 1.5, 0.1, 0.002
    variance = (ratio * sigma) ** 2
    for _ in range(7):
        variance = (1 - step_lr / sigma**2) ** 2 * variance + 2 * step_lr
    found = level_variance(torch.tensor([ratio * sigma, sigma], dtype=torch.float64), 7, 2 * step_lr)
    assert found == pytest.approx(variance / sigma**2, rel=1e-12)


def test_steps_refuse_what_they_cannot_do():
    with pytest.raises(
        ValueError, match="suggest_eps: argument sigmas must be geometric with at least two levels, got"
    ):
        suggest_eps([1.0, 0.5, 0.4], 5)
    with pytest.raises(ValueError, match="suggest_eps: argument sigmas must be geometric .* got one level"):
        suggest_eps([1.0], 5)
    for steps in (0, 1.5, True):
        with pytest.raises(ValueError, match="suggest_eps: argument n_steps_each must be a positive integer, got"):
            suggest_eps(CIFAR, steps)
    with pytest.raises(ValueError, match=r"level_variance: argument eps must be in \(0, 0.0004\), got 0.1"):
        level_variance(CIFAR, 5, 0.1)
