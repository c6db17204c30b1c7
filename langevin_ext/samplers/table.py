"""What a run consists of: stages, which are upsamplings or runs with one model, and the rows of a run.

A row is one evaluation of the score and the update with it,

    x <- x + score_coef score(x, level) + noise_coef z(step)

as plain numbers computed in float64 before the run. Every scheme is a table of such rows; none has a loop of its own.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

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


@dataclass(frozen=True)
class Run:
    """A stage: rows to run with one model, at its resolution."""

    model: int  # index into the list of models, coarsest first
    rows: tuple[Row, ...]

    @property
    def level_ends(self) -> list[Row]:
        """The last row of each level, in order."""
        return [row for row in self.rows if row.ends_level]


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


def evaluations(stages, shapes) -> dict[str, int]:
    """Evaluations of the score per sample at each resolution, "HxW", coarsest first.

    Args:
        stages: the stages of a run.
        shapes: (C, H, W) of each model.
    """
    counts = {f"{height}x{width}": 0 for _, height, width in shapes}
    for stage in stages:
        _, height, width = shapes[stage.model]
        counts[f"{height}x{width}"] += len(stage.rows)
    return counts
