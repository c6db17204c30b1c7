"""Watches a run from inside the loop: progress, callback, snapshots, diagnostics, checkpoints, and the stop on
non-finite values. It waits for the device every hundred steps and where a result leaves it, never every step."""

import time

import torch

from .calls import Counting
from .copies import Copies
from .inputs import integer
from .loop import run_stage
from .record import STATISTICS
from .table import DENOISE, Upsample

CHECK_EVERY = 100  # rows
UPSAMPLING = -1  # stands for the row in a stage that has none


def kept_rows(stages, snapshot) -> list[tuple[int, int]]:
    """(stage, row) after which x is kept: each level's last and each upsampling, row -1, for "levels", every k-th step
    for an integer k.

    Raises:
        ValueError: `snapshot` is neither, nor None.
    """
    if snapshot is None:
        return []
    if snapshot == "levels":
        ups = [(number, UPSAMPLING) for number, stage in enumerate(stages) if isinstance(stage, Upsample)]
        return sorted(level_ends(stages) + ups)
    if isinstance(snapshot, bool) or not isinstance(snapshot, int) or snapshot < 1:
        raise ValueError(f"sample: argument snapshot must be 'levels' or a positive integer, got {snapshot!r}")
    rows = [(number, i, row) for number, stage in enumerate(stages) for i, row in enumerate(stage.rows)]
    return [(number, i) for number, i, row in rows if row.kind != DENOISE and (row.step + 1) % snapshot == 0]


def n_kept(n, count) -> int:
    """How many of n samples the snapshots hold.

    Raises:
        ValueError: `count` is neither None nor a positive integer.
    """
    return n if count is None else min(n, integer("snapshot_n", count, 1))


def level_ends(stages) -> list[tuple[int, int]]:
    """(stage, row) of the last row of each level."""
    return [(number, i) for number, stage in enumerate(stages) for i, row in enumerate(stage.rows) if row.ends_level]


def place_of(stages, number, i) -> dict:
    """What happened at (stage, row): stage, level, sigma, step and kind."""
    if i == UPSAMPLING:
        return {"stage": number, "level": None, "sigma": stages[number].sigma, "step": None, "kind": "upsample"}
    row = stages[number].rows[i]
    return {"stage": number, "level": row.level, "sigma": row.sigma, "step": row.step, "kind": row.kind}


class Monitor:
    """The observer of one run; `watch` prepares it for a stage of a batch, `after` is the loop's hook."""

    def __init__(self, job, record, checkpoint, interruption, *, snapshot=None, callback=None, bar=None):
        self.job, self.record, self.checkpoint, self.interruption = job, record, checkpoint, interruption
        self.callback, self.bar, self.copies = callback, bar, Copies(job.device)
        self.snapshots = {place: slot for slot, place in enumerate(kept_rows(job.plan.stages, snapshot))}
        self.levels = {place: index for index, place in enumerate(level_ends(job.plan.stages))}
        self.began = time.monotonic()
        self.calls = {size: 0 for size in job.plan.evaluations}
        self.together: dict[str, int] = {}  # samples that fit into memory at a time, where not all of a batch do

    def watch(self, number, batch, low, x, arguments):
        """Prepares for stage `number` of the batch that begins at sample `low`; `arguments` are the loop's."""
        self.number, self.batch, self.low, self.arguments = number, batch, low, arguments
        self.stage = self.job.plan.stages[number]
        self.good, self.good_rows, self.pending = x.clone(), arguments["start"], {}

    def counting(self, stage) -> Counting:
        """The score of a stage, which counts its calls."""
        runner, size = self.job.runners[stage.model], self.job.plan.sizes[stage.model]
        return Counting(self.job.score(stage), runner, self.calls, size, self.together)

    def after(self, i, x, score):
        row, place = self.stage.rows[i], (self.number, i)
        last = i == len(self.stage.rows) - 1
        if place in self.levels:
            self.pending[self.levels[place]] = _statistics(row, x, score)
        if last or i + 1 - self.good_rows >= CHECK_EVERY:
            self._check(i, x)
        self._show(place, x)
        if self.bar is not None:
            self.bar.update(note=f"sigma {row.sigma:.3g}" if row.ends_level else None)
        if (self.checkpoint.is_due or self.interruption.asked) and not last:
            self._save(i, x)
            self.interruption.check()

    def upsampled(self, number, low, x):
        """The hook after an upsampling, stage `number`."""
        self.low = low
        self._show((number, UPSAMPLING), x)

    def _show(self, place, x):
        """Keeps a snapshot if one is due here, and calls the user's function."""
        if place in self.snapshots:
            kept = self.record.snapshots[self.snapshots[place]]  # without the copies that some states have
            part = kept[self.low : self.low + len(x)]
            self.copies.put(part, x[: len(part), : kept.shape[1]])
        if self.callback is not None:
            self.callback({"x": x, "first": self.job.first + self.low} | place_of(self.job.plan.stages, *place))

    def lap(self):
        """Adds the time since the last lap to the record's."""
        now = time.monotonic()
        self.record.seconds += now - self.began
        self.began = now

    def _save(self, i, x):
        """Writes the checkpoint after row i."""
        self._check(i, x)
        self.copies.flush()
        record = self.record
        record.batch, record.stage, record.row, record.state = self.batch, self.number, i + 1, x.cpu()
        self.lap()
        self.checkpoint.save(record)

    def _check(self, i, x):
        """Takes in the pending diagnostics if x is finite, raises if not."""
        if not torch.isfinite(x).all():
            self._fail(i, x)
        self.good.copy_(x)
        self.good_rows = i + 1
        for index, values in self.pending.items():
            self.record.statistics[self.batch, index] = values.cpu()
        self.pending = {}

    def _fail(self, i, x):
        """Runs the rows since the last good state again, one by one, and names the first that is not finite."""
        for j in range(self.good_rows, i + 1):
            run_stage(self.stage, x=self.good, **(self.arguments | {"start": j, "stop": j + 1}))
            if not torch.isfinite(self.good).all():
                i, x = j, self.good
                break
        row = self.stage.rows[i]
        bad = ~torch.isfinite(x).flatten(1).all(1)
        samples = (torch.nonzero(bad).flatten() + self.job.first + self.low).tolist()
        shown = ", ".join(map(str, samples[:8])) + (", ..." if len(samples) > 8 else "")
        raise FloatingPointError(
            f"sample: the state is not finite after the update at level {row.level} (sigma {row.sigma:g}), "
            f"step {row.step}, in {len(samples)} of {len(bad)} samples of the batch (index {shown}); "
            f"{self.stage.note or f'eps = {self.job.plan.eps[self.stage.model]:g}'} may be too large for this score"
        )


def _statistics(row, x, score):
    """The columns of `STATISTICS` over one batch: mean of sigma |score|, mean and variance of x, share not finite."""
    x = x.to(torch.float64)
    norm = row.sigma * torch.linalg.vector_norm(score.to(torch.float64).flatten(1), dim=1).mean()
    return torch.stack([norm, x.mean(), x.var(correction=0), 1 - torch.isfinite(x).to(torch.float64).mean()])


def diagnostics(plan, statistics) -> list[dict]:
    """The diagnostics of each level over all samples, from those of the batches (batches, levels, 4)."""
    sizes = [min(plan.batch_size, plan.n - low) for low in range(0, plan.n, plan.batch_size)]
    weight = (torch.tensor(sizes, dtype=torch.float64) / plan.n)[:, None]
    norm, mean, variance, nonfinite = statistics.unbind(-1)
    overall = (weight * mean).sum(0)
    columns = [
        (weight * norm).sum(0),
        overall,
        (weight * (variance + (mean - overall) ** 2)).sum(0),
        (weight * nonfinite).sum(0),
    ]
    ends = [place_of(plan.stages, *place) for place in level_ends(plan.stages)]
    return [
        {name: place[name] for name in ("stage", "level", "sigma", "step")} | dict(zip(STATISTICS, values, strict=True))
        for place, values in zip(ends, torch.stack(columns, 1).tolist(), strict=True)
    ]
