"""The table of a selection: its lines, the file that holds them, and the curve of the distance over the steps."""

import json
from pathlib import Path

from .._files import atomic_path, write_figure

__all__ = ["read_selection", "selection_curve"]

LOG, CURVE = "selection.jsonl", "selection.png"


def best_line(lines):
    """The line with the lowest distance, the first of equals; None if there is none."""
    return min(filter(has_distance, lines), key=lambda line: line["distance"], default=None)


def has_distance(line) -> bool:
    """Whether the samples were finite."""
    return line["distance"] is not None


def describe_line(line) -> str:
    """One line of the table in words."""
    if not has_distance(line):
        return f"step {line['step']}: no distance, because {line['failure']}"
    first, second = line["counts"]
    return (
        f"step {line['step']}: Frechet distance {line['distance']:.6g} ({line['features']}, {first} against {second})"
    )


def write_selection(folder, lines) -> None:
    """Writes the table, and its curve if there is something to draw."""
    with atomic_path(Path(folder) / LOG) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
    if best_line(lines) is not None:
        selection_curve(lines, Path(folder) / CURVE)


def read_selection(path) -> list[dict]:
    """Reads the table of a selection.

    Args:
        path: `selection.jsonl` or the folder that holds it.

    Returns:
        A dictionary for each line, in the order of the file: step, distance (None where the samples were not finite),
        counts, features, seconds, settings.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not one of the table's; its number is named.
    """
    path = Path(path)
    path = path / LOG if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"read_selection: file must exist, got {path}")
    lines = []
    for number, row in enumerate(path.read_text().splitlines(), 1):
        try:
            line = json.loads(row)
            lines.append({**line, **{name: line[name] for name in ("step", "distance", "settings")}})
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"read_selection: {path} line {number} must have step, distance and settings, got {row[:60]!r}"
            ) from error
    return lines


def selection_curve(lines, path) -> Path:
    """Draws the distance over the steps, and marks the best.

    Args:
        lines: what `read_selection` or `select_checkpoint` returns, or the path that `read_selection` takes. Where a
            step is unknown all are drawn by their place.
        path: PNG to write; its folder must exist.

    Returns:
        The path.

    Raises:
        ValueError: no line has a distance.
    """
    from matplotlib.figure import Figure

    lines = lines if isinstance(lines, list) else read_selection(lines)
    best = best_line(lines)
    if best is None:
        raise ValueError(f"selection_curve: lines must hold a distance, got {len(lines)} without")
    known = all(line["step"] is not None for line in lines)
    places = [line["step"] if known else place for place, line in enumerate(lines)]
    drawn = sorted((place, line["distance"]) for place, line in zip(places, lines, strict=True) if has_distance(line))
    place = next(place for place, line in zip(places, lines, strict=True) if line is best)
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*drawn, strict=True), color="black", linewidth=1.2, marker=".")
    label = f"best: {best['distance']:.4g} at {place}"
    axes.plot(place, best["distance"], "o", color="tab:red", fillstyle="none", markersize=10, label=label)
    values = [distance for _, distance in drawn]
    axes.set_yscale("log" if min(values) > 0 and max(values) > 20 * min(values) else "linear")
    first, second = best["counts"]
    axes.set(xlabel="step" if known else "checkpoint", ylabel=f"Frechet distance, {best['features']}")
    axes.set_title(f"{first} samples against {second}", fontsize="medium")
    axes.legend(frameon=False)
    return write_figure(figure, path)
