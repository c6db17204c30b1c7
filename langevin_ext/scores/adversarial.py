"""Score estimates of tiny error with which Langevin dynamics fails (Cao, Chen, Sridharan, Wu 2026, arXiv:2603.11319).

Each equals the true score s of its target pi but for a set of small probability, so that E_pi |s_hat - s|^2 is small.
They have no noise level: `sigma` is ignored, and `sigmas` is the one nominal level 1, with which `sample` admits the
steps eps < 4, those at which Langevin dynamics on a target of unit variance is stable. The paper's dynamics (equation
2), x <- x + h s_hat(x) + sqrt(2 h) z, is

    sample(field, scheme="langevin", step_lr=h, n_steps_each=steps, denoise=False)

The available text of the paper lacks its formulas; the fields follow its proofs, and what they leave open (radii,
stiffness, the form of the bump) is an inference, named in each class.
"""

import math

import torch

from .field import Field
from .gaussian import Gaussian

__all__ = ["AdversarialBall", "Cone", "MemorisedBalls", "bump"]


def bump(u) -> torch.Tensor:
    """A step from 0 at u <= 0 to 1 at u >= 1, smooth to all orders (arXiv:2603.11319, Lemma 16).

        chi(u) = f(u) / (f(u) + f(1 - u)),   f(u) = exp(-1 / u)

    The lemma fixes its values, its smoothness and that its slope is bounded; this form, of slope at most 2, is an
    inference.

    Args:
        u: floating tensor of any shape.

    Returns:
        Shape and dtype of u, in [0, 1].
    """
    u = torch.as_tensor(u).clamp(0, 1)
    return torch.sigmoid(1 / (1 - u) - 1 / u)  # the same without the two small numbers


class _Adversarial(Field):
    """A score estimate beside its `target`, the field of the true score."""

    def __init__(self, target):
        super().__init__([1.0], target.shape)
        self.target = target

    def true_score(self, x) -> torch.Tensor:
        """The score of the target pi, shape and dtype of x (B, C, H, W)."""
        return self.target.at_sigma(x, 0.0)

    def squared_error(self, x) -> torch.Tensor:
        """|s_hat(x) - s(x)|^2, float64 (B,); its mean over draws from pi is the score error of the theorems."""
        x = torch.as_tensor(x).to(torch.float64)
        return (self.at_sigma(x, 0.0) - self.true_score(x)).square().flatten(1).sum(1)


class AdversarialBall(_Adversarial):
    """A wrong well about the origin, where Langevin dynamics from N(0, I) stays (arXiv:2603.11319, Theorem 1).

        rho = |x| / sqrt(d),   chi = bump((rho - inner) / (outer - inner))
        s_hat(x) = chi (mu - x) + (1 - chi) (-C x)

    For pi = N(mu, I): the true score mu - x from rho = `outer` on, and inside `inner` the drift of an
    Ornstein-Uhlenbeck process with the law N(0, I / C) (equation 8). Radii 2 and 3 and C = 2 are an inference; the
    start, of radius 1, and sqrt(1 / C) must lie within `inner`.

    Args:
        mean: mu, (D,) or (C, H, W); of length about sqrt(d) or more, else the well is not far from pi.
        inner, outer: radii in units of sqrt(d), 0 < inner < outer.
        stiffness: C, above 1 / inner^2; Langevin dynamics needs steps h < 2 / C.
    """

    def __init__(self, mean, *, inner=2.0, outer=3.0, stiffness=2.0):
        super().__init__(Gaussian(mean, variance=1.0))
        self.inner, self.outer, self.stiffness = _well("AdversarialBall", inner, outer, stiffness)
        self._constants["mean"] = self.target._constants["mean"]

    def _score(self, x, sigma, constants):
        chi = _outside(_norm(x), self)
        return chi * (constants["mean"] - x) - (1 - chi) * self.stiffness * x


class MemorisedBalls(_Adversarial):
    """A well about each training point, where Langevin dynamics from them stays (arXiv:2603.11319, Theorem 7).

        j = nearest point,   rho = |x - x_j| / sqrt(d),   chi = bump((rho - inner) / (outer - inner))
        s_hat(x) = chi (-x) + (1 - chi) (-C (x - x_j))

    For pi = N(0, I): the true score -x from `outer` on. The points must be in general position (Definition 6), further
    apart than 2 outer sqrt(d), so that no two wells meet. Radii 0.25 and 0.45 and C = 64 are an inference; Langevin
    dynamics with step h stays about a point with variance 1 / (C (1 - h C / 2)) per value.

    Args:
        points: (n, D) or (n, C, H, W), n >= 1, the training points.
        inner, outer: radii in units of sqrt(d), 0 < inner < outer.
        stiffness: C, above 1 / inner^2; Langevin dynamics needs steps h < 2 / C.
    """

    def __init__(self, points, *, inner=0.25, outer=0.45, stiffness=64.0):
        points = torch.as_tensor(points).detach().to(torch.float64)
        if points.dim() not in (2, 4) or 0 in points.shape or not points.isfinite().all():
            raise ValueError(
                "MemorisedBalls: argument points must be (n, D) or (n, C, H, W), finite, with at least one point, "
                f"got shape {tuple(points.shape)}"
            )
        shape = tuple(points.shape[1:]) if points.dim() == 4 else (points.shape[1], 1, 1)
        super().__init__(Gaussian(0.0, variance=1.0, shape=shape))
        self.inner, self.outer, self.stiffness = _well("MemorisedBalls", inner, outer, stiffness)
        self.points = points.reshape(len(points), *shape)
        self._constants["points"] = points.reshape(len(points), -1)
        self._check_position(self._constants["points"])

    def _check_position(self, points):
        if len(points) < 2:
            return
        apart = torch.pdist(points).min().item() / math.sqrt(points.shape[1])
        if apart < 2 * self.outer:
            raise ValueError(
                "MemorisedBalls: argument points must be in general position, all pairs at least 2 outer sqrt(d) "
                f"apart, got a pair at {apart:.3g} sqrt(d) for outer = {self.outer:g}"
            )

    def _score(self, x, sigma, constants):
        points = constants["points"]
        distances = torch.cdist(x.flatten(1), points, compute_mode="donot_use_mm_for_euclid_dist")
        offset = x - points[distances.argmin(1)].reshape(x.shape)
        chi = _outside(_norm(offset), self)
        return -chi * x - (1 - chi) * self.stiffness * offset


class Cone(_Adversarial):
    """A drift to infinity in a thin cone, into which all mass leaks in the end (arXiv:2603.11319, Theorem 11).

        K = {x: <x, e> >= |x| cos(theta)},   s_hat(x) = e in K, s(x) outside

    Brownian motion with drift e, once in K, never leaves it with positive probability (equation 20 and Lemma 21). For
    the plane's N(0, I), E |s_hat - s|^2 = 3 theta / pi + (2 sin(theta) / pi) sqrt(pi / 2). That e has length 1 inside K
    is the proof's; angle and direction are free there.

    Args:
        half_angle: theta in radians, in (0, pi / 2).
        direction: e, (D,) or (C, H, W), not 0; normalised. The first axis by default.
        target: field of the true score, taken without noise; that of N(0, I) in the plane by default.
    """

    def __init__(self, half_angle, direction=None, target=None):
        target = Gaussian([0.0, 0.0], variance=1.0) if target is None else target
        if not hasattr(target, "at_sigma") or not hasattr(target, "shape"):
            raise TypeError(
                f"Cone: argument target must be a score field with at_sigma and shape, got {type(target).__name__}"
            )
        super().__init__(target)
        if not 0 < half_angle < math.pi / 2:
            raise ValueError(f"Cone: argument half_angle must be in (0, pi / 2), in radians, got {half_angle}")
        size = math.prod(self.shape)
        axis = torch.eye(1, size)[0] if direction is None else torch.as_tensor(direction)
        axis = axis.to(torch.float64)
        if axis.numel() != size or not 0 < axis.norm() < math.inf:
            raise ValueError(
                f"Cone: argument direction must hold {size} finite values that are not all 0, got {tuple(axis.shape)}"
            )
        self.half_angle, self.direction = float(half_angle), (axis / axis.norm()).reshape(self.shape)
        self._constants["direction"] = self.direction

    def _score(self, x, sigma, constants):
        direction = constants["direction"]
        return torch.where(_within(x, direction, self.half_angle), direction, self.true_score(x))

    def contains(self, x) -> torch.Tensor:
        """Whether x (B, C, H, W) is in K, bool (B,)."""
        x = torch.as_tensor(x).to(torch.float64)
        return _within(x, self._on(x.device)["direction"], self.half_angle).flatten()


def _well(name, inner, outer, stiffness):
    """The radii and the stiffness of a well, if its Ornstein-Uhlenbeck process lives inside it."""
    if not 0 < inner < outer < math.inf:
        raise ValueError(f"{name}: arguments inner, outer must satisfy 0 < inner < outer, got {inner}, {outer}")
    if not 1 / inner**2 < stiffness < math.inf:
        raise ValueError(
            f"{name}: argument stiffness must be above 1 / inner^2 = {1 / inner**2:g}, so that the well holds its "
            f"process, got {stiffness}"
        )
    return float(inner), float(outer), float(stiffness)


def _outside(norm, well):
    """chi of a distance from the well's centre."""
    rho = norm / math.sqrt(math.prod(well.shape))
    return bump((rho - well.inner) / (well.outer - well.inner))


def _norm(x):
    """|x| as (B, 1, 1, 1)."""
    return x.square().flatten(1).sum(1).sqrt().reshape(-1, 1, 1, 1)


def _within(x, direction, half_angle):
    """Membership of the cone as bool (B, 1, 1, 1)."""
    along = (x * direction).flatten(1).sum(1).reshape(-1, 1, 1, 1)
    return along >= _norm(x) * math.cos(half_angle)
