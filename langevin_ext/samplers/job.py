"""A run, checked and laid out before its first step."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from tqdm import tqdm

from ..engine import PRECISIONS
from ..schedules import step_lr_from_eps
from . import build, find, graphs, inputs, takes
from .batches import default_batch
from .engines import engines_of
from .starts import DataStart, start_of
from .table import DENOISE, Change, Run, Upsample, evaluations
from .upsampling import check_ladder_of_sizes, check_upsample, try_out


@dataclass(frozen=True)
class Plan:
    """What `sample` will do: `print` it.

    Attributes:
        scheme: its name, as it prints itself.
        n, batch_size, denoise: as resolved.
        stages: `Run` with its rows, `Upsample`, or a `Change` of the state.
        sigmas, shapes, eps, n_steps_each: of each model, coarsest first.
        evaluations: of the score per sample at each resolution, {"HxW": count}; a batch makes so many calls.
        output: index of the model that has the shape of the samples.
        unit_seconds: what one step and one upsampling of a batch take, {"HxW": s, "upsample HxW": s}, if measured.
    """

    scheme: str
    n: int
    batch_size: int
    stages: list[Run | Upsample | Change]
    sigmas: list[list[float]]
    shapes: list[tuple[int, ...]]
    eps: list[float]
    n_steps_each: list[int]
    denoise: bool
    evaluations: dict[str, int]
    output: int
    unit_seconds: dict[str, float] | None = None

    @property
    def batches(self) -> int:
        return math.ceil(self.n / self.batch_size)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of the samples."""
        return self.shapes[self.output]

    @property
    def bytes(self) -> int:
        """Of the samples, as float32."""
        return 4 * self.n * math.prod(self.shape)

    @property
    def seconds(self) -> float | None:
        """Predicted time: the sum over all steps and upsamplings of what one takes; None unless that was measured."""
        if self.unit_seconds is None:
            return None
        names = [f"upsample {self.sizes[s.model]}" for s in self.stages if isinstance(s, Upsample)]
        each = sum(self.unit_seconds[name] for name in names)
        each += sum(self.unit_seconds[size] * k for size, k in self.evaluations.items() if k)
        return self.n / self.batch_size * each  # the last batch may be smaller

    @property
    def sizes(self) -> list[str]:
        """ "HxW" of each model."""
        return [f"{height}x{width}" for _, height, width in self.shapes]

    def __str__(self) -> str:
        lines = [
            f"{self.scheme}: {self.n} samples of {'x'.join(map(str, self.shape))} in {self.batches} "
            f"batch{'es' * (self.batches > 1)} of at most {self.batch_size}"
        ]
        lines += [f"  stage {number}: {self._stage(stage)}" for number, stage in enumerate(self.stages)]
        lines += [
            f"  {count} evaluations at {size}" + self._each(size) for size, count in self.evaluations.items() if count
        ]
        if self.seconds is not None:
            lines.append(f"  about {self.seconds:.3g} s")
        lines.append(
            f"  samples of {tqdm.format_sizeof(self.bytes, 'B')}; on disk at most twice that while they are drawn"
        )
        return "\n".join(lines)

    def _stage(self, stage) -> str:
        size = self.sizes[stage.model]
        if isinstance(stage, Upsample):
            return f"upsample to {size}" + f", add noise of sigma {stage.sigma:g}" * (stage.sigma > 0)
        if isinstance(stage, Change):
            return str(stage)
        if stage.note:
            return f"{size}, {len(stage.rows)} updates, {stage.note}"
        levels = [f"{row.sigma:g}" for row in stage.level_ends]
        denoised = ", then denoised" * (bool(stage.rows) and stage.rows[-1].kind == DENOISE)
        eps, steps = self.eps[stage.model], self.n_steps_each[stage.model]
        return (
            f"{size}, {len(levels)} level{'s' * (len(levels) != 1)}, sigma {' '.join(levels) or 'none'}, "
            f"{steps} steps each, eps {eps:g} (step_lr {step_lr_from_eps(eps):g}){denoised}"
        )

    def _each(self, size) -> str:
        return "" if self.unit_seconds is None else f", {self.unit_seconds[size]:.3g} s each for a batch"


@dataclass(frozen=True)
class Job:
    """A plan with everything its execution needs."""

    plan: Plan
    models: list
    scores: list[Callable]
    seed: int
    first: int
    init: str | torch.Tensor | DataStart
    pixels: list[tuple] | None  # known and mask at each resolution
    upsample: str | Callable
    device: torch.device
    dtype: torch.dtype
    options: dict = field(default_factory=dict)
    runners: list = field(default_factory=list)  # what is called: the engine of a model, or the model
    precision: str = "fp32"
    engine: list[str] = field(default_factory=list)  # what each runner is, and why
    graph: str | bool = "auto"  # the user's wish
    failed: dict[int, str] = field(default_factory=dict)  # {stage: why its step could not be captured}

    def score(self, stage) -> Callable:
        """The score that a stage's rows call, level an index into the stage's ladder."""
        if stage.sigmas is None:
            return self.scores[stage.model]
        return inputs.ladder_of(self.runners[stage.model], stage.sigmas, "the noise levels of the scheme")[0]

    def state_shape(self, stage) -> tuple[int, ...]:
        """(copies C, H, W) of the state after a stage."""
        channels, height, width = self.plan.shapes[stage.model]
        return stage.copies * channels, height, width


def prepare(
    model,
    scheme,
    n,
    *,
    seed=0,
    first=0,
    batch_size=None,
    sigmas=None,
    eps=None,
    step_lr=None,
    n_steps_each=100,
    denoise=True,
    init=None,
    data=None,
    known=None,
    mask=None,
    upsample="bicubic",
    precision="auto",
    graph="auto",
    device=None,
    dtype=torch.float32,
    **options,
) -> Job:
    """Checks the arguments of `sample` and lays the run out; raises ValueError or TypeError for what cannot run."""
    name, found, _ = find(scheme, inputs.level_counts(model))
    models = inputs.models_of(model, found.velocity)
    n, seed, first = inputs.integer("n", n, 1), inputs.integer("seed", seed), inputs.integer("first", first)
    _check_words(n, seed, first)
    _check_choices(precision, dtype)
    check_upsample(upsample)
    shapes = [tuple(int(size) for size in one.shape) for one in models]
    check_ladder_of_sizes(shapes)
    _, ladders = (models, [[]]) if found.velocity else inputs.ladders_of(models, sigmas)
    inpainting = known is not None or mask is not None
    given = {"eps": eps, "step_lr": step_lr, "inpainting": inpainting or None, "denoise": None if denoise else False}
    _check_taken(name, found, given | ({"sigmas": sigmas} if found.velocity or found.own_levels else {}))
    eps, steps = inputs.step_settings(eps, step_lr, n_steps_each, len(models), inpainting)
    options = {option: inputs.plain(value) for option, value in options.items()}
    common = {"eps": eps, "n_steps_each": steps, "denoise": bool(denoise), "inpainting": inpainting, "models": models}
    scheme, stages = build(scheme, ladders, options, **common)
    output = stages[-1].model
    device = inputs.device_of(models, device)
    inputs.check_dtype(models, dtype, device)
    try_out(upsample, stages, shapes, dtype, device)
    if batch_size is None:
        batch_size = default_batch(models, shapes[output], device)
    batch_size = min(n, inputs.integer("batch_size", batch_size, 1))
    runners, kind, notes = engines_of(models, precision, device, dtype, batch_size)
    scores = runners if found.velocity else inputs.ladders_of(runners, sigmas)[0]
    init = start_of(found.init if init is None else init, data, n, shapes[stages[0].model], models)
    pixels = inputs.known_pixels(known, mask, n, shapes, output, device, dtype)
    plan = Plan(
        scheme,
        n,
        batch_size,
        stages,
        ladders,
        shapes,
        eps,
        steps,
        bool(denoise),
        evaluations(stages, shapes),
        output,
    )
    job = Job(plan, models, scores, seed, first, init, pixels, upsample, device, dtype, options, runners, kind, notes)
    called = [job.score(stage) for stage in stages]  # raises for levels that the model does not have
    graphs.check(stages, called, graph)
    return replace(job, graph=graph)


def _check_taken(name, scheme, given):
    """Raises if an argument is given that the scheme has no use for."""
    for argument, value in given.items():
        if value is not None and not takes(scheme, "eps" if argument == "step_lr" else argument):
            what = "known pixels" if argument == "inpainting" else f"the argument {argument}"
            raise ValueError(f"sample: scheme {name!r} does not take {what}; leave it out")


def _check_words(n, seed, first):
    if seed >= 2**64:
        raise ValueError(f"sample: argument seed must be below 2^64, got {seed}")
    if first + n > 2**32:
        raise ValueError(f"sample: arguments first + n must be at most 2^32, got {first} + {n}")


def _check_choices(precision, dtype):
    if precision not in PRECISIONS:
        raise ValueError(f"sample: argument precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"sample: option dtype must be torch.float32 or torch.float64, got {dtype}")
