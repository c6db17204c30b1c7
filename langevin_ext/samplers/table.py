"""What a run consists of: stages, which run rows with one model or change the state between such runs.

A row is one update of the state as plain numbers computed in float64 before the run; `Row`, the Langevin step, is

    x <- x + score_coef score(x, level) + noise_coef z(step)

Every scheme is a list of stages; none has a loop of its own. A family of samplers whose update has another form
brings rows of its own, with the fields level, sigma, step, kind, ends_level, paste and paste_step of `Row`, and its
`evaluations` and `update`.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch

from .. import ops

STEP, DENOISE = "step", "denoise"  # kinds of rows
BEFORE, AFTER = "before", "after"  # times at which a row sets the known pixels


class Row(NamedTuple):
    """One evaluation of the score and the update with it."""

    level: int  # index into the ladder of the stage's model, passed to the score
    sigma: float  # that level
    score_coef: float
    noise_coef: float
    step: int  # counter of the noise z: the number of steps before this one, over all levels and stages
    kind: str = STEP
    ends_level: bool = False
    paste: str = ""  # inpainting: when the known pixels become known + sigma z(paste_step); "" is not at all
    paste_step: int = 0  # counter of that noise: the number of levels before this one, over all stages

    @property
    def evaluations(self) -> int:
        """Of the score, in `update`."""
        return 1

    def update(self, x, score, *, seed, first, mask=None) -> torch.Tensor:
        """The update of x, in place.

        Args:
            x: (B, copies C, H, W), the state.
            score: score(x, level), level an index into the ladder or, of velocity models, a float time.
            seed, first: sample b draws the noise of (seed, first + b).
            mask: bool, True where x must stay as it is; or None.

        Returns:
            the last score that was used.
        """
        s = score(x, self.level)
        ops.langevin_step(x, s, self.score_coef, self.noise_coef, seed=seed, step=self.step, first=first, mask=mask)
        return s


@dataclass(frozen=True)
class Run:
    """A stage: rows to run with one model, at its resolution."""

    model: int  # index into the list of models, coarsest first
    rows: tuple[Any, ...]
    copies: int = 1  # the state has so many times the channels of the samples
    sigmas: tuple[float, ...] | None = None  # what row.level indexes, where it is not the ladder of the model
    note: str = ""  # what the plan says of it, instead of the levels and the step size

    @property
    def level_ends(self) -> list:
        """The last row of each level, in order."""
        return [row for row in self.rows if row.ends_level]

    @property
    def evaluations(self) -> int:
        """Of the score, per sample."""
        return sum(row.evaluations for row in self.rows)


@dataclass(frozen=True)
class Change:
    """A stage that makes another state of x in one go: the base of those that begin and end a scheme."""

    model: int  # index of the model whose resolution x has
    rows: ClassVar[tuple] = ()
    level_ends: ClassVar[list] = []

    @property
    def copies(self) -> int:
        """As in `Run`, afterwards."""
        return 1

    @property
    def evaluations(self) -> int:
        return 0

    @property
    def sigmas(self) -> tuple[float, ...] | None:
        """As in `Run`."""
        return None

    def apply(self, x, score, *, seed, first) -> torch.Tensor:
        """The new state; arguments as for `Row.update`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Upsample:
    """A stage: x to twice its height and width, and optionally x + sigma z after it."""

    model: int  # index of the model whose resolution is reached
    sigma: float = 0.0  # of the noise added afterwards, stream RENOISE
    step: int = 0  # counter of that noise: the number of upsamplings before
    paste_sigma: float | None = None  # inpainting, at the end of a scheme: known pixels become known + sigma z
    paste_step: int = 0  # counter of that noise, as in `Row`
    rows: ClassVar[tuple[Row, ...]] = ()
    level_ends: ClassVar[list[Row]] = []
    copies: ClassVar[int] = 1
    evaluations: ClassVar[int] = 0
    sigmas: ClassVar[None] = None


def evaluations(stages, shapes) -> dict[str, int]:
    """Evaluations of the score per sample at each resolution, "HxW", coarsest first.

    Args:
        stages: the stages of a run.
        shapes: (C, H, W) of each model.
    """
    counts = {f"{height}x{width}": 0 for _, height, width in shapes}
    for stage in stages:
        _, height, width = shapes[stage.model]
        counts[f"{height}x{width}"] += stage.evaluations
    return counts
