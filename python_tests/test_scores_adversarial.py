"""Score estimates with which Langevin dynamics fails: their values, their tiny errors, and the failure."""

import math

import pytest
import torch

from langevin_ext import noise, sample
from langevin_ext.metrics import expected_gaussian_fit_kl, gaussian_fit_kl
from langevin_ext.scores import AdversarialBall, Cone, Gaussian, MemorisedBalls
from langevin_ext.scores.adversarial import bump

D = 50


def ones(k, d=D):
    return torch.full((d,), float(k), dtype=torch.float64)


def at_radius(rho, d=D):
    """A point at rho sqrt(d) from the origin, (1, d, 1, 1)."""
    x = noise.normal((1, d), 3).double()
    return (x / x.norm() * rho * math.sqrt(d)).reshape(1, d, 1, 1)


def langevin(field, start, steps, h, seed=0):
    run = {"n": len(start), "step_lr": h, "n_steps_each": steps, "denoise": False, "progress": False, "seed": seed}
    return sample(field, "langevin", init=start.float().reshape(len(start), *field.shape), **run)


def test_values_of_the_bump():
    u = torch.tensor([-1, 0, 0.1, 0.25, 0.5, 0.75, 0.9, 1, 2], dtype=torch.float64)
    known = [0, 0, 0.000137893792, 0.0649691691, 0.5, 0.935030831, 0.999862106, 1, 1]
    torch.testing.assert_close(bump(u), torch.tensor(known, dtype=torch.float64), rtol=2e-9, atol=0)
    fine = bump(torch.linspace(0, 1, 100_001, dtype=torch.float64))
    slope = fine.diff() * 100_000
    assert (slope >= 0).all()
    assert slope.max().item() == pytest.approx(2, abs=1e-6)  # at 1/2
    assert bump(torch.tensor([0.5])).dtype == torch.float32


def test_ball_inside_the_shell_and_outside():
    mu = noise.normal((D,), 1).double()
    field = AdversarialBall(mu, inner=1.5, outer=2.5, stiffness=3.0)
    mu = mu.reshape(1, D, 1, 1)
    for rho in (0.0, 1.0, 1.4999):
        torch.testing.assert_close(field.at_sigma(at_radius(rho), 1.0), -3.0 * at_radius(rho), rtol=1e-13, atol=1e-13)
    for rho in (2.5001, 5.0):
        torch.testing.assert_close(field.at_sigma(at_radius(rho), 1.0), mu - at_radius(rho), rtol=1e-13, atol=1e-13)
    x, chi = at_radius(1.75), 0.0649691691  # a quarter of the shell
    expected = chi * (mu - x) + (1 - chi) * (-3.0 * x)
    torch.testing.assert_close(field.at_sigma(x, 1.0), expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(field.true_score(x), mu - x)
    assert field.squared_error(x).item() == pytest.approx((expected - (mu - x)).square().sum().item(), rel=1e-8)
    defaults = AdversarialBall(ones(1))
    assert (defaults.inner, defaults.outer, defaults.stiffness) == (2.0, 3.0, 2.0)


def test_sigma_is_ignored_and_bits_do_not_depend_on_the_batch():
    points = noise.normal((8, D), 3)
    for field in (AdversarialBall(ones(1)), MemorisedBalls(points), Cone(0.4, ones(1), Gaussian(ones(1), variance=2))):
        assert field.sigmas.tolist() == [1.0]
        x = noise.normal((9, D), 4).reshape(9, D, 1, 1) * torch.linspace(0.1, 4, 9).reshape(9, 1, 1, 1)
        together = field(x, torch.zeros(9, dtype=torch.int64))
        assert torch.equal(together, field.at_sigma(x, 0.01))
        assert together.dtype == torch.float32
        for i in range(9):
            assert torch.equal(together[i], field(x[i : i + 1], torch.zeros(1, dtype=torch.int64))[0])


# E_pi |s_hat - s|^2 in 50 dimensions, mean k (1, ..., 1), with the error of the value known where it is a simulation's
BALL_ERRORS = [
    (1, 1.0, 50.0, 0.0),
    (1, 2.0, 249.97, 0.1),
    (1, 10.0, 9052.0, 4.0),
    (2, 1.0, 163.20, 0.05),
    (2, 2.0, 682.6, 0.3),
    (3, 1.0, 0.0141, 0.0006),
    (3, 2.0, 0.0457, 0.0014),
    (4, 2.0, 0.0, 0.0),
    (5, 10.0, 0.0, 0.0),
]


@pytest.mark.parametrize("k, stiffness, expected, known_to", BALL_ERRORS)
def test_score_error_of_the_ball(k, stiffness, expected, known_to):
    field = AdversarialBall(ones(k), stiffness=stiffness)
    errors = field.squared_error(field.target.sample(40_000, seed=k))
    stderr = math.hypot(errors.std().item() / 200, known_to)
    # exact values, and the fourth row on, where the wrong region has no mass, are met but for rounding
    assert abs(errors.mean().item() - expected) <= 4 * stderr + 1e-9 * expected


@pytest.mark.parametrize("k, stiffness", [(1, 2.0), (5, 2.0), (5, 10.0)])
def test_langevin_stays_in_the_wrong_ball(k, stiffness):
    # from N(0, I) the chain is that of N(0, I / C): variance V_C after 1000 steps of h = .0025, wherever pi is
    h, n, steps = 0.0025, 300, 1000
    a = 1 - h * stiffness
    v = a ** (2 * steps) + 2 * h * (1 - a ** (2 * steps)) / (1 - a * a)
    assert v == pytest.approx({2.0: 0.501275, 10.0: 0.101266}[stiffness], abs=1e-6)
    x = langevin(AdversarialBall(ones(k), stiffness=stiffness), noise.normal((n, D), 9), steps, h).flatten(1).double()
    assert abs(x.square().mean().item() - v) < 4 * v * math.sqrt(2 / (n * D))
    assert abs(x.mean().item()) < 4 * math.sqrt(v / (n * D))
    eye = torch.eye(D, dtype=torch.float64)
    law, target = (0 * ones(k), v * eye), (ones(k), eye)
    population = gaussian_fit_kl(law, target)
    known = {(1, 2.0): (29.7969, 57.4806), (5, 2.0): (629.797, 1254.43), (5, 10.0): (659.78, 6336.5)}[k, stiffness]
    assert population == pytest.approx(known, rel=1e-5)
    # KL(fit || pi) varies by |mu| sqrt(V / n) through the mean, and little else
    expected = expected_gaussian_fit_kl(n, law, target).forward
    stderr = math.sqrt(D * k**2 * v / n + D * (D + 1) / (4 * n**2) + D * (1 - v) ** 2 / (2 * n))
    assert abs(gaussian_fit_kl(x, target).forward - expected) < 4 * stderr


def test_memorised_ball_about_a_point_and_far_from_all():
    points = noise.normal((4, D), 5).double()
    field = MemorisedBalls(points, inner=0.2, outer=0.4, stiffness=50.0)
    about = points[2].reshape(1, D, 1, 1)
    for rho, chi in ((0.0, 0.0), (0.19, 0.0), (0.25, 0.0649691691), (0.3, 0.5), (0.4001, 1.0)):
        x = about + at_radius(rho)
        expected = -chi * x - (1 - chi) * 50.0 * at_radius(rho)
        torch.testing.assert_close(field.at_sigma(x, 1.0), expected, rtol=0, atol=2e-7)
    x = at_radius(1.0)
    torch.testing.assert_close(field.at_sigma(x, 1.0), -x)
    images = MemorisedBalls(points.reshape(4, 2, 5, 5))
    assert images.shape == (2, 5, 5)
    assert (images.inner, images.outer, images.stiffness) == (0.25, 0.45, 64.0)
    x = points[:2] + 0.01
    flat = MemorisedBalls(points).at_sigma(x.reshape(2, D, 1, 1), 1.0)
    assert torch.equal(images.at_sigma(x.reshape(2, 2, 5, 5), 1.0).flatten(), flat.flatten())


def test_memorised_balls_hold_their_points_and_no_others():
    # 30 points in 50 dimensions, copies of each as starts, 1000 steps of h = .0025: from the points the law is
    # N(x_j, V I), V = 1 / (C (1 - h C / 2)) = .016984; mean distance sqrt(V) sqrt(2) Gamma(25.5) / Gamma(25) = .9169
    h, steps, copies = 0.0025, 1000, 10
    points = noise.normal((30, D), 11).double()
    field = MemorisedBalls(points)
    v = 1 / (64 * (1 - 64 * h / 2))
    assert v == pytest.approx(0.016984, abs=1e-6)
    predicted = math.sqrt(2 * v) * math.exp(math.lgamma(25.5) - math.lgamma(25))
    assert predicted == pytest.approx(0.9169, abs=5e-5)
    x = langevin(field, points.repeat(copies, 1), steps, h).flatten(1).double()
    distances = torch.cdist(x, points)
    assert torch.equal(distances.argmin(1), torch.arange(30).repeat(copies))
    n = 30 * copies
    assert abs(distances.min(1).values.mean().item() - predicted) < 4 * math.sqrt(v / 2 / n)
    assert abs((x - points.repeat(copies, 1)).square().mean().item() - v) < 4 * v * math.sqrt(2 / (n * D))
    # from fresh points the chain is that of the true score: 8 or so from the nearest training point
    fresh = noise.normal((30, D), 12).double()
    x = langevin(field, fresh.repeat(copies, 1), steps, h).flatten(1).double()
    nearest = torch.cdist(x, points).min(1).values
    assert 7.8 < nearest.mean().item() < 8.6
    assert field.squared_error(field.target.sample(5000, seed=13)).max().item() == 0


CONES = {10: (0.30522, (0.0135,)), 20: (0.60623, (0.256, 0.416)), 45: (1.31419, (0.892, 0.988))}


@pytest.mark.parametrize("degrees", CONES)
def test_score_error_of_the_cone(degrees):
    theta, (known, _) = math.radians(degrees), CONES[degrees]
    assert 3 * theta / math.pi + 2 * math.sin(theta) / math.pi * math.sqrt(math.pi / 2) == pytest.approx(
        known, abs=5e-6
    )
    field = Cone(theta)
    errors = field.squared_error(field.target.sample(200_000, seed=degrees))
    assert abs(errors.mean().item() - known) < 4 * errors.std().item() / math.sqrt(200_000)


def test_cone_is_a_cone():
    field = Cone(math.radians(30), direction=[0.0, 2.0])
    x = torch.tensor([[0.0, 0.0], [0.0, 3.0], [0.57, 1.0], [0.58, 1.0], [-0.57, 1.0], [0.0, -1.0]]).reshape(6, 2, 1, 1)
    assert field.contains(x).tolist() == [True, True, True, False, True, False]  # tan 30 = .577
    drift = field.at_sigma(x, 1.0).flatten(1)
    assert drift[field.contains(x)].tolist() == [[0, 1]] * 4
    assert torch.equal(drift[~field.contains(x)], -x.flatten(1)[~field.contains(x)])
    target = Gaussian(torch.tensor([1.0, 2.0, 3.0]), variance=0.5)
    other = Cone(0.2, target=target)
    assert other.shape == (3, 1, 1)
    assert other.direction.flatten().tolist() == [1, 0, 0]
    x = -noise.normal((5, 3), 1).abs().reshape(5, 3, 1, 1)
    assert torch.equal(other.at_sigma(x, 1.0), target.at_sigma(x, 0.0))


@pytest.mark.parametrize("degrees", [20, 45])
def test_mass_leaks_along_the_cone(degrees):
    # P(|x| > 5) at t = 20 and 40, h = .01, known from 4000 chains
    known, n = CONES[degrees][1], 1000
    field, start = Cone(math.radians(degrees)), noise.normal((n, 2), 21)
    for steps, p in zip((2000, 4000), known, strict=True):
        x = langevin(field, start, steps, 0.01, seed=steps)
        out = (x.flatten(1).norm(dim=1) > 5).double().mean().item()
        assert abs(out - p) < 4 * math.sqrt(p * (1 - p) * (1 / n + 1 / 4000)) + 5e-4  # rounded to three digits


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: AdversarialBall(ones(1), inner=3.0), "inner, outer must satisfy 0 < inner < outer, got 3.0, 3.0"),
        (lambda: AdversarialBall(ones(1), stiffness=0.25), r"stiffness must be above 1 / inner\^2 = 0.25, .* got 0.25"),
        (lambda: AdversarialBall(ones(1), stiffness=math.inf), "stiffness must be above"),
        (lambda: MemorisedBalls(torch.zeros(3)), r"points must be \(n, D\) or \(n, C, H, W\), .* got shape \(3,\)"),
        (lambda: MemorisedBalls(torch.full((1, 3), math.nan)), "points must be .* finite"),
        (lambda: MemorisedBalls(torch.eye(2) * 0.5), r"general position, .* got a pair at 0.5 sqrt\(d\) for outer"),
        (lambda: MemorisedBalls(torch.zeros(1, 3), inner=-1.0), "MemorisedBalls: arguments inner, outer"),
        (lambda: Cone(0.0), r"half_angle must be in \(0, pi / 2\), in radians, got 0.0"),
        (lambda: Cone(45), "in radians, got 45"),
        (lambda: Cone(0.5, [1.0, 0.0, 0.0]), r"direction must hold 2 finite values that are not all 0, got \(3,\)"),
        (lambda: Cone(0.5, [0.0, 0.0]), "direction must hold 2 finite values"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_target_must_be_a_field():
    with pytest.raises(TypeError, match="Cone: argument target must be a score field with at_sigma and shape, got Lin"):
        Cone(0.5, target=torch.nn.Linear(2, 2))
