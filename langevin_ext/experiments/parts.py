"""Some stages run on all samples, with the time of each level; stopped and continued by a file."""

import bisect
import time
from dataclasses import dataclass, field, replace

import torch

from .. import sampling
from .._interruption import Interruption
from ..samplers import inputs
from ..samplers.job import Job
from ..samplers.monitor import UPSAMPLING, Monitor, place_of
from ..samplers.record import Checkpoint, Record, fingerprint, new_record
from ..samplers.report import settings_of
from ..samplers.table import DENOISE, Upsample, evaluations

SHOWN = 8  # samples whose states after each level are kept


def part_of(job, stages, name, init) -> Job:
    """A job that runs these stages alone, from `init`."""
    stages = list(stages)
    counts = evaluations(stages, job.plan.shapes)
    plan = replace(job.plan, scheme=name, stages=stages, evaluations=counts, output=stages[-1].model)
    return replace(job, plan=plan, init=init, failed={})


@dataclass
class PartRecord(Record):
    """A `Record` with the time of each level; its snapshots are those of the first samples alone.

    `times` (batches, marks) are seconds, a mark being the end of a level, the denoising, or an upsampling.
    """

    times: torch.Tensor = field(default_factory=lambda: torch.zeros(0, 0))

    def tensors(self) -> dict[str, torch.Tensor]:
        return super().tensors() | {"times": self.times}


def marks(stages) -> list[tuple[int, int]]:
    """(stage, row) after which a time is taken: each level's last row, the denoising, each upsampling."""
    places = []
    for number, stage in enumerate(stages):
        if isinstance(stage, Upsample):
            places.append((number, UPSAMPLING))
        places += [(number, i) for i, row in enumerate(stage.rows) if row.ends_level or row.kind == DENOISE]
    return places


class Watch(Monitor):
    """A `Monitor` that also takes the time of each level, without that of saving, and keeps a few states."""

    def __init__(self, job, record, checkpoint, interruption, **options):
        super().__init__(job, record, checkpoint, interruption, **options)
        self.marks, self.mark, self.since = marks(job.plan.stages), 0, time.perf_counter()

    def begin(self):
        """Starts the clock."""
        self.since = time.perf_counter()

    def watch(self, number, batch, low, x, arguments):
        super().watch(number, batch, low, x, arguments)
        self.mark = bisect.bisect_left(self.marks, (number, arguments["start"]))

    def upsampled(self, number, low, x):
        super().upsampled(number, low, x)
        self.batch, self.mark = low // self.job.plan.batch_size, self.marks.index((number, UPSAMPLING))
        self._keep(x)
        self._tick(x)

    def after(self, i, x, score):
        reached = (self.number, i) == self.marks[self.mark]
        if reached:
            self._keep(x)
        super().after(i, x, score)  # which may save
        if reached:
            self._tick(x)
            self.mark += 1

    def _keep(self, x):
        kept = self.record.snapshots[self.mark][self.low : self.low + len(x)]
        kept.copy_(x[: len(kept)])

    def _tick(self, x):
        """Adds the time since the last tick to the mark that is run towards."""
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        now = time.perf_counter()
        self.record.times[self.batch, self.mark] += now - self.since
        self.since = now

    def _save(self, i, x):
        self._tick(x)
        super()._save(i, x)
        self.begin()


def run_part(job, *, path=None, bar=None) -> PartRecord:
    """Runs a job, continuing what the file at `path` holds; its states are `x` of the result."""
    stages, shapes = job.plan.stages, job.plan.shapes
    plain = new_record(job.plan, [], job.dtype)
    places = marks(stages)
    shown = [torch.zeros(min(SHOWN, job.plan.n), *shapes[stages[s].model], dtype=job.dtype) for s, _ in places]
    times = torch.zeros(job.plan.batches, len(places), dtype=torch.float64)
    record = PartRecord(plain.x, shown, plain.statistics, times=times)
    known = {"model": "".join(map(fingerprint, job.models)), "stages": fingerprint(repr(stages))}
    file = Checkpoint(path, settings_of(job, None) | known if path else None)
    file.load(record)
    if bar is not None:
        bar.skip(sampling.done(job, record))
        bar.rename(job.plan.scheme)
    with (
        Interruption() as interruption,
        torch.inference_mode(),
        inputs.evaluation_mode([*job.models, job.upsample]),
    ):
        watch = Watch(job, record, file, interruption, bar=bar)
        while record.batch < job.plan.batches:
            watch.begin()
            sampling.run_batch(job, record, watch, file)
    return record


def unit_times(job, record) -> dict[str, list[float]]:
    """Seconds of one step at each resolution, and of each upsampling, of every full batch of a run.

    {"HxW": one for each level, "upsample HxW": ...}; a step is a level's time over its steps.
    """
    stages, sizes = job.plan.stages, job.plan.sizes
    whole = max(1, job.plan.n // job.plan.batch_size)
    found: dict[str, list[float]] = {}
    last = (0, -1)
    for mark, (number, i) in enumerate(marks(stages)):
        rows = i - (last[1] if last[0] == number else -1)
        last, size = (number, i), sizes[stages[number].model]
        if place_of(stages, number, i)["kind"] == DENOISE:
            continue
        name, count = (f"upsample {size}", 1) if i == UPSAMPLING else (size, rows)
        found.setdefault(name, []).extend((record.times[:whole, mark] / count).tolist())
    return found
