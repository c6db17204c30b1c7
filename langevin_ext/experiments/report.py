"""A finished table: as text, Markdown, CSV and JSON."""

import csv
import io
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .._files import atomic_path

FILES = ("table.md", "table.csv", "table.json")


@dataclass(frozen=True)
class Row:
    """A scheme, as measured and as in the paper.

    Attributes:
        scheme: its name.
        evaluations: of the score per sample at each resolution, {"HxW": count}.
        seconds, predicted: measured, and by the additive model.
        ratio: seconds in units of HRS.
        paper_seconds, paper_ratio: the paper's; seconds only where it prints them, the ratio else by its linear model.
        distance, deviation: to the reference, and the standard deviation of its bootstrap replicates.
        reference: what it was compared with.
        exact: distance of the scheme's exact law, where there is one.
        paper_fid: the paper's, of other images in other features.
    """

    scheme: str
    evaluations: dict[str, int]
    seconds: float
    predicted: float
    ratio: float
    paper_seconds: float | None
    paper_ratio: float
    distance: float
    deviation: float
    reference: str
    exact: float | None
    paper_fid: float


@dataclass(frozen=True)
class Table:
    """One of the paper's tables on models of one's own; `print` it.

    Attributes:
        number, title: of the paper's table.
        rows: in the paper's order.
        notes: what a reader must know to read it, a sentence each.
        settings: what the samples and the numbers depend on.
        sharing: distinct and separate evaluations, seconds of the shared runs and seconds saved.
        timing: how seconds were measured, for how many images, and the unit costs.
        provenance: versions, backend, device, models.
    """

    number: int
    title: str
    rows: list[Row]
    notes: list[str]
    settings: dict = field(repr=False)
    sharing: dict = field(repr=False)
    timing: dict = field(repr=False)
    provenance: dict = field(repr=False)

    @property
    def heading(self) -> str:
        return f"Table {self.number} of arXiv:2006.11166: {self.title}"

    def __str__(self) -> str:
        lines = self._cells()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        pad = [str.ljust] + [str.rjust] * (len(widths) - 1)
        text = [
            "  ".join(to(cell, width) for to, cell, width in zip(pad, line, widths, strict=True)).rstrip()
            for line in lines
        ]
        return "\n".join([self.heading, *text, *self.notes])

    def markdown(self) -> str:
        """A table of Markdown, and the notes as a list."""
        header, *lines = self._cells()
        rule = ["---"] + ["---:"] * (len(header) - 1)
        table = ["| " + " | ".join(line) + " |" for line in (header, rule, *lines)]
        return "\n".join([f"**{self.heading}**", "", *table, "", *(f"- {note}" for note in self.notes), ""])

    def csv(self) -> str:
        """Full digits, a line for each row; empty where there is no number."""
        lines = []
        for row in self.rows:
            values = asdict(row)
            counts = {f"evaluations_{size}": count for size, count in values.pop("evaluations").items()}
            lines.append({"scheme": values.pop("scheme")} | counts | values)
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        return buffer.getvalue()

    def json(self) -> str:
        return json.dumps(asdict(self), indent=2, default=str) + "\n"

    def write(self, folder) -> None:
        """Writes table.md, table.csv and table.json."""
        for name, text in zip(FILES, (self.markdown(), self.csv(), self.json()), strict=True):
            with atomic_path(Path(folder) / name) as temporary:
                temporary.write_text(text, encoding="utf-8")

    def _cells(self) -> list[list[str]]:
        """The header and the rows as words."""
        exact = any(row.exact is not None for row in self.rows)
        header = ["scheme", *(f"evals {size}" for size in self.rows[0].evaluations)]
        header += ["seconds", "predicted", "ratio", "paper's ratio", "distance", "+-"]
        return [header + ["exact law"] * exact + ["paper's FID"], *(_words(row, exact) for row in self.rows)]


def _words(row, exact) -> list[str]:
    own = [row.scheme, *map(str, row.evaluations.values()), _number(row.seconds), _number(row.predicted)]
    paper = f"{row.paper_ratio:.3f}" if row.paper_seconds is not None else f"~{row.paper_ratio:.3f}"
    own += [f"{row.ratio:.3f}", paper, _number(row.distance), f"{row.deviation:.2g}"]
    return own + ([_number(row.exact)] if exact else []) + [f"{row.paper_fid:.2f}"]


def _number(value) -> str:
    return "" if value is None else f"{value:.4g}"
