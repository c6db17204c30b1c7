"""What an experiment found: each number beside the closed form and the paper's, its standard error and a verdict."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

REPRODUCED = "reproduced"
STANDARD_ERRORS = 4.0  # a right value lies further away once in 16,000 findings


@dataclass(frozen=True)
class Finding:
    """One number of an experiment.

    Attributes:
        what: the quantity, in words.
        ours: its value here.
        stderr: standard error of `ours`, None where it is exact.
        expected: the closed form, or the bound that `verdict` speaks of; None without.
        paper: what the paper prints, None where it prints nothing.
        verdict: "reproduced", or "not reproduced: " and why.
    """

    what: str
    ours: float | None
    stderr: float | None = None
    expected: float | str | None = None
    paper: float | str | None = None
    verdict: str = REPRODUCED

    @property
    def reproduced(self) -> bool:
        return self.verdict == REPRODUCED

    def cells(self) -> list[str]:
        """The row of a table."""
        return [
            self.what,
            _number(self.paper),
            _number(self.expected),
            _number(self.ours),
            _number(self.stderr),
            self.verdict,
        ]


def close(what, ours, stderr, expected, paper=None, sigmas=STANDARD_ERRORS) -> Finding:
    """A Monte-Carlo value within `sigmas` standard errors of its closed form."""
    if not (math.isfinite(ours) and stderr > 0):
        raise ValueError(f"close: ours must be finite and stderr positive, got {ours} and {stderr}, for {what!r}")
    distance = abs(ours - expected) / stderr
    verdict = REPRODUCED if distance <= sigmas else f"not reproduced: {distance:.1f} standard errors apart"
    return Finding(what, float(ours), float(stderr), float(expected), paper, verdict)


def exact(what, ours, expected, rtol=1e-6, paper=None) -> Finding:
    """A value without randomness, equal to its closed form up to `rtol`."""
    apart = abs(ours - expected) / max(abs(expected), 1e-300)
    verdict = REPRODUCED if apart <= rtol else f"not reproduced: {apart:.2g} apart, relative"
    return Finding(what, float(ours), None, float(expected), paper, verdict)


def below(what, ours, bound, paper=None, stderr=None) -> Finding:
    """A value that must be less than a bound."""
    verdict = REPRODUCED if ours < bound else "not reproduced: not below the bound"
    return Finding(what, float(ours), stderr, f"< {_number(bound)}", paper, verdict)


def above(what, ours, bound, paper=None, stderr=None) -> Finding:
    """A value that must be more than a bound."""
    verdict = REPRODUCED if ours > bound else "not reproduced: not above the bound"
    return Finding(what, float(ours), stderr, f"> {_number(bound)}", paper, verdict)


def failed(what, why, paper=None) -> Finding:
    """What could not be reproduced, and why."""
    return Finding(what, None, None, None, paper, f"not reproduced: {why}")


@dataclass
class Report:
    """The findings of one experiment.

    Attributes:
        name, title: of the experiment.
        source: paper and place, with the arXiv number.
        findings: list of `Finding`.
        figures: pictures that were written.
        remarks: sentences: sizes smaller than the paper's, inferences, what was left out.
        seconds: of the run.
    """

    name: str
    title: str
    source: str
    findings: list[Finding]
    figures: list[Path] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def reproduced(self) -> bool:
        """Whether every finding is."""
        return all(finding.reproduced for finding in self.findings)

    def summary(self) -> str:
        good = sum(finding.reproduced for finding in self.findings)
        return f"{self.name}: {good} of {len(self.findings)} findings reproduced, {self.seconds:.0f} s"

    def __str__(self) -> str:
        rows = [HEADER, *(finding.cells() for finding in self.findings)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
        lines = [f"{self.title} ({self.source})"]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        return "\n".join([*lines, *self.remarks, self.summary()])

    def markdown(self) -> str:
        """The same as a Markdown section, with the figures."""
        lines = [f"## {self.title}", "", f"{self.source}.", ""]
        lines += ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in f.cells()) + " |" for f in self.findings]
        lines += ["", *self.remarks, "", self.summary() + ".", ""]
        lines += [f"![{path.stem}]({path.name})" for path in self.figures]
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict:
        """JSON-able."""
        return asdict(self) | {"figures": [path.name for path in self.figures], "reproduced": self.reproduced}


HEADER = ["quantity", "paper", "closed form", "ours", "standard error", "verdict"]


def _number(value) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.5g}"
