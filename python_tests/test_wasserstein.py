"""Transport distances against the numbers of arXiv:2603.11319's convention, and their floor between equal laws."""

import pytest
import torch

from langevin_ext import noise
from langevin_ext.metrics import sinkhorn, wasserstein

X = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
Y = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 1.0]])


def geomloss(a, b, blur, **options):
    """Half the squared distance with reg = 2 blur^2: the cost |x - y|^2 / 2 with eps = blur^2, debiased."""
    return sinkhorn(a, b, 2 * blur**2, **options) ** 2 / 2


def test_a_case_by_hand():
    assert wasserstein(X, Y) ** 2 == pytest.approx(4 / 3, rel=1e-12)
    # two plans cost the same, for which the updates are slow: within the default tolerance of 1e-4
    assert geomloss(X, Y, 0.01) == pytest.approx(0.6666667, abs=1e-4)
    # the fixed point, from 20,000 plain updates; geomloss's few updates with scaling .5 end at .3870960, within its 1 %
    assert geomloss(X, Y, 1.0, tolerance=1e-12) == pytest.approx(0.38774578256, abs=1e-10)
    assert geomloss(X, Y, 1.0) == pytest.approx(0.3870960, rel=0.01)


@pytest.mark.parametrize("d, floor, known_to", [(2, 0.067, 0.009), (10, 4.92, 0.12), (50, 60.69, 0.46)])
def test_floor_between_two_sets_of_one_law(d, floor, known_to):
    # W2^2 of two sets of 500 points from N(0, I): what a distance of 500 points means must be read beside it. The
    # spread is that between pairs of sets.
    found = wasserstein(noise.normal((500, d), 1), noise.normal((500, d), 2)) ** 2
    assert abs(found - floor) < 4 * known_to


def test_a_small_blur_is_half_the_exact_cost_of_far_points():
    a, b = noise.normal((60, 50), 3), noise.normal((60, 50), 4)  # some 10 apart: a hundredth of that as blur
    assert geomloss(a, b, 0.5) == pytest.approx(wasserstein(a, b) ** 2 / 2, rel=0.01)
    assert geomloss(a, b, 3.0) != pytest.approx(wasserstein(a, b) ** 2 / 2, rel=0.03)
