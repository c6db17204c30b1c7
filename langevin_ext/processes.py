"""The forward process of critically-damped Langevin diffusion (CLD; Dockhorn, Vahdat, Kreis 2022, arXiv:2112.07068).

Data x is coupled with a velocity v, and noise enters v alone. In forward time t from 0 (data) to 1 (noise):

    dx =  beta/M v dt
    dv = -beta x dt - Gamma beta/M v dt + sqrt(2 Gamma beta) dw,     Gamma^2 = 4 M,  v_0 ~ N(0, gamma M)

tends to N(0, 1) x N(0, M) per pixel. Every law here is Gaussian and the same for all pixels; it depends on t through
y = 4 B(t) / Gamma alone, B(t) = int_0^t beta. With P(k, y) = e^-y sum_{j >= k} y^j / j! (the regularised incomplete
gamma function) all moments and the determinant are sums without cancellation, in float64 down to t = 0.
"""

import math
from typing import NamedTuple

import torch

__all__ = ["Covariance", "CriticallyDamped"]

VELOCITIES = ("hybrid", "sampled")
NEAR, TERMS = 3.0, 25  # where a series ends; the first term left out is below 1e-18 of the sum there


class Covariance(NamedTuple):
    """Covariance of (x, v) of one pixel, float64 tensors like t, with its determinant xx vv - xv^2."""

    xx: torch.Tensor
    xv: torch.Tensor
    vv: torch.Tensor
    det: torch.Tensor


class CriticallyDamped:
    """Critically-damped Langevin diffusion: its laws at any time in closed form (arXiv:2112.07068, appendix B).

    Args:
        beta: beta(t), one positive number or (beta0, beta1) for beta0 + beta1 t, at least 0 and not both 0.
        mass: M, positive.
        gamma: variance of the initial velocity in units of M, positive.
        numerical_eps: added to both variances before the Cholesky factor and l_t are computed (figure 6).
        friction: Gamma; only the critical value 2 sqrt(M), the default, has these closed forms.

    Raises:
        ValueError: a constant is out of range, or the friction is not critical.
    """

    def __init__(self, beta=4.0, mass=0.25, gamma=0.04, numerical_eps=1e-9, friction=None):
        pair = tuple(float(one) for one in beta) if isinstance(beta, list | tuple) else (float(beta), 0.0)
        if len(pair) != 2 or not all(0 <= one < math.inf for one in pair) or not sum(pair) > 0:
            raise ValueError(
                "CriticallyDamped: argument beta must be a positive number or (beta0, beta1), both at least 0 and not "
                f"both 0, got {beta!r}"
            )
        for name, value in (("mass", mass), ("gamma", gamma)):
            if not 0 < value < math.inf:
                raise ValueError(f"CriticallyDamped: argument {name} must be positive and finite, got {value}")
        if not 0 <= numerical_eps < math.inf:
            raise ValueError(f"CriticallyDamped: argument numerical_eps must be at least 0, got {numerical_eps}")
        critical = 2 * math.sqrt(mass)
        if friction is not None and not math.isclose(friction, critical, rel_tol=1e-9):
            raise ValueError(
                f"CriticallyDamped: argument friction must be 2 sqrt(mass) = {critical:g}, at which the closed forms "
                f"hold, got {friction}"
            )
        self.betas, self.mass, self.gamma = pair, float(mass), float(gamma)
        self.numerical_eps, self.friction = float(numerical_eps), critical

    def config(self) -> dict:
        """The arguments that remake this process, as plain numbers and lists."""
        constants = {"mass": self.mass, "gamma": self.gamma, "numerical_eps": self.numerical_eps}
        return {"beta": list(self.betas)} | constants

    def beta(self, t) -> torch.Tensor:
        """beta(t) = beta0 + beta1 t, float64 like t."""
        return self.betas[0] + self.betas[1] * _time(t)

    def integral(self, t) -> torch.Tensor:
        """B(t) = int_0^t beta = beta0 t + beta1 t^2 / 2, float64 like t."""
        t = _time(t)
        return t * (self.betas[0] + self.betas[1] / 2 * t)

    def mean_matrix(self, t) -> tuple[torch.Tensor, ...]:
        """The matrix A(t) of E[u_t] = A(t) u_0 (arXiv:2112.07068, appendix B).

            A = e^(-y/2) [[1 + y/2, y / Gamma], [-Gamma y/4, 1 - y/2]],     y = 4 B(t) / Gamma

        Args:
            t: forward time, one number or a tensor, at least 0.

        Returns:
            (xx, xv, vx, vv), float64 tensors like t.
        """
        return self._matrix(4 * self.integral(t) / self.friction)

    def covariance(self, t, velocity="hybrid", data_variance=0.0) -> Covariance:
        """Covariance of u_t = (x_t, v_t) given x_0, without numerical_eps (arXiv:2112.07068, appendix B).

            S = N + A diag(r, w) A',     N = diag(1, M) - A diag(1, M) A'
            N_xx = P(3, y),  N_xv = Gamma y^2/4 e^-y,  N_vv = M (P(3, y) + 2 y e^-y)
            det N = M (P(3, y)^2 + 2 y e^-y P(4, y) + y^4/12 e^-2y)

        Args:
            t: forward time, one number or a tensor, at least 0.
            velocity: "hybrid": the initial velocity is integrated out, w = gamma M (hybrid score matching);
                "sampled": it is given as well, w = 0 (denoising score matching).
            data_variance: r, the variance of x_0 of Gaussian data for the marginal law; 0 for the law given x_0.

        Returns:
            `Covariance`.

        Raises:
            ValueError: t or data_variance is negative, or the velocity is unknown.
        """
        r, w = float(data_variance), self._velocity_variance(velocity)
        if not 0 <= r < math.inf:
            raise ValueError(f"covariance: argument data_variance must be at least 0, got {data_variance}")
        y = 4 * self.integral(t) / self.friction
        axx, axv, avx, avv = self._matrix(y)
        noise = self._noise(y)
        # det(N + A D A') = det N + r a_x' adj(N) a_x + w a_v' adj(N) a_v + r w det(A)^2, a_x, a_v the columns of A
        decay = torch.exp(-y)
        from_v = decay * (noise.xx * (1 - y + y * y / 2) + decay * y**4 / 4)
        from_x = axx * axx * noise.vv - 2 * axx * avx * noise.xv + avx * avx * noise.xx  # avx < 0: no cancellation
        return Covariance(
            noise.xx + r * axx * axx + w * axv * axv,
            noise.xv + r * axx * avx + w * axv * avv,
            noise.vv + r * avx * avx + w * avv * avv,
            noise.det + r * from_x + w * from_v + r * w * decay * decay,
        )

    def stabilised(self, t, velocity="hybrid") -> Covariance:
        """The covariance given x_0 plus numerical_eps I; arguments as for `covariance`."""
        s, e = self.covariance(t, velocity), self.numerical_eps
        return Covariance(s.xx + e, s.xv, s.vv + e, s.det + e * (s.xx + s.vv) + e * e)

    def cholesky(self, t, velocity="hybrid") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Lower Cholesky factor of the covariance given x_0 plus numerical_eps I (arXiv:2112.07068, appendix B.4).

            L_xx = sqrt(S_xx),  L_vx = S_xv / L_xx,  L_vv = sqrt(det S / S_xx)

        Args:
            t, velocity: as for `covariance`; t positive where numerical_eps is 0.

        Returns:
            (L_xx, L_vx, L_vv), float64 tensors like t.
        """
        s = self.stabilised(t, velocity)
        lower = s.xx.sqrt()
        return lower, s.xv / lower, (s.det / s.xx).sqrt()

    def score_scale(self, t, velocity="hybrid") -> torch.Tensor:
        """l_t of the target -l_t eps_v = grad_v log p(u_t | x_0) (arXiv:2112.07068, figure 6).

            l_t = 1 / L_vv = sqrt(S_xx / det S)

        As t -> 0 it is sqrt(3 / (2 Gamma B)) for "hybrid" and 2 / sqrt(2 Gamma B) for "sampled", of one order; what
        bounds the first is numerical_eps, whose share of the covariance the second drowns in.

        Args:
            t, velocity: as for `cholesky`.

        Returns:
            float64 tensor like t.
        """
        s = self.stabilised(t, velocity)
        return (s.xx / s.det).sqrt()

    def reverse_flow(self, b) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        """The exactly solvable part of the reverse SDE over int beta = b (arXiv:2112.07068, figure 8, in blue).

            dx = -beta/M v dt;  dv = beta x dt - Gamma beta/M v dt + sqrt(2 Gamma beta) dw

        It is the forward process with v of the other sign, so u' = A u + L z with A and L those of the forward one
        with the signs of the mixed entries changed; it leaves N(0, 1) x N(0, M) as it is.

        Args:
            b: integral of beta over the step, one number or a tensor, at least 0.

        Returns:
            (axx, axv, avx, avv) and the lower triangle (nxx, nvx, nvv) of L, float64 tensors like b.
        """
        y = 4 * _time(b) / self.friction
        axx, axv, avx, avv = self._matrix(y)
        n = self._noise(y)
        xx = n.xx.clamp(min=torch.finfo(torch.float64).tiny)  # 0/0 is 0 where b = 0
        return (axx, -axv, -avx, avv), (n.xx.sqrt(), -n.xv / xx.sqrt(), (n.det / xx).sqrt())

    def _matrix(self, y):
        decay = torch.exp(-y / 2)
        gain = self.friction
        return decay * (1 + y / 2), decay * y / gain, -decay * gain * y / 4, decay * (1 - y / 2)

    def _noise(self, y) -> Covariance:
        """N, the covariance from u_0 = (x_0, v_0) given."""
        decay, p4 = torch.exp(-y), _tail(y)
        p3 = p4 + decay * y**3 / 6
        det = p3 * p3 + 2 * y * decay * p4 + decay * decay * y**4 / 12
        return Covariance(p3, self.friction / 4 * y * y * decay, self.mass * (p3 + 2 * y * decay), self.mass * det)

    def _velocity_variance(self, velocity):
        if velocity not in VELOCITIES:
            raise ValueError(f"CriticallyDamped: argument velocity must be 'hybrid' or 'sampled', got {velocity!r}")
        return self.gamma * self.mass if velocity == "hybrid" else 0.0


def _tail(y):
    """P(4, y) = e^-y sum_{j >= 4} y^j / j!; by elementary operations, so that no bit depends on the place in a tensor.

    The series where e^-y (1 + y + y^2/2 + y^3/6) is close to 1, and 1 minus that beyond.
    """
    near = y.clamp(max=NEAR)
    total = torch.full_like(near, 1 / math.factorial(TERMS + 4))
    for j in reversed(range(TERMS)):
        total = total * near + 1 / math.factorial(j + 4)
    return torch.where(y <= NEAR, near**4 * total * torch.exp(-near), 1 - torch.exp(-y) * (1 + y + y**2 / 2 + y**3 / 6))


def _time(t):
    """t as a float64 tensor, at least 0."""
    t = torch.as_tensor(t, dtype=torch.float64)
    if t.device.type == "cpu" and not bool((t >= 0).all()):
        raise ValueError(f"CriticallyDamped: argument t must be at least 0, got {t.min().item()}")
    return t
