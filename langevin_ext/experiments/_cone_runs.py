"""Theorem 11 of arXiv:2603.11319: mass that leaks to infinity along a cone where the score is wrong."""

import math
from typing import NamedTuple

import torch
from tqdm import tqdm

from .. import noise
from ..scores import Cone
from ._ula import ula
from .findings import Finding, above, close

__all__ = ["FAR", "H", "TIMES", "Leak", "leak_findings", "run_cones"]

H, FAR = 0.01, 5.0
TIMES = (20, 40, 60, 80, 100)
SEEN, SEEN_CHAINS = {20: (0.256, 0.416, 0.521, 0.611, 0.678), 45: (0.892, 0.988, 0.998, 1.0, 1.0)}, 4000
ANGLES = (10, 20, 45)


class Leak(NamedTuple):
    """Chains with one cone.

    Attributes:
        degrees: half-angle.
        x: (n, 2) at the last time.
        out: share of the chains with |x| > 5 at each of the times.
        error, stderr: mean of |s_hat - s|^2 over N(0, I).
    """

    degrees: int
    x: torch.Tensor
    out: list[float]
    error: float
    stderr: float

    @property
    def expected(self) -> float:
        """3 theta / pi + (2 sin(theta) / pi) sqrt(pi / 2), from E|x| = sqrt(pi / 2) and the angle's uniform law."""
        theta = math.radians(self.degrees)
        return 3 * theta / math.pi + 2 * math.sin(theta) / math.pi * math.sqrt(math.pi / 2)


def run_cones(size, seed, progress) -> list[Leak]:
    """Chains from N(0, I) up to t = 100, or t = 40 at a size below 1."""
    n = max(400, round(4000 * size))
    times = TIMES if size >= 1 else TIMES[:2]
    every = round(TIMES[0] / H)
    leaks = []
    for degrees in tqdm(ANGLES, desc="robustness: Theorem 11", unit="cone", disable=not progress):
        field = Cone(math.radians(degrees))
        start = noise.normal((n, 2), seed, stream=noise.INIT)
        run = {"steps": round(times[-1] / H), "snapshot": every, "return_info": True}
        x, info = ula(field, start, h=H, seed=seed, **run)
        out = [(one.flatten(1).norm(dim=1) > FAR).double().mean().item() for one in info["snapshots"]]
        errors = field.squared_error(field.target.sample(max(50_000, round(200_000 * size)), seed, first=10**6))
        stderr = errors.std().item() / math.sqrt(len(errors))
        leaks.append(Leak(degrees, x.flatten(1), out, errors.mean().item(), stderr))
    return leaks


def leak_findings(leaks) -> list[Finding]:
    """The score error, and the share that has left: P(|x| > 5) is 4e-6 under N(0, I)."""
    found = []
    for leak in leaks:
        what, n = f"Theorem 11, {leak.degrees} degrees: ", len(leak.x)
        found.append(close(what + "E |s_hat - s|^2", leak.error, leak.stderr, leak.expected))
        if leak.degrees not in SEEN:
            found.append(above(what + f"P(|x| > 5) at t = {TIMES[len(leak.out) - 1]}", leak.out[-1], 0.005))
            continue
        for t, out, seen in zip(TIMES, leak.out, SEEN[leak.degrees], strict=False):
            p = min(seen, 1 - 1 / SEEN_CHAINS)  # not a single chain inside says at most this
            stderr = math.sqrt(p * (1 - p) * (1 / n + 1 / SEEN_CHAINS))
            found.append(close(what + f"P(|x| > 5) at t = {t}", out, stderr, seen))
    return found
