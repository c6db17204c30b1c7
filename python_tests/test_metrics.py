"""The Frechet distance against closed forms."""

import math

import numpy as np
import pytest
import torch

from langevin_ext import noise
from langevin_ext.metrics import PixelFeatures, frechet_distance, frechet_samples, gaussian_statistics

A = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 1.0], [2.0, 5.0]])
B = torch.tensor([[1.0, 1.0], [2.0, 2.0], [0.0, 4.0], [5.0, 3.0]])


def random_covariance(size, seed, rank=None):
    factor = noise.normal((size, rank or size + 3), seed).double()
    return factor @ factor.T / size


def test_isotropic():
    # N(0, I3) against N(1, 4 I3): 3 + 3 (1 + 4 - 2 sqrt 4)
    found = frechet_distance(torch.zeros(3), torch.eye(3), torch.ones(3), 4 * torch.eye(3))
    assert found == pytest.approx(6, abs=1e-13)


def test_two_by_two():
    first = [0.0, 1.0], [[2.0, 0.5], [0.5, 1.0]]
    second = [1.0, -1.0], [[1.0, -0.3], [-0.3, 1.5]]
    assert frechet_distance(*first, *second) == pytest.approx(5.463471189606, abs=1e-12)
    assert frechet_distance(*second, *first) == pytest.approx(5.463471189606, abs=1e-12)
    arrays = [np.asarray(value) for value in (*first, *second)]
    assert frechet_distance(*arrays) == pytest.approx(5.463471189606, abs=1e-12)


def test_samples():
    assert frechet_samples(A, B) == pytest.approx(2.198217489917, abs=1e-12)
    images = frechet_samples(A.view(4, 1, 1, 2), B.view(4, 1, 1, 2))
    assert images == frechet_samples(A, B) and images.counts == (4, 4)


def test_statistics():
    mean, covariance = gaussian_statistics(A)
    torch.testing.assert_close(mean, torch.tensor([1.5, 2.0], dtype=torch.float64), rtol=0, atol=1e-15)
    expected = np.cov(A.numpy().T.astype(np.float64), ddof=1)
    torch.testing.assert_close(covariance, torch.from_numpy(expected), rtol=1e-14, atol=0)


def test_commuting_covariances():
    # diagonal: |m1 - m2|^2 + sum (sqrt v - sqrt w)^2
    v, w = torch.linspace(0.1, 3, 20).double(), torch.linspace(2, 0.0, 20).double()
    expected = 20 * 0.25 + (v.sqrt() - w.sqrt()).square().sum().item()
    found = frechet_distance(torch.zeros(20), v.diag(), torch.full((20,), 0.5), w.diag())
    assert found == pytest.approx(expected, rel=1e-13)


def test_invariance_and_axioms():
    rotation, _ = torch.linalg.qr(noise.normal((12, 12), 5).double())
    c1, c2 = random_covariance(12, 1), random_covariance(12, 2)
    m1, m2 = noise.normal((2, 12), 3).double()
    distance = frechet_distance(m1, c1, m2, c2)
    turned = frechet_distance(rotation @ m1, rotation @ c1 @ rotation.T, rotation @ m2, rotation @ c2 @ rotation.T)
    assert turned == pytest.approx(distance, rel=1e-12)
    assert frechet_distance(m1, c1, m1, c1) == pytest.approx(0.0, abs=1e-12)
    assert frechet_distance(3 * m1, 9 * c1, 3 * m2, 9 * c2) == pytest.approx(9 * distance, rel=1e-12)


def test_singular_covariances():
    # ranks 2 and 3 in 30 dimensions: no offset needed, and a distance to itself of 0
    c1, c2 = random_covariance(30, 1, 2), random_covariance(30, 2, 3)
    zero = torch.zeros(30)
    assert frechet_distance(zero, c1, zero, c1) == pytest.approx(0.0, abs=1e-10)
    values = torch.linalg.eigvals(c1 @ c2)  # the definition, without roots of single matrices
    expected = (c1 + c2).trace().item() - 2 * values.real.clamp_min(0).sqrt().sum().item()
    assert frechet_distance(zero, c1, zero, c2) == pytest.approx(expected, rel=1e-6)


def test_bias_of_few_samples():
    # n draws of N(0, I_64) against N(0, I_64) itself: about d/n + d(d+1)/(4n), 1.104 at n = 1000 (1.120 exactly)
    rows = noise.normal((1000, 64), 7)
    found = frechet_distance(*gaussian_statistics(rows), torch.zeros(64), torch.eye(64))
    assert found == pytest.approx(1.120, abs=0.06)


def test_prints_counts_and_features():
    value = frechet_samples(A, B[:3])
    assert str(value) == f"{float(value):.6g} (pixels, 4 against 3 samples)" and f"{value:.3f}" == f"{float(value):.3f}"

    class Doubled:
        name = "doubled pixels"

        def __call__(self, x):
            return 2 * x.flatten(1)

    doubled = frechet_samples(A, B, Doubled())
    assert doubled == pytest.approx(4 * 2.198217489917, abs=1e-11) and "doubled pixels" in str(doubled)


def test_pixel_features():
    images = torch.tensor([[[[-1.0, 0.25], [0.5, 2.0]]]])
    assert torch.equal(PixelFeatures()(images), images.double().flatten(1))
    clipped = PixelFeatures(clip=True)
    assert clipped(images).tolist() == [[0.0, 0.25, 0.5, 1.0]] and clipped.name == "clipped pixels"


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: frechet_distance(torch.zeros(2), torch.eye(3), torch.zeros(2), torch.eye(2)),
            r"frechet_distance: shapes must be \(D,\), \(D, D\), \(D,\), \(D, D\), got \[\(2,\), \(3, 3\)",
        ),
        (lambda: frechet_distance(torch.zeros(0), torch.eye(0), torch.zeros(0), torch.eye(0)), "shapes must be"),
        (
            lambda: frechet_distance(torch.tensor([math.nan, 0]), torch.eye(2), torch.zeros(2), torch.eye(2)),
            "frechet_distance: means must be finite",
        ),
        (
            lambda: frechet_distance(torch.zeros(2), math.inf * torch.ones(2, 2), torch.zeros(2), torch.eye(2)),
            "frechet_distance: covariance1 must be finite and symmetric, got largest entry inf",
        ),
        (
            lambda: frechet_distance(
                torch.zeros(2), torch.eye(2), torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]])
            ),
            "frechet_distance: covariance2 must be finite and symmetric",
        ),
        (
            lambda: frechet_distance(
                torch.zeros(2), torch.diag(torch.tensor([1.0, -1.0])), torch.zeros(2), torch.eye(2)
            ),
            "frechet_distance: covariance1 must be positive semi-definite, got eigenvalue -1",
        ),
        (
            lambda: frechet_samples(A, torch.zeros(3, 5)),
            r"frechet_samples: a and b must have the same features, got \(2,\) and \(5,\)",
        ),
        (
            lambda: gaussian_statistics(A[:1]),
            r"gaussian_statistics: features must be \(n, D\) with n >= 2, got \(1, 2\)",
        ),
        (lambda: gaussian_statistics(torch.zeros(4)), r"gaussian_statistics: features must be \(n, D\)"),
        (
            lambda: gaussian_statistics(torch.where(A > 4, math.nan, A)),
            r"gaussian_statistics: features must be finite, got 1 rows that are not: \[3\]",
        ),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
