"""Seconds of the rows of a table: measured, and predicted by the additive model.

The model: a run takes its evaluations at each resolution times what one step takes there, plus its upsamplings
(`Plan.seconds`). There are two ways to measure.

"whole": each row is run on its own by `sample`, as a user would run it, several times in turn with the others; steps
and upsamplings are timed between these runs. The medians are what the model can be judged by.

"parts": the times of the levels of the row's own path through the shared runs, added up. They cost nothing, but they
leave out what a run does beside its levels, and the prediction comes from the same levels: agreement then only says
that levels of one resolution take equal times.
"""

import statistics
import time
from dataclasses import replace

import torch

from .. import sampling
from ..samplers.job import prepare
from ..samplers.record import Checkpoint, Record, fingerprint
from ..samplers.report import settings_of
from .parts import run_part, unit_times
from .shared_runs import SharedRuns

UNIT = "LRS-2-up-HRS-2"  # levels of each resolution and an upsampling; the first level also bears a beginning
CHEAP = 0.1  # share of the work of the shared runs that whole runs may add where the user does not say


def whole_is_cheap(shared: SharedRuns, n, rounds) -> bool:
    """Whether whole runs of n images add at most a tenth to the shared runs, an evaluation counting by its pixels."""
    sizes = {name: shape[1] * shape[2] for name, shape in zip(shared.distinct, shared.jobs[0].plan.shapes, strict=True)}
    work = sum(count * sizes[name] for name, count in shared.distinct.items()) * shared.jobs[0].plan.n
    extra = sum(count * sizes[name] for name, count in shared.separate.items()) * n * rounds
    return extra <= CHEAP * work


def medians(found) -> dict[str, float]:
    """The median of each list."""
    return {name: statistics.median(values) for name, values in found.items()}


def by_parts(shared: SharedRuns, records, n) -> tuple[list[float], list[float], dict[str, float]]:
    """Seconds for n images from the times of the shared runs.

    Args:
        records: what `SharedRuns.run` returned.

    Returns:
        measured and predicted seconds of each scheme, and the unit costs: seconds of one step of a batch at each
        resolution and of an upsampling.
    """
    found: dict[str, list[float]] = {}
    for part, record in zip(shared.parts, records, strict=True):
        job = shared.jobs[part.schemes[0]]
        plan = replace(job.plan, stages=list(part.stages))
        for name, values in unit_times(replace(job, plan=plan), record).items():
            found.setdefault(name, []).extend(values)
    units, share = medians(found), n / shared.jobs[0].plan.n
    measured = [
        share * sum(records[part.index].times.sum().item() for part in shared.path(index))
        for index in range(len(shared.jobs))
    ]
    predicted = [share * (replace(job.plan, unit_seconds=units).seconds or 0.0) for job in shared.jobs]
    return measured, predicted, units


def saved_seconds(shared: SharedRuns, records) -> tuple[float, float]:
    """Seconds of the shared runs, and what the same levels would have taken run for every scheme anew."""
    each = [record.times.sum().item() for record in records]
    return sum(each), sum(seconds * len(part.schemes) for part, seconds in zip(shared.parts, each, strict=True))


class WholeRuns:
    """Whole runs of every scheme in turn, several times, and the unit costs between them.

    Args:
        models: low and high.
        schemes, arguments: as for `SharedRuns`.
        n: images of a run.
        rounds: runs of each scheme.
    """

    def __init__(self, models, schemes, n, rounds, **arguments):
        self.models, self.schemes, self.n, self.arguments = models, schemes, n, arguments
        self.jobs = [prepare(models, scheme, n, **arguments) for scheme in schemes]
        self.unit_job = prepare(models, UNIT, n, **arguments)
        low, high = self.unit_job.plan.sizes
        self.units = [low, f"upsample {high}", high]
        # of finished rounds: seconds of each run, and of the units before it
        self.seconds = torch.zeros(rounds, len(schemes), dtype=torch.float64)
        self.unit_seconds = torch.zeros(rounds, len(schemes), len(self.units), dtype=torch.float64)

    @property
    def steps(self) -> int:
        """Rows of all rounds, for a progress bar."""
        return sum(_steps(job) + _steps(self.unit_job) for job in self.jobs) * len(self.seconds)

    def run(self, path, bar) -> tuple[list[float], list[float], dict[str, float]]:
        """Makes the runs that the file at `path` does not hold.

        Returns:
            measured (medians over the rounds) and predicted seconds of each scheme, and the unit costs.

        Raises:
            ValueError: the file is of a table with other settings.
        """
        record = Record(self.seconds, [self.unit_seconds], torch.zeros(1))
        settings = settings_of(self.unit_job, None) | {"schemes": self.schemes, "rounds": len(self.seconds)}
        file = Checkpoint(path, settings | {"model": "".join(map(fingerprint, self.unit_job.models))})
        file.load(record)
        bar.skip(record.batch * self.steps // len(self.seconds))
        if record.batch < len(self.seconds):
            run_part(self.unit_job)  # warms up
        while record.batch < len(self.seconds):
            for index, job in enumerate(self.jobs):
                bar.rename(f"timing {job.plan.scheme}")
                times = medians(unit_times(self.unit_job, run_part(self.unit_job)))
                self.unit_seconds[record.batch, index] = torch.tensor([times[name] for name in self.units])
                self.seconds[record.batch, index] = self._whole(job.plan.scheme)
                bar.update(_steps(job) + _steps(self.unit_job))
            record.batch += 1
            file.save(record)
        units = dict(zip(self.units, self.unit_seconds.flatten(0, 1).median(0).values.tolist(), strict=True))
        measured = [statistics.median(column) for column in self.seconds.T.tolist()]
        return measured, [replace(job.plan, unit_seconds=units).seconds or 0.0 for job in self.jobs], units

    def _whole(self, scheme) -> float:
        began = time.perf_counter()
        sampling.sample(self.models, scheme, self.n, progress=False, **self.arguments)  # ends on the CPU
        return time.perf_counter() - began


def _steps(job) -> int:
    return sum(job.plan.evaluations.values()) * job.plan.batches
