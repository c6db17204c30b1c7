"""The one loop: score, step, over the rows of a stage, for one batch."""

from typing import NamedTuple

import torch

from .. import noise, ops
from .table import AFTER, BEFORE


class Inpainting(NamedTuple):
    """The pixels that are known, of one batch."""

    known: torch.Tensor  # (B, C, H, W)
    mask: torch.Tensor  # bool (C, H, W) or (B, C, H, W), True where known


class Evaluation:
    """score(x, level) for the rows of a stage: one level for the whole batch, and a check of what comes back."""

    def __init__(self, score):
        self.score = score

    def __call__(self, x, level) -> torch.Tensor:
        """Args: x (B, ., H, W); level an int, or a float time, for which x is a position and a velocity."""
        timed = isinstance(level, float)
        levels = torch.full((len(x),), level, dtype=x.dtype if timed else torch.int64, device=x.device)
        s = self.score(x, levels)
        shape = (len(x), x.shape[1] // 2, *x.shape[2:]) if timed else tuple(x.shape)
        if tuple(s.shape) != shape:
            what = "of the velocity of x" if timed else "shaped like x"
            raise ValueError(f"sample: the model must return a score {what}, {shape}, got {tuple(s.shape)}")
        return s.to(x.dtype) if s.dtype != x.dtype and torch.float64 in (s.dtype, x.dtype) else s

    def at_sigma(self, x, sigma) -> torch.Tensor:
        """The score at a noise level that is not in the ladder, of a model that offers it."""
        return self.score.at_sigma(x, sigma)


def run_stage(stage, score, x, *, seed, first, start=0, stop=None, inpainting=None, after=None) -> torch.Tensor:
    """Runs rows start .. stop-1 of a stage on one batch, in place; known pixels are left as they are.

    Args:
        stage: a `Run`.
        score: called as score(x, level), level (B,).
        x: (B, copies C, H, W), the state.
        seed, first: sample b draws the noise of (seed, first + b).
        start, stop: the rows to run, all by default.
        inpainting: `Inpainting`, or None.
        after: called as after(i, x, score) when row i is done.

    Returns:
        x.
    """
    evaluate = Evaluation(score)
    mask = None if inpainting is None else inpainting.mask
    for i in range(start, len(stage.rows) if stop is None else stop):
        row = stage.rows[i]
        if row.paste == BEFORE:
            set_known(x, row.sigma, row.paste_step, inpainting, seed, first)
        s = row.update(x, evaluate, seed=seed, first=first, mask=mask)
        if row.paste == AFTER:
            set_known(x, row.sigma, row.paste_step, inpainting, seed, first)
        if after is not None:
            after(i, x, s)
    return x


def set_known(x, sigma, step, inpainting, seed, first) -> None:
    """y = known + sigma z; x = x (1 - m) + y m (NCSN, arXiv:1907.05600, Algorithm 2, lines 4, 5 and 9)."""
    known, mask = inpainting
    sigma = torch.full((len(x),), sigma, dtype=torch.float32, device=x.device)
    y = ops.perturb(known, sigma, seed=seed, step=step, first=first, stream=noise.INPAINT)
    x.copy_(torch.where(mask, y, x))
