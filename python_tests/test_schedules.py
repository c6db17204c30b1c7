"""Noise ladders and step sizes."""

import warnings

import numpy as np
import pytest
import torch

from langevin_ext import schedules
from langevin_ext.schedules import check_eps, check_sigmas, geometric_sigmas, resolve_eps, step_sizes


def test_geometric_sigmas_are_the_exact_sequence():
    # Block et al.'s printed list is this one, rounded (NCSN's ten levels).
    expected = [1, 0.59948425, 0.35938137, 0.21544347, 0.12915497, 0.07742637, 0.04641589, 0.02782559, 0.01668101, 0.01]
    sigmas = geometric_sigmas(1, 0.01, 10)
    assert sigmas.dtype == torch.float32 and sigmas.shape == (10,)
    np.testing.assert_allclose(sigmas, expected, atol=5e-9 + 3e-8)  # the digits printed, and float32
    assert sigmas[0] == 1 and sigmas[-1] == torch.tensor(0.01)
    assert geometric_sigmas(0.01, 0.01, 1).tolist() == torch.tensor([0.01]).tolist()
    assert (geometric_sigmas(50, 0.01, 232).diff() < 0).all()


@pytest.mark.parametrize("first, last, n", [(1, 2, 3), (1, 0, 3), (1, 1, 2), (1, 0.5, 1), (float("inf"), 1, 2)])
def test_geometric_sigmas_refuses_ends(first, last, n):
    with pytest.raises(ValueError, match="geometric_sigmas: arguments first, last must be finite with first"):
        geometric_sigmas(first, last, n)


@pytest.mark.parametrize("n", [0, -1, 2.5, True])
def test_geometric_sigmas_refuses_counts(n):
    with pytest.raises(ValueError, match="geometric_sigmas: argument n must be a positive integer"):
        geometric_sigmas(1, 0.01, n)


def test_step_sizes_of_ncsn():
    # Algorithm 1 with eps = 2e-5: all levels have step / (2 sigma^2) = 0.1.
    expected = [
        0.2,
        0.0718763,
        0.0258310,
        0.00928318,
        0.00333620,
        0.00119897,
        0.000430887,
        0.000154853,
        0.0000556512,
        0.00002,
    ]
    sigmas = geometric_sigmas(1, 0.01, 10)
    np.testing.assert_allclose(step_sizes(sigmas, 2e-5), expected, rtol=2e-6)
    np.testing.assert_allclose(step_sizes(sigmas, 2e-5) / (2 * sigmas.double() ** 2), 0.1, rtol=1e-6)
    # Only two levels run, step counted from the last of those: the literal reading of Block et al., Algorithm 2.
    assert step_sizes(sigmas, 2e-5, sigma_ref=sigmas[1])[1] == pytest.approx(2e-5)


def test_eps_and_step_lr_are_one_rule():
    assert resolve_eps() == 2e-5
    assert resolve_eps(step_lr=2e-5) == resolve_eps(eps=4e-5) == schedules.eps_from_step_lr(2e-5) == 4e-5
    assert schedules.step_lr_from_eps(4e-5) == 2e-5


def test_resolve_eps_refuses():
    with pytest.raises(ValueError, match=r"eps and step_lr are two conventions of one step \(eps = 2 step_lr\)"):
        resolve_eps(1e-5, 1e-5)
    for bad in (0, -1, float("nan"), float("inf"), "fast"):
        with pytest.raises(ValueError, match="argument step_lr must be a positive number, got"):
            resolve_eps(step_lr=bad)


def test_check_eps_names_the_limit():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_eps(2e-4, 0.01)
    with pytest.warns(UserWarning, match="eps=0.00021 is above 2 sigma.2 = 0.0002 for sigma = 0.01"):
        check_eps(2.1e-4, 0.01)
    with pytest.raises(ValueError, match=r"below 4 sigma\^2 = 0.0004 \(step_lr below 0.0002\) for sigma = 0.01"):
        check_eps(4.0001e-4, 0.01)
    with pytest.raises(ValueError, match="got eps=0.1"):  # figure 3 of NCSN as printed
        check_eps(0.1, 0.1)


@pytest.mark.parametrize(
    "sigmas, message",
    [
        ([[1.0]], "one-dimensional"),
        ([], "at least one level"),
        ([1, float("nan")], "finite and positive"),
        ([1, 0], "finite and positive"),
        ([1, 1], "strictly decreasing, got 1 then 1 at index 1"),
        ([1, 2], "strictly decreasing"),
    ],
)
def test_check_sigmas_refuses(sigmas, message):
    with pytest.raises(ValueError, match=f"^sigmas: must be .*{message}"):
        check_sigmas(sigmas)


def test_check_sigmas_returns_floats():
    assert check_sigmas(np.array([2.0, 1.0])) == [2.0, 1.0]
