"""Stages of plain Langevin steps as one step that is captured and replayed.

A step reads its coefficients, its noise level and where its noise lies from a table in the device's memory at a place
that it moves on itself (`ops.advance_row`, `ops.langevin_table_step`). On a GPU it is captured once as a CUDA graph,
which then serves all rows, levels, stages, schemes and runs of that network in batches of that size; what a run has of
its own is copied in before its first row. Nothing in a replay waits for the GPU. The numbers are those of the loop.
"""

import contextlib
import math
import warnings

import torch

from .. import ops
from .._native import SlowerPathWarning
from ..captures import aside, captured
from ..engine import Engine
from ..ops.common import signed
from .calls import is_out_of_memory
from .inputs import Relevelled
from .loop import run_stage, set_known
from .table import AFTER, BEFORE, Row, Run

WARM_UP = 3  # steps before a capture, in which cuDNN and the kernels make themselves ready
KEPT = 4  # captured steps of one engine
CAPACITY = 1024  # rows of a table, at least
WORTH = 8  # rows, below which a capture takes longer than it saves


class Step:
    """One step of a batch, made for one row of the table after the other.

    Args:
        engine: the score.
        batch: samples.
        mask: of the known pixels, for its shape; or None.
        capacity: rows that the table has room for.

    Attributes:
        x: (batch, C, H, W), the state.
        score: the last one.
        weights: what the engine computes with.
        given: on a GPU an event behind the last replay, once it has been given back.
    """

    given = None

    def __init__(self, engine, batch, mask, capacity):
        device = engine.device
        self.weights, self.graph, self.score = engine.network(), None, None
        self.owner = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self.x = torch.full((batch, *engine.shape), 0.5, device=device)
        self.level = torch.zeros(batch, dtype=torch.int64, device=device)
        self.table = torch.zeros(capacity, 4, dtype=torch.float64, device=device)
        self.place = torch.tensor([-1, 0, 0], device=device)
        self.mask = None if mask is None else torch.zeros_like(mask, memory_format=torch.contiguous_format)

    def __del__(self, suppress=contextlib.suppress):  # which the module may have lost when the process ends
        """Its memory goes back to the stream that it was taken on, while replays on another may not have ended."""
        if self.given is not None:
            with suppress(RuntimeError):  # of a GPU on which nothing runs any more
                self.owner.wait_event(self.given)

    def load(self, x, rows, levels, mask, seed, first, start):
        """Sets the state, the table, and the place before row `start`; `levels`[row.level] is the engine's level."""
        values = [[row.score_coef, row.noise_coef, row.step, levels[row.level]] for row in rows]
        self.table.fill_(math.nan)
        self.table[: len(rows)].copy_(torch.tensor(values, dtype=torch.float64).view(-1, 4))
        self.place.copy_(torch.tensor([start - 1, signed(seed), first]))
        self.x.copy_(x)
        if self.mask is not None:
            self.mask.copy_(mask)

    def make(self, engine):
        """The calls of one step."""
        ops.advance_row(self.place, self.table, self.level)
        self.score = engine(self.x, self.level)
        ops.langevin_table_step(self.x, self.score, self.table, self.place, mask=self.mask)

    def capture(self, engine):
        """Makes a graph of the calls; on the CPU `replay` makes them themselves."""
        engine.prepare(len(self.x))
        if self.x.device.type != "cuda":
            return
        with aside(self.x.device):
            for _ in range(WARM_UP):
                self.make(engine)
        self.graph = captured(lambda: self.make(engine), self.x.device)

    def replay(self, engine):
        """The next row."""
        if self.graph is None:
            self.make(engine)
        else:
            self.graph.replay()


def take(engine, batch, mask, rows) -> Step:
    """A step for so many rows, nobody else's until `give`: one that is there already, or a new one."""
    capacity = max(CAPACITY, 2 ** (rows - 1).bit_length())
    step = engine.steps.pop((batch, None if mask is None else mask.dim(), capacity), None)
    if step is None or step.weights is not engine.network():
        step = None  # gives its memory back first
        step = Step(engine, batch, mask, capacity)
        step.capture(engine)
    elif step.given is not None:  # its last user may have had another stream
        torch.cuda.current_stream(engine.device).wait_event(step.given)
    return step


def give(engine, step) -> None:
    """Keeps a step for the next who needs one; the one that was not needed for longest goes."""
    if step.graph is not None:
        step.given = torch.cuda.current_stream(engine.device).record_event()
    engine.steps[len(step.x), None if step.mask is None else step.mask.dim(), len(step.table)] = step
    while len(engine.steps) > KEPT:
        engine.steps.pop(next(iter(list(engine.steps)), None), None)


def engine_of(score) -> tuple:
    """The engine behind a score and, for each level of the score, the engine's; (None, None) where there is none."""
    if isinstance(score, Engine):
        return score, range(len(score.sigmas))
    if isinstance(score, Relevelled) and isinstance(score.model, Engine):
        return score.model, score.index.tolist()
    return None, None


def why_not(stage, score, wish) -> str:
    """Why the rows of a `Run` are not replayed, "" where they are.

    Args:
        score: of the stage.
        wish: the argument graph of `sample`.
    """
    engine, _ = engine_of(score)
    if wish is False:
        return "as asked for"
    others = sorted({type(row).__name__ for row in stage.rows if type(row) is not Row})
    if others:
        return f"its updates are of another form ({', '.join(others)})"
    if engine is None:
        return "no engine computes the score at these levels"
    if wish == "auto" and engine.device.type != "cuda":
        return "a graph is for a GPU"
    if wish == "auto" and len(stage.rows) < WORTH:
        return f"{len(stage.rows)} updates are too few for a capture"
    return ""


def check(stages, scores, wish) -> None:
    """Looks at the argument graph of `sample`.

    Raises:
        ValueError: `wish` is none of "auto", True, False, or True where a stage cannot be replayed.
    """
    if wish not in ("auto", True, False) or isinstance(wish, int) and not isinstance(wish, bool):
        raise ValueError(f"sample: argument graph must be 'auto', True or False, got {wish!r}")
    for i, (stage, score) in enumerate(zip(stages, scores, strict=True)):
        if wish is True and isinstance(stage, Run) and (reason := why_not(stage, score, wish)):
            raise ValueError(f"sample: argument graph must be 'auto' or False here; stage {i}: {reason}")


def run(job, number, x, *, score, after, **arguments) -> torch.Tensor:
    """`run_stage` of the job's stage `number`, by replays where its plan says so; arguments and result are the same."""
    stage, (engine, levels) = job.plan.stages[number], engine_of(score.score)
    loop = job.failed.get(number) or why_not(stage, score.score, job.graph)
    step = None if loop else _taken(job, number, engine, len(x), arguments["inpainting"])
    if step is None:
        return run_stage(stage, score, x, after=after, **arguments)
    try:
        return _replayed(step, engine, stage, x, levels, score, after, **arguments)
    finally:
        give(engine, step)


def _taken(job, number, engine, batch, inpainting):
    """A step for a stage; None, and a reason in job.failed, where the capture fails and nobody insists on it."""
    mask = None if inpainting is None else inpainting.mask
    try:
        return take(engine, batch, mask, len(job.plan.stages[number].rows))
    except RuntimeError as error:
        if job.graph is True:
            raise
        full = is_out_of_memory(error)  # a loop needs less, and can take the batch in parts
        job.failed[number] = f"the capture {'ran out of memory' if full else 'failed'} ({str(error).splitlines()[0]})"
        kept = "" if full else "; torch may keep the memory it took until the process ends"
        warnings.warn(f"sample: steps are made one by one: {job.failed[number]}{kept}", SlowerPathWarning, stacklevel=5)
    if full:  # now that the error no longer holds what had been allocated
        engine.free()
        torch.cuda.empty_cache()
    return None


def _replayed(step, engine, stage, x, levels, score, after, *, seed, first, start, inpainting):
    """The rows from `start` on."""
    step.load(x, stage.rows, levels, None if inpainting is None else inpainting.mask, seed, first, start)
    for i in range(start, len(stage.rows)):
        row = stage.rows[i]
        if row.paste == BEFORE:
            set_known(step.x, row.sigma, row.paste_step, inpainting, seed, first)
        step.replay(engine)
        score.count()
        if row.paste == AFTER:
            set_known(step.x, row.sigma, row.paste_step, inpainting, seed, first)
        after(i, step.x, step.score)
    return x.copy_(step.x)


def notes(job) -> list[str]:
    """A sentence on each stage with rows."""
    replayed = "a captured step, replayed" if job.device.type == "cuda" else "a step from a table, call by call"
    lines = []
    for i, stage in enumerate(job.plan.stages):
        if isinstance(stage, Run):
            loop = job.failed.get(i) or why_not(stage, job.score(stage), job.graph)
            lines.append(f"stage {i}: " + (f"a loop: {loop}" if loop else replayed))
    return lines
