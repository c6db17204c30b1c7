"""Bookkeeping of the benchmarks; what they time with is `langevin_ext.benchmarking.timing`."""

import json
import pathlib

from langevin_ext.benchmarking.timing import interleaved, machine

__all__ = ["append_rows", "interleaved", "machine"]


def append_rows(path, rows):
    """Appends each row, a dict, as one line of JSON; folders are made."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
