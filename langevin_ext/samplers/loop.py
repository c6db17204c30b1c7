"""The one loop: score, step, over the rows of a stage, for one batch."""

from typing import NamedTuple

import torch

from .. import noise, ops
from .table import AFTER, BEFORE


class Inpainting(NamedTuple):
    """The pixels that are known, of one batch."""

    known: torch.Tensor  # (B, C, H, W)
    mask: torch.Tensor  # bool (C, H, W) or (B, C, H, W), True where known


def run_stage(stage, score, x, *, seed, first, start=0, stop=None, inpainting=None, after=None) -> torch.Tensor:
    """Runs rows start .. stop-1 of a stage on one batch, in place.

        x <- x + score_coef score(x, level) + noise_coef z,     known pixels left as they are

    Args:
        stage: a `Run`.
        score: called as score(x, level), level int64 (B,).
        x: (B, C, H, W), the state.
        seed, first: sample b draws the noise of (seed, first + b).
        start, stop: the rows to run, all by default.
        inpainting: `Inpainting`, or None.
        after: called as after(i, x, score) when row i is done.

    Returns:
        x.
    """
    level = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    mask = None if inpainting is None else inpainting.mask
    for i in range(start, len(stage.rows) if stop is None else stop):
        row = stage.rows[i]
        if row.paste == BEFORE:
            set_known(x, row.sigma, row.paste_step, inpainting, seed, first)
        s = score(x, level.fill_(row.level))
        if s.shape != x.shape:
            raise ValueError(
                f"sample: the model must return a score shaped like x, {tuple(x.shape)}, got {tuple(s.shape)}"
            )
        if s.dtype != x.dtype and torch.float64 in (s.dtype, x.dtype):
            s = s.to(x.dtype)
        ops.langevin_step(x, s, row.score_coef, row.noise_coef, seed=seed, step=row.step, first=first, mask=mask)
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
