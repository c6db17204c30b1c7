"""The record of a training run: the loss of each noise level over time, as JSON lines and on TensorBoard.

One line of `log.jsonl` is {"step", "loss", "levels", "seconds"}: the mean loss since the line before, the same for each
level (null where none was drawn), and the seconds of training so far. A line with "partial" ends a run between two
regular lines; it is dropped when the run goes on. "skipped" is how many steps were left out so far, if any.
"""

import json
import math
import sys
from pathlib import Path

import torch

from .._files import atomic_path, writing

__all__ = ["LevelLoss", "read_log"]

NAME = "log.jsonl"


class LevelLoss:
    """Sum and count of the per-sample losses of each level since the last `reset`, kept on the device."""

    def __init__(self, levels, device):
        self.sum = torch.zeros(levels, dtype=torch.float64, device=device)
        self.count = torch.zeros(levels, dtype=torch.float64, device=device)

    def add(self, level, loss) -> None:
        """Adds one batch: level (B,) int64, loss (B,)."""
        self.sum.index_add_(0, level, loss.detach().double())
        self.count.index_add_(0, level, torch.ones_like(loss, dtype=torch.float64))

    def reset(self) -> None:
        self.sum.zero_()
        self.count.zero_()

    def line(self, step, seconds) -> dict:
        """The table as one line of the log."""
        total, counts = self.sum.tolist(), self.count.tolist()
        levels = [value / count if count else None for value, count in zip(total, counts, strict=True)]
        return {"step": step, "loss": sum(total) / max(sum(counts), 1.0), "levels": levels, "seconds": seconds}


def append(folder, line) -> None:
    """Adds one line to the log of a run."""
    path = Path(folder) / NAME
    with writing(path), open(path, "a") as file:
        file.write(json.dumps(line) + "\n")


def rewind(folder, step) -> None:
    """Drops the lines after `step` and the partial ones, so that a resumed run writes each line once."""
    path = Path(folder) / NAME
    if not path.exists():
        return
    kept = [line for line in _lines(path) if line["step"] <= step and not line.get("partial")]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))


def _lines(path):
    """The lines as dictionaries; a last line that was cut off is left out."""
    text = path.read_text()
    rows, lines = [], text.splitlines()
    for number, row in enumerate(lines, 1):
        try:
            line = json.loads(row)
            rows.append({"step": int(line["step"]), "loss": float(line["loss"]), **line})
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if number == len(lines) and not text.endswith("\n"):
                break
            raise ValueError(
                f"read_log: {path} line {number} must be a JSON object with step and loss, got {row[:60]!r}"
            ) from error
    return rows


def read_log(path) -> dict:
    """Reads the log of a training run.

    Args:
        path: `log.jsonl` or the folder that holds it.

    Returns:
        step (n,) int64, loss (n,), levels (n, L) with NaN where a level was not drawn, seconds (n,): tensors, float64.

    Raises:
        FileNotFoundError: there is no log.
        ValueError: a line is not one of the log's; its number is named.
    """
    path = Path(path)
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"read_log: file must exist, got {path}")
    rows = _lines(path)
    levels = [[math.nan if value is None else value for value in row.get("levels", [])] for row in rows]
    if len({len(values) for values in levels}) > 1:
        raise ValueError(f"read_log: {path} must have as many levels on every line, got different numbers")
    return {
        "step": torch.tensor([row["step"] for row in rows], dtype=torch.int64),
        "loss": torch.tensor([row["loss"] for row in rows], dtype=torch.float64),
        "levels": torch.tensor(levels, dtype=torch.float64).reshape(len(rows), -1 if rows else 0),
        "seconds": torch.tensor([row.get("seconds", math.nan) for row in rows], dtype=torch.float64),
    }


class Board:
    """Sends the lines of the log to TensorBoard where that is installed, and says once where it is not."""

    said = False

    def __init__(self, folder, step, wanted):
        self.writer = self._open(folder, step) if wanted else None

    def _open(self, folder, step):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            if not Board.said:
                print("train: no TensorBoard log, because tensorboard is not installed", file=sys.stderr)
            Board.said = True
            return None
        return SummaryWriter(str(Path(folder) / "tensorboard"), purge_step=step + 1)

    def add(self, line) -> None:
        if self.writer is not None:
            self.writer.add_scalar("loss", line["loss"], line["step"])
            for level, value in enumerate(line["levels"]):
                if value is not None:
                    self.writer.add_scalar(f"loss_level/{level}", value, line["step"])

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
