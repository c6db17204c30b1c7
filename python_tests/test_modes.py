"""Mode fractions and their standard errors."""

import math

import pytest
import torch

from langevin_ext.metrics import mode_fractions, modes
from langevin_ext.scores import GaussianMixture

MEANS = torch.tensor([[-5.0, -5.0], [5.0, 5.0]])


def test_counts_fractions_and_errors_of_a_case_by_hand():
    samples = torch.tensor([[-4.0, -5.0], [5.0, 4.0], [9.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    found = mode_fractions(samples, MEANS)
    assert found.counts.tolist() == [2, 3]  # the last is as far from both: the lower index
    assert found.fractions.tolist() == [0.4, 0.6]
    assert found.stderr.tolist() == pytest.approx([math.sqrt(0.24 / 5)] * 2, rel=1e-15)
    assert mode_fractions(samples[:1], MEANS).stderr.tolist() == [0, 0]
    assert mode_fractions(samples.reshape(5, 2, 1, 1), MEANS.reshape(2, 1, 1, 2)).counts.tolist() == [2, 3]


def test_weights_of_a_mixture_and_the_error_of_their_estimates():
    # .2 N((-5,-5), I) + .8 N((5,5), I); 1280 samples, the toy figure's number, have a standard error of .0115 near .79
    mixture = GaussianMixture(MEANS, [0.2, 0.8])
    found = mode_fractions(mixture.sample(1280, seed=1), MEANS)
    assert abs(found.fractions[1] - 0.8) < 4 * found.stderr[1]
    assert found.stderr[1].item() == pytest.approx(0.0115, abs=6e-4)
    # the stated error is the spread of the estimate: 200 estimates tell it to 5 %, at four errors 20 %
    parts = mixture.sample(200 * 100, seed=2).reshape(200, 100, 2)
    estimates = torch.stack([mode_fractions(part, MEANS).fractions[1] for part in parts])
    assert estimates.std().item() == pytest.approx(math.sqrt(0.16 / 100), rel=0.2)


def test_chunks_change_nothing(monkeypatch):
    samples = GaussianMixture(MEANS, [0.3, 0.7]).sample(101)
    whole = mode_fractions(samples, MEANS).counts
    monkeypatch.setattr(modes, "CHUNK", 14)
    assert torch.equal(mode_fractions(samples, MEANS).counts, whole)


@pytest.mark.parametrize(
    "samples, means, message",
    [
        (torch.zeros(3), MEANS, r"must be \(n, D\) and \(K, D\), not empty, got \(3,\) and \(2, 2\)"),
        (torch.zeros(0, 2), MEANS, r"not empty, got \(0, 2\)"),
        (torch.zeros(3, 3), MEANS, r"points of one size, got \(3, 3\) and \(2, 2\)"),
        (torch.full((3, 2), math.nan), MEANS, "must be finite"),
    ],
)
def test_errors(samples, means, message):
    with pytest.raises(ValueError, match=f"mode_fractions: .*{message}"):
        mode_fractions(samples, means)
