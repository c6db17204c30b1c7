"""Many schemes run together: what several have in common from the start on is run once.

Step counters run over all stages (see `samplers.table`), so schemes with the same first segments draw the same noise in
them and share their states bit for bit. The levels and upsamplings of all schemes form a tree; a `Part` is a stretch of
it without a fork. Each part is run once for all samples, from the states that the part before it left, and its states
are the samples of the schemes that end there, equal to those of `sample`.

Parts are runs of their own for the machinery of `sample`: they stop and continue by a checkpoint file each.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import safe_open

from ..samplers.job import Job, prepare
from ..samplers.table import DENOISE, Row, Run, Upsample, evaluations
from .parts import PartRecord, part_of, run_part


@dataclass(frozen=True)
class Part:
    """A stretch of the tree without a fork.

    Attributes:
        index: its place in the list of parts; parents come first.
        parent: index of the part whose states it starts from, None at a start from noise.
        name: everything from the start to its end, "16x16[1:10]-up-32x32[8:10]", levels counted from 1.
        stages: its own stages.
        schemes: indices of the schemes that pass through it.
        ends: indices of those that end with it.
    """

    index: int
    parent: int | None
    name: str
    stages: tuple[Run | Upsample, ...]
    schemes: tuple[int, ...]
    ends: tuple[int, ...]


@dataclass
class _Node:
    schemes: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    children: dict["Run | Upsample", "_Node"] = field(default_factory=dict)


class SharedRuns:
    """Schemes over the same models with the same settings, and the parts they consist of.

    Args:
        models: list of models, coarsest first.
        schemes: names.
        n: number of samples of each.
        arguments: those of `sample` that its samples depend on, the same for all.

    Attributes:
        jobs: a `Job` for each scheme.
        parts: list of `Part`, each after its parent.

    Raises:
        ValueError, TypeError: as `sample`; a level must have at least one step.
    """

    def __init__(self, models, schemes, n, **arguments):
        self.jobs: list[Job] = [prepare(models, scheme, n, **arguments) for scheme in schemes]
        if 0 in self.jobs[0].plan.n_steps_each:
            raise ValueError("table: argument n_steps_each must be at least 1, got 0")
        self.parts = _parts(self.jobs)

    def path(self, scheme) -> list[Part]:
        """The parts of a scheme, given its index, in order."""
        return [part for part in self.parts if scheme in part.schemes]

    @property
    def separate(self) -> dict[str, int]:
        """Evaluations per sample at each resolution, every scheme run on its own."""
        return _sum(job.plan.evaluations for job in self.jobs)

    @property
    def distinct(self) -> dict[str, int]:
        """Evaluations per sample at each resolution that are run."""
        return _sum(evaluations(part.stages, self.jobs[0].plan.shapes) for part in self.parts)

    @property
    def steps(self) -> int:
        """Rows of all parts over all batches, for a progress bar."""
        return sum(self.distinct.values()) * self.jobs[0].plan.batches

    def run(self, folder, bar=None) -> list[PartRecord]:
        """Runs the parts that are not complete in the folder, a file for each.

        Returns:
            What each part produced, without its states: those are in the files, see `states`.

        Raises:
            ValueError: a file is of a run with other settings.
            FloatingPointError: a state is not finite.
        """
        done = []
        for part in self.parts:
            init = self.jobs[0].init if part.parent is None else self.states(folder, part.parent)
            job = part_of(self.jobs[part.schemes[0]], part.stages, part.name, init)
            record = run_part(job, path=_file(folder, part.index), bar=bar)
            record.x = record.x.new_empty(0, *record.x.shape[1:])  # large, and in the file; a slice would keep it all
            done.append(record)
        return done

    def states(self, folder, index) -> torch.Tensor:
        """The states after a complete part, (n, C, H, W)."""
        with safe_open(_file(folder, index), "pt") as file:
            return file.get_tensor("x")

    def samples(self, folder, scheme) -> torch.Tensor:
        """The samples of a scheme, given its index, from complete parts."""
        return self.states(folder, self.path(scheme)[-1].index)


def _file(folder, index):
    return Path(folder) / f"{index:02d}.safetensors"


def _sum(counts) -> dict[str, int]:
    total: dict[str, int] = {}
    for count in counts:
        total = {size: total.get(size, 0) + value for size, value in count.items()}
    return total


def _pieces(stages) -> list[Run | Upsample]:
    """The stages cut at the ends of levels."""
    pieces: list[Run | Upsample] = []
    for stage in stages:
        if isinstance(stage, Upsample):
            pieces.append(stage if stage.paste_sigma is not None else replace(stage, paste_step=0))  # a counter unused
            continue
        rows: list[Row] = []
        for row in stage.rows:
            rows.append(row)
            if row.ends_level or row.kind == DENOISE:
                pieces.append(Run(stage.model, tuple(rows)))
                rows = []
    return pieces


def _parts(jobs) -> list[Part]:
    root = _Node()
    for index, job in enumerate(jobs):
        node = root
        for piece in _pieces(job.plan.stages):
            node = node.children.setdefault(piece, _Node())
            node.schemes.append(index)
        node.ends.append(index)
    parts: list[Part] = []
    sizes = jobs[0].plan.sizes

    def add(piece, node, parent, before):
        pieces = [piece]
        while not node.ends and len(node.children) == 1:
            ((piece, node),) = node.children.items()
            pieces.append(piece)
        before = before + pieces
        index = len(parts)
        stages, name = _merged(pieces), _name(_merged(before), sizes)
        parts.append(Part(index, parent, name, stages, tuple(node.schemes), tuple(node.ends)))
        for piece, child in node.children.items():
            add(piece, child, index, before)

    for piece, node in root.children.items():
        add(piece, node, None, [])
    return parts


def _merged(pieces) -> tuple[Run | Upsample, ...]:
    """Neighbouring runs with one model as one."""
    stages: list[Run | Upsample] = []
    for piece in pieces:
        if stages and isinstance(piece, Run) and isinstance(stages[-1], Run):
            piece = Run(piece.model, stages.pop().rows + piece.rows)
        stages.append(piece)
    return tuple(stages)


def _name(stages, sizes) -> str:
    words = []
    for stage in stages:
        levels = [row.level + 1 for row in stage.level_ends]
        if isinstance(stage, Upsample):
            words.append("up")
        elif levels:
            words.append(f"{sizes[stage.model]}[{levels[0]}:{levels[-1]}]")
        if stage.rows and stage.rows[-1].kind == DENOISE:
            words.append("denoised")
    return "-".join(words)
