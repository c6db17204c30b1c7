"""Denoising score matching against closed forms (NCSN, arXiv:1907.05600, eq. 5 and 6)."""

import pytest
import torch

from langevin_ext import losses, noise, scores
from langevin_ext.schedules import geometric_sigmas

SIGMAS = geometric_sigmas(1, 0.01, 10)


class Score:
    """A score function for the tests: fn(x, sigma) with sigma (B, 1, 1, 1)."""

    def __init__(self, fn, sigmas=SIGMAS):
        self.fn, self.sigmas = fn, torch.as_tensor(sigmas)

    def __call__(self, x, level):
        return self.fn(x, self.sigmas.to(x.dtype)[level].view(-1, 1, 1, 1))


def every_level(model, x, **options):
    """Mean loss and its standard error at each level, from fresh noise per level."""
    table = []
    for index in range(len(model.sigmas)):
        level = torch.full((len(x),), index)
        loss = losses.dsm(model, x, level, seed=3, step=index, **options).double()
        table.append((loss.mean().item(), loss.std().item() / len(x) ** 0.5))
    return torch.tensor(table, dtype=torch.float64).T


def gaussian(shape, seed=11):
    return 0.5 + 0.25 * noise.normal(shape, seed, stream=noise.INIT)


def test_worked_example():
    # x = [[1,-1],[.5,0]], z = [[.5,2],[-1,1]], sigma = (.5, 2), s = -x/(1+sigma^2): (2, .1), unweighted (8, .025)
    x = torch.tensor([[1.0, -1.0], [0.5, 0.0]]).view(2, 2, 1, 1)
    wanted = torch.tensor([[0.5, 2.0], [-1.0, 1.0]]).view(2, 2, 1, 1)
    drawn = noise.normal(x.shape, 5, step=9, stream=noise.DSM)
    sigma = torch.tensor([0.5, 2.0]).view(2, 1, 1, 1)
    # moves the drawn noise to the wanted one: the network sees x + sigma wanted and its residual has the wanted noise
    shift = wanted - drawn
    level = torch.tensor([1, 0])
    model = Score(lambda y, s: -(y + s * shift) / (1 + s**2) + shift / s, [2.0, 0.5])
    torch.testing.assert_close(losses.dsm(model, x, level, seed=5, step=9), torch.tensor([2.0, 0.1]))
    unweighted = losses.dsm(model, x, level, seed=5, step=9, anneal_power=0.0)
    torch.testing.assert_close(unweighted, torch.tensor([8.0, 0.025]))
    assert losses.dsm(model, x, level, seed=5, step=9).mean().item() == pytest.approx(1.05, abs=1e-6)
    # the same value, straight from the definition with the drawn noise
    seen = x + sigma * drawn
    score = -seen / (1 + sigma**2)
    plain = Score(lambda y, s: -y / (1 + s**2), [2.0, 0.5])
    direct = (0.5 * sigma**2 * (score + drawn / sigma) ** 2).flatten(1).sum(1)
    torch.testing.assert_close(losses.dsm(plain, x, level, seed=5, step=9), direct)
    cubed = (0.5 * sigma**3 * (score + drawn / sigma) ** 2).flatten(1).sum(1)
    torch.testing.assert_close(losses.dsm(plain, x, level, seed=5, step=9, anneal_power=3.0), cubed)


def test_optimum_per_level_one_dimension():
    expected = torch.tensor(
        [0.029412, 0.074073, 0.163053, 0.286919, 0.394665, 0.456239, 0.483339, 0.493882, 0.497784, 0.499201]
    )
    exact = Score(lambda x, s: -(x - 0.5) / (0.0625 + s**2))
    mean, error = every_level(exact, gaussian((40_000, 1, 1, 1)))
    assert ((mean - expected).abs() < 4 * error + 1e-6).all(), (mean, expected)
    assert mean.mean().item() == pytest.approx(0.33785665, abs=4 * error.square().sum().sqrt().item() / 10)
    closed = 0.5 * 0.0625 / (0.0625 + SIGMAS.double() ** 2)
    torch.testing.assert_close(closed.float(), expected, atol=1e-6, rtol=0)


def test_optimum_large_images():
    exact = Score(lambda x, s: -(x - 0.5) / (0.0625 + s**2))
    x = gaussian((64, 3, 32, 32))
    mean, error = every_level(exact, x)
    assert mean.mean().item() == pytest.approx(1037.89564, abs=4 * error.square().sum().sqrt().item() / 10)
    mean, error = every_level(Score(lambda x, s: torch.zeros_like(x), [1.0, 0.01]), x)
    assert ((mean - 1536).abs() < 4 * error).all()  # D/2


def test_optimum_per_level_correlated_field():
    expected = torch.tensor(
        [1.016825, 1.925358, 3.437405, 5.742365, 8.847404, 12.633031, 17.015482, 21.715784, 26.029298, 29.123109],
        dtype=torch.float64,
    )
    place = torch.arange(8.0, dtype=torch.float64)
    rho = 0.9 ** (place[:, None] - place).abs()
    covariance = 0.0625 * torch.kron(rho, rho)
    roots = {float(s): torch.linalg.inv(covariance + float(s) ** 2 * torch.eye(64)) for s in SIGMAS}
    exact = Score(lambda x, s: -((x - 0.5).flatten(1) @ roots[s[0].item()].float()).view_as(x))
    normals = noise.normal((4000, 64), 17, stream=noise.INIT).double()
    x = (0.5 + normals @ torch.linalg.cholesky(covariance).T).float().view(-1, 1, 8, 8)
    mean, error = every_level(exact, x)
    assert ((mean - expected).abs() < 4 * error).all(), (mean, expected)
    assert mean.mean().item() == pytest.approx(12.74860603, abs=4 * error.square().sum().sqrt().item() / 10)


def test_mixture_optimum():
    # .8/.2 at +-5, variance 1: optimal weighted losses at sigma = 10, 3, 1
    mixture = scores.GaussianMixture([[5.0], [-5.0]], [0.8, 0.2], 1.0, sigmas=torch.tensor([10.0, 3.0, 1.0]))
    normals = noise.normal((40_000, 1, 1, 1), 23, stream=noise.INIT)
    side = torch.where(noise.uniform((40_000, 1, 1, 1), 23, step=1, stream=noise.INIT) < 0.8, 5.0, -5.0)
    mean, error = every_level(mixture, normals + side)
    expected = torch.tensor([0.07134825, 0.19349796, 0.25154697], dtype=torch.float64)
    assert ((mean - expected).abs() < 4 * error).all(), (mean, expected)


def test_linear_score_and_distance_to_implicit_loss():
    # s = -2.5 (x - m): weighted .25446630, unweighted 1.97024018, implicit -1.90107823, difference 1/(2 sigma^2)
    sigma = 0.35938137
    x = gaussian((100_000, 1, 1, 1))
    model = Score(lambda y, s: -2.5 * (y - 0.5), [sigma])
    level = torch.zeros(len(x), dtype=torch.int64)
    weighted = losses.dsm(model, x, level, seed=3, step=0).double()
    unweighted = losses.dsm(model, x, level, seed=3, step=0, anneal_power=0.0).double()
    assert weighted.mean().item() == pytest.approx(0.25446630, abs=4 * weighted.std().item() / len(x) ** 0.5)
    assert unweighted.mean().item() == pytest.approx(1.97024018, abs=4 * unweighted.std().item() / len(x) ** 0.5)
    seen = x + sigma * noise.normal(x.shape, 3, stream=noise.DSM)
    implicit = -2.5 + 0.5 * (2.5 * (seen - 0.5)).double().square().flatten()  # tr Ds + |s|^2/2
    assert implicit.mean().item() == pytest.approx(-1.90107823, abs=4 * implicit.std().item() / len(x) ** 0.5)
    difference = unweighted - implicit
    assert difference.mean().item() == pytest.approx(3.87131841, abs=4 * difference.std().item() / len(x) ** 0.5)


def test_difference_to_implicit_loss_any_score():
    # D/(2 sigma^2) also for a score that is nobody's gradient; D = 2
    sigma = 0.7
    x = gaussian((100_000, 2, 1, 1))
    model = Score(lambda y, s: torch.stack([torch.sin(y[:, 0] + y[:, 1]), y[:, 0] ** 2], dim=1), [sigma])
    unweighted = losses.dsm(model, x, torch.zeros(len(x), dtype=torch.int64), seed=8, step=1, anneal_power=0.0)
    y = (x + sigma * noise.normal(x.shape, 8, step=1, stream=noise.DSM)).double().flatten(1)
    implicit = torch.cos(y.sum(1)) + 0.5 * (torch.sin(y.sum(1)).square() + y[:, 0] ** 4)
    difference = unweighted.double() - implicit
    assert difference.mean().item() == pytest.approx(1 / sigma**2, abs=4 * difference.std().item() / len(x) ** 0.5)


def test_independent_of_the_batch_split():
    x = gaussian((7, 2, 3, 3))
    level = torch.tensor([0, 9, 3, 3, 5, 1, 8])
    model = Score(lambda y, s: -y / (1 + s**2))
    whole = losses.dsm(model, x, level, seed=1, step=4)
    parts = [losses.dsm(model, x[i:j], level[i:j], seed=1, step=4, first=i) for i, j in ((0, 3), (3, 4), (4, 7))]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, losses.dsm(model, x, level, seed=1, step=5))
    assert not torch.equal(whole, losses.dsm(model, x, level, seed=2, step=4))


def test_gradient_of_the_weights():
    # d/da of 1/2 (-(a y) sigma + z)^2 with s = -a y, summed: -sigma y (z - a sigma y)
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    x = gaussian((5, 1, 2, 2)).double()
    level = torch.tensor([0, 2, 4, 6, 8])
    losses.dsm(Score(lambda y, s: -a * y), x, level, seed=1, step=0).sum().backward()
    z = noise.normal(x.shape, 1, stream=noise.DSM).double()
    sigma = SIGMAS[level].double().view(-1, 1, 1, 1)
    y = x + sigma * z
    expected = (-sigma * y * (z - 0.7 * sigma * y)).sum()
    torch.testing.assert_close(a.grad, expected)


@pytest.mark.parametrize(
    "x, level, message",
    [
        (
            torch.zeros(2, 1, 2, 2, dtype=torch.int64),
            torch.zeros(2, dtype=torch.int64),
            r"dsm: x must be a float tensor",
        ),
        (torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64), r"dsm: x must be a float tensor \(B, C, H, W\), got"),
        (torch.zeros(2, 1, 2, 2), torch.zeros(2), r"dsm: level must be int64 of shape \(2,\), got torch.float32"),
        (
            torch.zeros(2, 1, 2, 2),
            torch.zeros(3, dtype=torch.int64),
            r"level must be int64 of shape \(2,\), got .* \(3,\)",
        ),
        (torch.zeros(2, 1, 2, 2), torch.tensor([0, 10]), r"dsm: level must be in \[0, 10\), got 0 to 10"),
        (torch.zeros(2, 1, 2, 2), torch.tensor([-1, 1]), r"dsm: level must be in \[0, 10\), got -1 to 1"),
    ],
)
def test_wrong_arguments(x, level, message):
    with pytest.raises((TypeError, ValueError), match=message):
        losses.dsm(Score(lambda y, s: y), x, level, seed=0, step=0)


def test_wrong_score():
    with pytest.raises(ValueError, match=r"dsm: model must return a score of shape \(2, 1, 2, 2\), got \(2, 1\)"):
        losses.dsm(Score(lambda y, s: y[:, :, 0, 0]), torch.zeros(2, 1, 2, 2), torch.tensor([0, 1]), seed=0, step=0)
