"""A run, checked and laid out before its first step."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ..schedules import resolve_eps, step_lr_from_eps
from . import build, inputs
from .table import DENOISE, Run, evaluations

BATCH_VALUES = {"cpu": 2**16}  # values of x in one batch, where the user names no batch size; elsewhere 2^18
UPSAMPLERS = ("bicubic", "bilinear", "nearest")
PRECISIONS = ("auto", "fp32")


@dataclass(frozen=True)
class Plan:
    """What `sample` will do: `print` it.

    Attributes:
        scheme, n, batch_size, eps, n_steps_each, denoise: as resolved.
        stages: the stages with their rows.
        sigmas: the noise levels of each model.
        shapes: (C, H, W) of each model.
        evaluations: of the score per sample at each resolution, {"HxW": count}; a batch makes so many calls.
        seconds: predicted time of the run, None unless it was measured.
    """

    scheme: str
    n: int
    batch_size: int
    stages: list[Run]
    sigmas: list[list[float]]
    shapes: list[tuple[int, ...]]
    eps: float
    n_steps_each: int
    denoise: bool
    evaluations: dict[str, int]
    seconds: float | None = None

    @property
    def batches(self) -> int:
        return math.ceil(self.n / self.batch_size)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of the samples."""
        return self.shapes[self.stages[-1].model]

    @property
    def sizes(self) -> list[str]:
        """ "HxW" of each model."""
        return [f"{height}x{width}" for _, height, width in self.shapes]

    def __str__(self) -> str:
        lines = [
            f"{self.scheme}: {self.n} samples of {'x'.join(map(str, self.shape))} in {self.batches} "
            f"batch{'es' * (self.batches > 1)} of at most {self.batch_size}"
        ]
        for number, stage in enumerate(self.stages):
            levels = [f"{row.sigma:g}" for row in stage.level_ends]
            span = f"{len(levels)} level{'s' * (len(levels) != 1)}, sigma {' '.join(levels) or 'none'}"
            denoised = ", then denoised" * (bool(stage.rows) and stage.rows[-1].kind == DENOISE)
            size = self.sizes[stage.model]
            lines.append(f"  stage {number}: {size}, {span}, {self.n_steps_each} steps each{denoised}")
        lines.append(f"  eps {self.eps:g} (step_lr {step_lr_from_eps(self.eps):g})")
        lines += [f"  {count} evaluations at {size}" for size, count in self.evaluations.items()]
        if self.seconds is not None:
            lines.append(f"  about {self.seconds:.3g} s")
        return "\n".join(lines)


@dataclass(frozen=True)
class Job:
    """A plan with everything its execution needs."""

    plan: Plan
    models: list
    scores: list[Callable]
    seed: int
    first: int
    init: str | torch.Tensor
    pixels: tuple | None
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
    n_steps_each = inputs.integer("n_steps_each", n_steps_each)
    _check_words(n, seed, first)
    _check_choices(upsample, precision, dtype)
    scores, ladders = zip(*(inputs.ladder_of(one, sigmas) for one in models), strict=True)
    shapes = [tuple(int(size) for size in one.shape) for one in models]
    inpainting = known is not None or mask is not None
    if inpainting and n_steps_each == 0:
        raise ValueError("sample: argument n_steps_each must be at least 1 with known pixels, got 0")
    eps = resolve_eps(eps, step_lr, "sample")
    stages = build(
        scheme, list(ladders), options, eps=eps, n_steps_each=n_steps_each, denoise=bool(denoise), inpainting=inpainting
    )
    shape = shapes[stages[-1].model]
    device = inputs.device_of(models, device)
    inputs.check_dtype(models, dtype, device)
    if batch_size is None:
        batch_size = max(1, BATCH_VALUES.get(device.type, 2**18) // math.prod(shape))
    batch_size = min(n, inputs.integer("batch_size", batch_size, 1))
    inputs.check_init(init, n, shapes[stages[0].model])
    pixels = inputs.known_pixels(known, mask, n, shape, device, dtype)
    plan = Plan(
        scheme,
        n,
        batch_size,
        stages,
        list(ladders),
        shapes,
        eps,
        n_steps_each,
        bool(denoise),
        evaluations(stages, shapes),
    )
    return Job(plan, models, list(scores), seed, first, init, pixels, device, dtype, options)


def _check_words(n, seed, first):
    if seed >= 2**64:
        raise ValueError(f"sample: argument seed must be below 2^64, got {seed}")
    if first + n > 2**32:
        raise ValueError(f"sample: arguments first + n must be at most 2^32, got {first} + {n}")


def _check_choices(upsample, precision, dtype):
    if upsample not in UPSAMPLERS and not callable(upsample):
        raise ValueError(
            f"sample: argument upsample must be one of {', '.join(UPSAMPLERS)} or a callable, got {upsample!r}"
        )
    if precision not in PRECISIONS:
        raise ValueError(f"sample: argument precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"sample: option dtype must be torch.float32 or torch.float64, got {dtype}")
