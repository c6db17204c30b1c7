"""The exact law of Langevin dynamics between two modes, without sampling.

The data are w_1 N(-(5, 5), I) + w_2 N((5, 5), I), the toy distribution of NCSN (Song & Ermon 2019, arXiv:1907.05600,
sections 3.2 and appendix B.1). Along u = (x_1 + x_2) / sqrt 2 its score depends on u alone, and so does the score with
noise, so that u is a Markov chain on the line,

    u' = u + alpha/2 s(u) + sqrt(alpha) z,    s(u) = (m(u) - u) / v,    m(u) = the modes' mean given u

whose density is propagated on a grid by the trapezoid rule, which converges faster than any power of the spacing for
the smooth kernel of a step. Across, along (x_1 - x_2) / sqrt 2, the chain is linear and its variance a recursion.
"""

import math

import torch

__all__ = [
    "MEANS",
    "MODE",
    "WEIGHTS",
    "data_density",
    "fractions",
    "noisy_fraction",
    "square_density",
    "variance_across",
]

MEANS = [[-5.0, -5.0], [5.0, 5.0]]
WEIGHTS = (0.2, 0.8)
MODE = 5 * math.sqrt(2)  # the place of the second mode on the diagonal; the first lies at -MODE
HALF_SIDE = 8.0  # samples start uniformly in the square [-8, 8]^2 (appendix B.1)
SPACING = 0.8  # of the grid in units of the narrowest kernel, whose integral is then exact to 1e-12
DEVIATIONS = 8.0  # how far beyond the modes the grid reaches: N(0, 1) has 1e-15 outside
START_POINTS = 2001


def fractions(levels, steps, start=None) -> list[float]:
    """P(u > 0) after each level of Langevin dynamics on the toy distribution.

        u <- u + alpha/2 s_v(u) + sqrt(alpha) z          `steps` times for each (v, alpha) of `levels`

    Args:
        levels: pairs (v, alpha), the variance of the modes' components and the step size (NCSN's convention, eq. 5).
        steps: steps on each level, at least 2.
        start: density of u at the start, a function of a float64 tensor that is 0 beyond 8 sqrt 2; by default that of
            the uniform distribution on [-8, 8]^2.

    Returns:
        list of floats, one for each level; good to 1e-6.

    Raises:
        ValueError: fewer than 2 steps, or a step size at which the dynamics of a level diverges.
    """
    if steps < 2:
        raise ValueError(f"fractions: argument steps must be at least 2, got {steps}")
    reach = HALF_SIDE * math.sqrt(2)
    grid = torch.linspace(-reach, reach, START_POINTS, dtype=torch.float64)
    mass = (start or square_density)(grid)
    mass = mass / mass.sum()
    found = []
    widths = [_width(v, alpha) for v, alpha in levels]
    for number, (v, alpha) in enumerate(levels):
        new = _grid(v, alpha, min(widths[number : number + 2]))  # the next level starts from these points
        mass = _kernel(new, grid, v, alpha) @ mass
        step = _kernel(new, new, v, alpha)
        for _ in range(steps - 2):
            mass = step @ mass
        right = torch.special.ndtr(_mean(new, v, alpha) / math.sqrt(alpha))  # P(u' > 0) given u, for the last step
        found.append(float(right @ mass))
        grid, mass = new, step @ mass
    return found


def _mean(u, v, alpha):
    """The mean of a step from u."""
    pull = torch.sigmoid(math.log(WEIGHTS[1] / WEIGHTS[0]) + 2 * MODE * u / v)  # P(second mode | u)
    return u + alpha / 2 * ((2 * pull - 1) * MODE - u) / v


def _grid(v, alpha, narrowest):
    """Points that reach as far as a level's samples and resolve the narrowest kernel that they meet."""
    reach = MODE + DEVIATIONS * math.sqrt(v / (1 - alpha / (4 * v)))
    return torch.linspace(-reach, reach, math.ceil(2 * reach / (SPACING * narrowest)) + 1, dtype=torch.float64)


def _width(v, alpha):
    """The width of a step's kernel where it is narrowest in u, between the modes, which both pull alike there."""
    if not 0 < alpha < 4 * v:
        raise ValueError(f"fractions: argument levels must have 0 < alpha < 4 v, got alpha={alpha:g} and v={v:g}")
    return math.sqrt(alpha) / max(1.0, 1 + alpha / 2 * (MODE**2 / v - 1) / v)


def _kernel(new, old, v, alpha):
    """Mass at each new point from unit mass at each old one."""
    apart = (new[:, None] - _mean(old, v, alpha)) / math.sqrt(alpha)
    return torch.exp(-apart.square() / 2) * ((new[1] - new[0]) / math.sqrt(2 * math.pi * alpha))


def square_density(u) -> torch.Tensor:
    """The density of u for x uniform on [-8, 8]^2, a triangle."""
    return (HALF_SIDE * math.sqrt(2) - u.abs()).clamp(min=0) / (2 * HALF_SIDE**2)


def data_density(u, weights=WEIGHTS) -> torch.Tensor:
    """The density of u for data, or with weights (1, 0) and (0, 1) for data of one mode."""
    parts = [torch.exp(-((u - mode) ** 2) / 2) / math.sqrt(2 * math.pi) for mode in (-MODE, MODE)]
    return weights[0] * parts[0] + weights[1] * parts[1]


def noisy_fraction(v) -> float:
    """P(u > 0) of the distribution itself, with components of variance v."""
    right = 0.5 * math.erfc(-MODE / math.sqrt(2 * v))
    return WEIGHTS[0] * (1 - right) + WEIGHTS[1] * right


def variance_across(levels, steps) -> float:
    """The variance of (x_1 - x_2) / sqrt 2 at the end: V <- (1 - alpha/(2 v))^2 V + alpha; arguments as `fractions`."""
    variance = (2 * HALF_SIDE) ** 2 / 12
    for v, alpha in levels:
        contraction = (1 - alpha / (2 * v)) ** 2
        for _ in range(steps):
            variance = contraction * variance + alpha
    return variance
