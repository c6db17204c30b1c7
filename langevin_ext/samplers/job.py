"""A run, checked and laid out before its first step."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ..schedules import step_lr_from_eps
from . import build, inputs
from .table import DENOISE, Run, Upsample, evaluations
from .upsampling import check_ladder_of_sizes, check_upsample, try_out

BATCH_VALUES = {"cpu": 2**16}  # values of x in one batch, where the user names no batch size; elsewhere 2^18
PRECISIONS = ("auto", "fp32")


@dataclass(frozen=True)
class Plan:
    """What `sample` will do: `print` it.

    Attributes:
        scheme: its name, as it prints itself.
        n, batch_size, denoise: as resolved.
        stages: `Run` with its rows, or `Upsample`.
        sigmas, shapes, eps, n_steps_each: of each model, coarsest first.
        evaluations: of the score per sample at each resolution, {"HxW": count}; a batch makes so many calls.
        output: index of the model that has the shape of the samples.
        unit_seconds: what one step and one upsampling of a batch take, {"HxW": s, "upsample HxW": s}, if measured.
    """

    scheme: str
    n: int
    batch_size: int
    stages: list[Run | Upsample]
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
        return "\n".join(lines)

    def _stage(self, stage) -> str:
        size = self.sizes[stage.model]
        if isinstance(stage, Upsample):
            return f"upsample to {size}" + f", add noise of sigma {stage.sigma:g}" * (stage.sigma > 0)
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
    init: str | torch.Tensor
    pixels: list[tuple] | None  # known and mask at each resolution
    upsample: str | Callable
    device: torch.device
    dtype: torch.dtype
    options: dict = field(default_factory=dict)


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
    init="uniform",
    known=None,
    mask=None,
    upsample="bicubic",
    precision="auto",
    device=None,
    dtype=torch.float32,
    **options,
) -> Job:
    """Checks the arguments of `sample` and lays the run out; raises ValueError or TypeError for what cannot run."""
    models = inputs.models_of(model)
    n, seed, first = inputs.integer("n", n, 1), inputs.integer("seed", seed), inputs.integer("first", first)
    _check_words(n, seed, first)
    _check_choices(precision, dtype)
    check_upsample(upsample)
    shapes = [tuple(int(size) for size in one.shape) for one in models]
    check_ladder_of_sizes(shapes)
    scores, ladders = inputs.ladders_of(models, sigmas)
    inpainting = known is not None or mask is not None
    eps, steps = inputs.step_settings(eps, step_lr, n_steps_each, len(models), inpainting)
    scheme, stages = build(
        scheme, ladders, options, eps=eps, n_steps_each=steps, denoise=bool(denoise), inpainting=inpainting
    )
    output = stages[-1].model
    device = inputs.device_of(models, device)
    inputs.check_dtype(models, dtype, device)
    try_out(upsample, stages, shapes, dtype, device)
    if batch_size is None:
        batch_size = max(1, BATCH_VALUES.get(device.type, 2**18) // math.prod(shapes[output]))
    batch_size = min(n, inputs.integer("batch_size", batch_size, 1))
    inputs.check_init(init, n, shapes[stages[0].model])
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
    return Job(plan, models, scores, seed, first, init, pixels, upsample, device, dtype, options)


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
