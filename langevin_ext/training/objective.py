"""The objectives of training: what is drawn beside the data, and the loss.

dsm, ssm, ssm-vr, ism    a noise level of the model, uniform on {0, ..., L-1}
hsm                 a time t = 1e-5 + (1 - 1e-5) r^2, r uniform on (0, 1), for a velocity model
"""

from collections.abc import Callable

import torch

from .. import losses, noise
from ..losses.hsm import times

__all__ = ["OBJECTIVES", "make_objective"]

TENTHS = 10


class OfLevels:
    """An objective of (model, x, level).

    Args:
        model: score = model(x, level), with `sigmas`.
        settings: `Settings`.

    Attributes:
        bins: number of rows of the log's table, the levels.
        unit: what the label is called in messages.

    Raises:
        ValueError: the model has no noise levels.
    """

    noise_is_optional, unit = False, "level"

    def __init__(self, model, settings):
        if not hasattr(model, "sigmas"):
            raise ValueError(
                f"train: objective {settings.objective!r} needs a model with noise levels, `sigmas`, got"
                f" {type(model).__name__}; a velocity model has the objective 'hsm'"
            )
        self.model, self.settings, self.bins = model, settings, len(model.sigmas)

    def draw(self, step, device) -> torch.Tensor:
        """The levels (B,) int64 of a step."""
        s = self.settings
        words = noise.words((s.batch_size,), s.seed, step=step, stream=noise.LABELS, device=device)
        return (words * self.bins) >> 32

    def bin(self, label) -> torch.Tensor:
        """The row (B,) int64 of the log's table that each label belongs to."""
        return label

    def options(self, step, first) -> dict:
        """The keyword arguments of the loss."""
        return {"seed": self.settings.seed, "step": step, "first": first, "anneal_power": self.settings.anneal_power}


class Denoising(OfLevels):
    """`losses.dsm`."""

    def __call__(self, x, level, step, first=0) -> torch.Tensor:
        """The loss (B,) of each sample, the first at this place of the batch."""
        return losses.dsm(self.model, x, level, **self.options(step, first))


class Sliced(OfLevels):
    """`losses.ssm`, on the data plus noise or, with noisy=False, on the data."""

    noise_is_optional = True
    loss: Callable = staticmethod(losses.ssm)

    def __init__(self, model, settings):
        super().__init__(model, settings)
        kinks = (torch.nn.ReLU, torch.nn.LeakyReLU)
        if isinstance(model, torch.nn.Module) and any(isinstance(part, kinks) for part in model.modules()):
            raise ValueError(
                f"train: objective {settings.objective!r} needs a network with smooth activations, as it trains second "
                f"derivatives, got {type(model).__name__} with ReLU; take softplus, elu or silu"
            )

    def __call__(self, x, level, step, first=0) -> torch.Tensor:
        """The loss (B,) of each sample, the first at this place of the batch."""
        return self.loss(self.model, x, level, **self.options(step, first), noisy=self.settings.noisy)


class ReducedSliced(Sliced):
    """`losses.ssm_vr`."""

    loss = staticmethod(losses.ssm_vr)


class Implicit(Sliced):
    """`losses.ism`, for few dimensions."""

    loss = staticmethod(losses.ism)


class Hybrid:
    """`losses.hsm`, of a time in the place of a level; the log has a row for each tenth of the time.

    Args:
        model: score in v = model(u, t), with the attribute `process`.
        settings: `Settings`.

    Raises:
        ValueError: the model is no velocity model.
    """

    noise_is_optional, unit, bins = False, "time", TENTHS

    def __init__(self, model, settings):
        if getattr(model, "process", None) is None:
            raise ValueError(
                "train: objective 'hsm' needs a velocity model, with the attribute `process`, such as"
                f" langevin_ext.models.CLDNet, got {type(model).__name__}"
            )
        self.model, self.settings = model, settings

    def draw(self, step, device) -> torch.Tensor:
        """The times (B,) float32 of a step."""
        s = self.settings
        return times(s.batch_size, seed=s.seed, step=step, device=device)

    def bin(self, label) -> torch.Tensor:
        """The tenth of the time (B,) int64."""
        return (label * TENTHS).long().clamp(max=TENTHS - 1)

    def __call__(self, x, t, step, first=0) -> torch.Tensor:
        """The loss (B,) of each sample, the first at this place of the batch."""
        return losses.hsm(self.model, x, t, seed=self.settings.seed, step=step, first=first)


OBJECTIVES = {"dsm": Denoising, "ssm": Sliced, "ssm-vr": ReducedSliced, "ism": Implicit, "hsm": Hybrid}


def make_objective(model, settings):
    """The objective that the settings name, for this model."""
    return OBJECTIVES[settings.objective](model, settings)
