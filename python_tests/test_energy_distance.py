"""The energy distance against sums by hand, scipy's in one dimension, and its unbiasedness."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from langevin_ext import noise
from langevin_ext.metrics import energy_distance


def test_a_case_by_hand():
    a, b = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 4.0], [3.0, 0.0], [0.0, 0.0]])
    across = (4 + 3 + 0 + 3 + 4 + 5) / 6  # |a_i - b_j|
    within_a, within_b = 2 * 5, 2 * (5 + 4 + 3)  # sums over i != j
    assert energy_distance(a, b) == pytest.approx(2 * across - within_a / 4 - within_b / 9, rel=1e-14)
    assert energy_distance(a, b, unbiased=True) == pytest.approx(2 * across - within_a / 2 - within_b / 6, rel=1e-14)
    assert energy_distance(b, a) == pytest.approx(energy_distance(a, b), rel=1e-14)
    assert energy_distance(a, a) == 0


def test_scipy_in_one_dimension_is_the_square_root_of_the_v_statistic():
    a, b = noise.normal((60, 1), 1).double(), 0.5 + 2 * noise.normal((45, 1), 2).double()
    expected = stats.energy_distance(a[:, 0].numpy(), b[:, 0].numpy()) ** 2
    assert energy_distance(a, b) == pytest.approx(expected, rel=1e-10)


def test_chunks_and_shapes_change_nothing():
    a, b = noise.normal((37, 6), 3), noise.normal((23, 6), 4)
    whole = energy_distance(a, b)
    for chunk in (1, 5, 36, 1000):
        assert energy_distance(a, b, chunk=chunk) == pytest.approx(whole, rel=1e-13)
    assert energy_distance(a.reshape(37, 1, 2, 3), b.reshape(23, 6, 1, 1)) == whole
    assert energy_distance(torch.arange(12).reshape(6, 2), torch.arange(12).reshape(6, 2)) == 0


def test_u_statistic_is_unbiased_and_v_statistic_is_too_large_by_its_diagonal():
    trials, n, m = 600, 12, 9
    x = noise.normal((trials, n), 5).double()[..., None]
    y = 1 + noise.normal((trials, m), 6).double()[..., None]
    u = np.array([energy_distance(a, b, unbiased=True) for a, b in zip(x, y, strict=True)])
    v = np.array([energy_distance(a, b) for a, b in zip(x, y, strict=True)])
    # E|N(s, 2)| = sqrt(2) [sqrt(2 / pi) exp(-s^2 / 4) + (s / sqrt 2) erf(s / 2)]
    inner = 2 / math.sqrt(math.pi)
    across = 2 / math.sqrt(math.pi) * math.exp(-0.25) + math.erf(0.5)
    exact = 2 * across - 2 * inner
    for values, expected in ((u, exact), (v, exact + inner / n + inner / m)):
        assert abs(values.mean() - expected) < 4 * values.std() / math.sqrt(trials)
    assert (v >= 0).all()
    assert v.mean() - exact > 8 * v.std() / math.sqrt(trials)  # the two statistics are told apart


@pytest.mark.parametrize(
    "arguments, options, message",
    [
        ((torch.zeros(3), torch.zeros(3)), {}, r"must be finite \(n, D\) or \(n, C, H, W\) points, got shape \(3,\)"),
        ((torch.zeros(0, 2), torch.zeros(3, 2)), {}, r"got shape \(0, 2\)"),
        ((torch.full((2, 2), math.inf), torch.zeros(3, 2)), {}, "must be finite"),
        ((torch.zeros(3, 2), torch.zeros(3, 1)), {}, r"with at least 1 points each, got \(3, 2\) and \(3, 1\)"),
        ((torch.zeros(1, 2), torch.zeros(3, 2)), {"unbiased": True}, r"with at least 2 points each, got \(1, 2\)"),
        ((torch.zeros(3, 2), torch.zeros(3, 2)), {"chunk": 0}, "chunk must be a positive integer, got 0"),
        ((torch.zeros(3, 2), torch.zeros(3, 2)), {"chunk": 2.0}, "chunk must be a positive integer, got 2.0"),
    ],
)
def test_errors(arguments, options, message):
    with pytest.raises(ValueError, match=f"energy_distance: .*{message}"):
        energy_distance(*arguments, **options)
