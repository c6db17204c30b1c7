"""Inpainting, Algorithm 2 of NCSN (arXiv:1907.05600), against its exact law and against itself written out."""

import math

import numpy as np
import pytest
import torch
from sampling_helpers import follow, gaussian_law, geometric

from langevin_ext import noise
from langevin_ext.sampling import plan, sample
from langevin_ext.schedules import step_sizes
from langevin_ext.scores import Gaussian, GaussianField

# Data N((.5, .5), .0625 [[1, .8], [.8, 1]]), the second coordinate known to be .9; ten levels, T = 100, U(0, 1).
COV = 0.0625 * np.array([[1, 0.8], [0.8, 1]])
KNOWN, MASK = np.array([0.0, 0.9]), np.array([False, True])
PAIR = {"known": torch.tensor(KNOWN).reshape(2, 1, 1), "mask": torch.tensor(MASK).reshape(2, 1, 1)}


def pair(sigmas=None):
    return Gaussian([0.5, 0.5], cov=COV, sigmas=geometric(1, 0.01, 10) if sigmas is None else sigmas)


@pytest.mark.parametrize(
    "order, step, mean, variance",
    [
        ("paper", {"eps": 2e-5}, 0.80610449, 0.0252234029),
        ("refresh", {"eps": 2e-5}, 0.80610449, 0.0252210627),
        ("paper", {"step_lr": 2e-5}, 0.81306648, 0.0239368042),
        ("refresh", {"step_lr": 2e-5}, 0.81306648, 0.0239355442),
    ],
)
def test_law_of_two_pixels(order, step, mean, variance):
    rows = plan(pair(), inpaint_order=order, denoise=False, **PAIR, **step).stages[0].rows
    m, v = gaussian_law(rows, np.full(2, 0.5), COV, KNOWN, MASK)
    assert m[0] == pytest.approx(mean, abs=5e-9 if order == "paper" else 1e-5)
    assert v[0, 0] == pytest.approx(variance, abs=5e-11)
    assert v[1, 1] == pytest.approx(1e-4, rel=1e-12) and m[1] == 0.9
    if order == "paper" and "eps" in step:
        assert v[0, 1] == pytest.approx(3.4146e-6, abs=5e-11)


def test_law_of_two_pixels_monte_carlo():
    n = 20_000  # separates the conventions: means .8061 and .8131, standard error .0011
    x = sample(pair(), n=n, seed=6, batch_size=n, denoise=False, progress=False, **PAIR).double().flatten(1)
    assert abs(x[:, 0].mean() - 0.80610449) < 4 * math.sqrt(0.0252234 / n)
    assert abs(x[:, 0].var() - 0.0252234029) < 4 * 0.0252234 * math.sqrt(2 / n)
    assert abs(x[:, 1].mean() - 0.9) < 4 * 0.01 / math.sqrt(n)
    assert abs(x[:, 1].var() - 1e-4) < 4e-4 * math.sqrt(2 / n)


def test_law_of_a_4x4_image():
    # .0625 * .9^distance, left half known; the finite T leaves the mean visibly off the posterior's.
    field = GaussianField((1, 4, 4), sigmas=geometric(1, 0.01, 10))
    mask = np.tile([True, True, False, False], 4)
    known = np.zeros(16)
    known[mask] = np.linspace(0.2, 0.9, 8)
    rows = (
        plan(field, known=torch.tensor(known).reshape(1, 4, 4), mask=torch.tensor(mask).reshape(1, 4, 4), denoise=False)
        .stages[0]
        .rows
    )
    m, v = gaussian_law(rows, np.full(16, 0.5), field.covariance().numpy(), known, mask)
    expected = [0.315095, 0.331806, 0.490435, 0.487591, 0.666251, 0.643786, 0.841278, 0.799371]
    np.testing.assert_allclose(m[~mask], expected, rtol=0, atol=5e-7)
    assert np.trace(v[np.ix_(~mask, ~mask)]) == pytest.approx(0.15383523, abs=5e-9)


@pytest.mark.parametrize("order", ["paper", "refresh"])
@pytest.mark.parametrize("denoise", [False, True])
def test_inpainting_follows_the_algorithm_step_by_step(order, denoise):
    """Algorithm 2 written out on its own, float64, same noise, a mask and known pixels for each sample."""
    sigmas, eps = torch.tensor([0.5, 0.25, 0.125], dtype=torch.float64), 1e-2  # float32 holds them exactly
    field = GaussianField((1, 2, 3), sigmas=sigmas)
    cov = field.covariance()

    def score(x, i):
        return -(x - 0.5) @ torch.linalg.inv(cov + sigmas[i] ** 2 * torch.eye(6, dtype=torch.float64))

    generator = torch.manual_seed(0)
    start, known = (torch.rand(4, 1, 2, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    mask = torch.rand(4, 1, 2, 3, generator=generator) < 0.5
    levels = [(s, a, 5) for s, a in zip(sigmas.tolist(), step_sizes(sigmas, eps).tolist(), strict=True)]
    x = sample(
        field,
        n=4,
        seed=9,
        first=2,
        batch_size=3,
        eps=eps,
        n_steps_each=5,
        init=start,
        known=known,
        mask=mask,
        denoise=denoise,
        inpaint_order=order,
        dtype=torch.float64,
        progress=False,
    )
    expected = follow(
        score,
        levels,
        start.flatten(1),
        seed=9,
        first=2,
        known=known.flatten(1),
        mask=mask.flatten(1),
        order=order,
        denoise=2 if denoise else None,
    )
    torch.testing.assert_close(x.flatten(1), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scheme", ["annealed", "langevin"])
def test_everything_known_returns_known_plus_noise(scheme):
    field = GaussianField((2, 3, 4))
    known = torch.rand(2, 3, 4, generator=torch.manual_seed(3))
    for denoise in (False, True):
        x = sample(
            field,
            scheme,
            n=3,
            seed=7,
            first=5,
            n_steps_each=4,
            known=known,
            mask=torch.ones(2, 3, 4),
            denoise=denoise,
            progress=False,
        )
        level = 9 if scheme == "annealed" else 0
        z = noise.normal((3, 2, 3, 4), 7, step=level, first=5, stream=noise.INPAINT)
        torch.testing.assert_close(x, known + 0.01 * z, rtol=0, atol=1e-7)


@pytest.mark.parametrize("order", ["paper", "refresh"])
def test_nothing_known_is_plain_annealed_bit_for_bit(order):
    field = GaussianField((2, 3, 4))
    settings = {"n": 5, "seed": 7, "n_steps_each": 4, "batch_size": 2, "progress": False}
    x = sample(
        field, known=torch.rand(2, 3, 4), mask=torch.zeros(2, 3, 4, dtype=torch.bool), inpaint_order=order, **settings
    )
    assert torch.equal(x, sample(field, **settings))


def test_shapes_of_known_and_mask_mean_the_same():
    field = GaussianField((2, 3, 4))
    known = torch.rand(1, 3, 4, generator=torch.manual_seed(3))
    mask = torch.rand(1, 3, 4, generator=torch.manual_seed(4)) < 0.5
    settings = {"n": 5, "seed": 7, "n_steps_each": 2, "progress": False}
    x = sample(field, known=known, mask=mask, **settings)
    full_known, full_mask = known.expand(2, 3, 4), mask.expand(2, 3, 4).float()
    assert torch.equal(x, sample(field, known=full_known, mask=full_mask, batch_size=2, **settings))
    each_known, each_mask = full_known.expand(5, 2, 3, 4), full_mask.expand(5, 2, 3, 4)
    assert torch.equal(x, sample(field, known=each_known, mask=each_mask, batch_size=2, **settings))
    assert torch.equal(x, sample(field, known=each_known, mask=mask, batch_size=3, **settings))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"known": torch.zeros(1, 2, 2)}, "known and mask go together, got known alone"),
        ({"mask": torch.zeros(1, 2, 2)}, "known and mask go together, got mask alone"),
        ({"known": torch.zeros(2, 2, 2), "mask": torch.zeros(1, 2, 2)}, r"known must have shape \(1, 2, 2\)"),
        ({"known": torch.zeros(1, 2, 2), "mask": torch.zeros(4, 1, 2, 2)}, r"mask must have shape .*\(4, 1, 2, 2\)"),
        ({"known": torch.zeros(1, 2, 2), "mask": torch.full((1, 2, 2), 0.5)}, "mask must be bool or hold only 0 and 1"),
        ({"known": torch.full((1, 2, 2), math.nan), "mask": torch.ones(1, 2, 2)}, "known must be finite"),
        (
            {"known": torch.zeros(1, 2, 2), "mask": torch.ones(1, 2, 2), "inpaint_order": "never"},
            "inpaint_order must be one of paper, refresh, got 'never'",
        ),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample(GaussianField((1, 2, 2)), n=3, progress=False, **arguments)
