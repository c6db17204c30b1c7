"""What `diagnose` returns: numbers for each noise level, checks, and a verdict in words."""

import math
from dataclasses import dataclass, fields
from pathlib import Path

from .estimate import Estimate, Limits

__all__ = ["Check", "Diagnosis", "Level"]

TRUSTED = "trusted"
FRESH = "trusted from fresh starts only"
NOT_TRUSTED = "not trusted"
STARTS_ALONE = {"memory", "starts"}  # what is found by these concerns chains that start at the training data


@dataclass(frozen=True)
class Level:
    """The measurements at one noise level; None where they need held-out data or an exact score.

    Attributes:
        index, sigma: the level.
        loss, held_out_loss: sigma^2-weighted denoising score matching loss on training and on held-out data.
        gap: held_out_loss - loss, the memorisation gap.
        zero_loss: D/2, that of the score 0.
        gaussian_loss: the smallest of a score linear in x, for the covariance of the data.
        exact_loss: that of the exact score on the held-out data (the training data without), the smallest possible.
        scale, held_out_scale: -E (y - m) . s(y) / D at y = x + sigma z; 1 for the exact score (Stein's identity).
        drift, held_out_drift: growth of |x - m|^2 / (sigma^2 D) in chains from training and from held-out data.
        drift_allowed: growth that the step size may cause by itself.
        moved, held_out_moved: |x_T - image|^2 / (sigma^2 D) of these chains; 1 before the first step.
        norm: E|x - m|^2 / D at the end of the level in the sampler's own chain.
        norm_level, norm_sampler: what the level predicts, and what the sampler reaches on Gaussian data like these.
        error, path_error: E|s - s*|^2 / E|s*|^2 on noised held-out data and along the sampler's own chain.
    """

    index: int
    sigma: float
    loss: Estimate
    held_out_loss: Estimate | None
    gap: Estimate | None
    zero_loss: float
    gaussian_loss: float
    exact_loss: Estimate | None
    scale: Estimate
    held_out_scale: Estimate | None
    drift: Estimate
    held_out_drift: Estimate | None
    drift_allowed: float
    moved: Estimate
    held_out_moved: Estimate | None
    norm: Estimate
    norm_level: Estimate
    norm_sampler: float
    error: Estimate | None
    path_error: Estimate | None


@dataclass(frozen=True)
class Check:
    """One question that the diagnosis answers.

    Attributes:
        name: "loss", "memory", "scale", "starts", "drift", "norm" or "error".
        passed: None where it could not be asked.
        levels: indices of the levels at which it failed.
        sentence: what was found.
        advice: what to do about it, empty if nothing.
    """

    name: str
    passed: bool | None
    levels: tuple[int, ...]
    sentence: str
    advice: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """How far Langevin dynamics with a score can be trusted; `print` it.

    Attributes:
        levels: a `Level` for each noise level looked at.
        gap: the memorisation gap on average over these; None without held-out data.
        checks: a `Check` for each question.
        remarks: sentences about the ladder.
        limits: standard errors beyond which a deviation counts, for means over images and over chains.
        settings: what the diagnosis was made with.
        seconds: what it took.
    """

    levels: tuple[Level, ...]
    gap: Estimate | None
    checks: tuple[Check, ...]
    remarks: tuple[str, ...]
    limits: Limits
    settings: dict
    seconds: float

    def __getitem__(self, name) -> Check:
        """The check of this name."""
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(f"Diagnosis: name must be one of {', '.join(check.name for check in self.checks)}, got {name!r}")

    @property
    def failed(self) -> list[str]:
        """Names of the checks that failed."""
        return [check.name for check in self.checks if check.passed is False]

    @property
    def trusted(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def verdict(self) -> str:
        """ "trusted", "trusted from fresh starts only" or "not trusted"."""
        if self.trusted:
            return TRUSTED
        return FRESH if set(self.failed) <= STARTS_ALONE else NOT_TRUSTED

    def __str__(self) -> str:
        return "\n".join([*self._table(), "", *self._sentences()])

    def markdown(self) -> str:
        """The same as a Markdown section."""
        return "\n".join(["## Diagnosis", "", "```", *self._table(), "```", "", *self._sentences("- "), ""])

    def _sentences(self, bullet="") -> list[str]:
        """The verdict, what each check found, what to do, and the remarks."""
        s = self.settings
        lines = [
            f"Verdict: Langevin dynamics with this model is {self.verdict} "
            f"({s['images']} images, {s['chains']} chains; what counts is beyond {self.limits.images:.1f} and "
            f"{self.limits.chains:.1f} standard errors)."
        ]
        marks = {True: "passed", False: "FAILED", None: "not asked"}
        lines += [f"{bullet}{check.name}: {marks[check.passed]}. {check.sentence}" for check in self.checks]
        advice = dict.fromkeys(check.advice for check in self.checks if check.advice)
        lines += [f"{bullet}To do: {text}" for text in advice]
        return lines + [f"{bullet}{remark}" for remark in self.remarks]

    def _table(self) -> list[str]:
        columns = [column for column in COLUMNS if column[1](self.levels[0]) is not None]
        rows = [[title for title, _ in columns]]
        rows += [[_cell(value(level)) for _, value in columns] for level in self.levels]
        widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
        return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]

    def to_dict(self) -> dict:
        """All of it for JSON; numbers that are not finite become None."""
        facts = {"verdict": self.verdict, "trusted": self.trusted, "failed": self.failed}
        return _plain(facts | {one.name: getattr(self, one.name) for one in fields(self)})

    def plot(self, path) -> Path:
        """Draws losses, drifts, norms and displacements against the noise level, as a PNG.

        Args:
            path: file to write; its folder must exist.

        Returns:
            The path.
        """
        from .plot import plot

        return plot(self, path)


COLUMNS = [
    ("level", lambda level: str(level.index)),
    ("sigma", lambda level: f"{level.sigma:.4g}"),
    ("loss train", lambda level: level.loss),
    ("held out", lambda level: level.held_out_loss),
    ("gap", lambda level: level.gap),
    ("Gaussian", lambda level: f"{level.gaussian_loss:.4g}"),
    ("exact", lambda level: level.exact_loss),
    ("zero", lambda level: f"{level.zero_loss:g}"),
    ("scale train", lambda level: level.scale),
    ("held out", lambda level: level.held_out_scale),
    ("drift train", lambda level: level.drift),
    ("held out", lambda level: level.held_out_drift),
    ("moved train", lambda level: level.moved),
    ("held out", lambda level: level.held_out_moved),
    ("norm", lambda level: level.norm),
    ("of level", lambda level: f"{level.norm_level.value:.4g}"),
    ("of sampler", lambda level: f"{level.norm_sampler:.4g}"),
    ("error", lambda level: level.error),
    ("on path", lambda level: level.path_error),
]


def _cell(value) -> str:
    if isinstance(value, str):
        return value
    return f"{value.value:.3g}({value.stderr:.1g})" if math.isfinite(value.value) else "diverged"


def _plain(value):
    """Dictionaries, lists, and None for numbers that JSON does not know."""
    if isinstance(value, Level | Check):
        return _plain(vars(value))
    if isinstance(value, Estimate | Limits):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
