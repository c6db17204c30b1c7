"""Pictures of samples and of training: image grids, trajectories by noise level, loss curves.

Images are PNGs, enlarged by whole factors so that small ones can be seen, pixel by pixel or smoothly; each is written
whole or not at all.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch

from ._files import atomic_path, write_figure

__all__ = ["image_grid", "trajectory", "scatter", "loss_curve"]

CELL = 64  # pixels below which images are enlarged
WHITE, TEXT = 255, 13  # background; height of a line of labels
RED = (220, 20, 20)


def image_grid(images, path, columns=None, *, scale=None, smooth=False, metadata=None) -> Path:
    """Writes images as one PNG, row by row.

    Args:
        images: (N, C, H, W), C 1 or 3: float in [0, 1] (values outside are clipped), or uint8.
        path: file to write; its folder must exist.
        columns: images in a row, about the square root of N by default.
        scale: whole factor by which pixels are enlarged; by default small images grow to about 64 pixels.
        smooth: enlarge by bicubic interpolation, in which small images are easier to recognise, and not pixel by pixel.
        metadata: dictionary that JSON can hold, put into the PNG as the text "langevin_ext".

    Returns:
        The path.

    Raises:
        TypeError, ValueError: images have another shape or type, or values that are not finite.
    """
    pixels = _to_uint8("image_grid", images)
    columns = max(1, math.isqrt(max(len(pixels) - 1, 0)) + 1) if columns is None else columns
    if columns < 1:
        raise ValueError(f"image_grid: columns must be at least 1, got {columns}")
    columns = min(columns, len(pixels))
    rows = [list(pixels[i : i + columns]) for i in range(0, len(pixels), columns)]
    height, width = pixels.shape[1:3]
    sheet = _sheet(rows, height, width, _scale("image_grid", scale, height, width), smooth=smooth)
    return _write(sheet, path, metadata)


def trajectory(snapshots, path, labels=None, *, frames=(), scale=None, smooth=False, metadata=None) -> Path:
    """Writes the way of samples through the noise levels: a column for each level, a row for each sample.

    Args:
        snapshots: list of (N, C, H, W) as for `image_grid`, equal N and C; smaller images are enlarged to the largest.
        path: file to write; its folder must exist.
        labels: a word over each column, e.g. "1.0"; none by default.
        frames: indices of columns whose images get a red frame, upsampled ones for example.
        scale, smooth, metadata: as for `image_grid`.

    Returns:
        The path.

    Raises:
        TypeError, ValueError: as for `image_grid`; the snapshots do not match each other, the labels or the frames.
    """
    if not len(snapshots):
        raise ValueError("trajectory: snapshots must hold at least one level, got none")
    if labels is not None and len(labels) != len(snapshots):
        raise ValueError(f"trajectory: labels must be one for each of {len(snapshots)} snapshots, got {len(labels)}")
    if not set(frames) <= set(range(len(snapshots))):
        raise ValueError(f"trajectory: frames must be indices of the {len(snapshots)} snapshots, got {list(frames)}")
    columns = [_to_uint8(f"trajectory (snapshot {i})", snapshot) for i, snapshot in enumerate(snapshots)]
    kinds = sorted({(len(column), column.shape[3]) for column in columns})
    if len(kinds) > 1:
        raise ValueError(f"trajectory: snapshots must have equal N and C, got {kinds}")
    height, width = (max(column.shape[axis] for column in columns) for axis in (1, 2))
    rows = [[column[i] for column in columns] for i in range(len(columns[0]))]
    sheet = _sheet(rows, height, width, _scale("trajectory", scale, height, width), labels, smooth, frames)
    return _write(sheet, path, metadata)


def _to_uint8(name, images):
    """(N, H, W, C) uint8 array of N >= 1 images."""
    images = torch.as_tensor(images).detach().cpu()
    if images.dim() != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(f"{name}: images must be (N, C, H, W) with C 1 or 3, got {tuple(images.shape)}")
    if images.dtype != torch.uint8:
        if not images.is_floating_point():
            raise TypeError(f"{name}: images must be float or uint8, got {images.dtype}")
        bad = (~images.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        if bad:
            raise ValueError(f"{name}: images must be finite, got {len(bad)} of {len(images)} that are not: {bad[:8]}")
        images = (images.float().clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8)
    return images.permute(0, 2, 3, 1).numpy()


def _scale(name, scale, height, width):
    scale = max(1, CELL // max(height, width)) if scale is None else scale
    if scale != int(scale) or scale < 1:
        raise ValueError(f"{name}: scale must be a positive integer, got {scale}")
    return int(scale)


def _sheet(rows, height, width, scale, labels=None, smooth=False, frames=()):
    """The cells, `scale` times enlarged, on a white sheet with thin gaps, which are red around the columns `frames`,
    and labels above the columns."""
    from PIL import Image, ImageDraw

    gap, top = max(2, scale // 2), TEXT + 2 if labels else 0
    cell_height, cell_width = height * scale + gap, width * scale + gap
    size = (len(rows[0]) * cell_width + gap, len(rows) * cell_height + gap + top)
    cells = "RGB" if rows[0][0].shape[2] == 3 else "L"
    colour = cells == "RGB" or bool(frames)
    resample = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    sheet = Image.new("RGB" if colour else "L", size, (WHITE,) * 3 if colour else WHITE)
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            picture = Image.fromarray(np.ascontiguousarray(cell if cells == "RGB" else cell[:, :, 0]))
            picture = picture.resize((width * scale, height * scale), resample)
            sheet.paste(picture, (gap + c * cell_width, gap + top + r * cell_height))
    draw = ImageDraw.Draw(sheet)
    for c in frames:
        for r in range(len(rows)):
            left, upper = c * cell_width, top + r * cell_height
            draw.rectangle((left, upper, left + cell_width + gap - 1, upper + cell_height + gap - 1), None, RED, gap)
    for c, label in enumerate(labels or ()):
        draw.text(
            (gap + c * cell_width + width * scale // 2, TEXT // 2 + 2),
            str(label),
            anchor="mm",
            fill=(0,) * 3 if colour else 0,
            font=_font(),
        )
    return sheet


def _font():
    """The DejaVu font that comes with matplotlib: it has Greek letters."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), TEXT - 2)


def _write(sheet, path, metadata):
    from PIL import PngImagePlugin

    information = PngImagePlugin.PngInfo()
    if metadata is not None:
        information.add_text("langevin_ext", json.dumps(metadata, sort_keys=True))
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG", pnginfo=information)
    return Path(path)


def scatter(points, path) -> Path:
    """Draws points of the plane.

    Args:
        points: (N, 2) or (N, 2, 1, 1), finite.
        path: PNG file to write; its folder must exist.

    Returns:
        The path.

    Raises:
        ValueError: points have another shape, or values that are not finite.
    """
    rows = torch.as_tensor(points).detach().cpu().flatten(1).numpy()
    if rows.shape[1:] != (2,) or not np.isfinite(rows).all():
        raise ValueError(f"scatter: points must be finite and (N, 2), got {tuple(points.shape)}")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 5.0), layout="constrained")
    axes = figure.subplots()
    axes.scatter(rows[:, 0], rows[:, 1], s=max(1.0, min(12.0, 4000 / max(len(rows), 1))), alpha=0.6, linewidths=0)
    axes.set(aspect="equal", xlabel="x₁", ylabel="x₂", title=f"{len(rows)} samples")
    return write_figure(figure, path)


def loss_curve(log, path) -> Path:
    """Draws the loss of a training run over its steps, and that of each noise level.

    Args:
        log: what `langevin_ext.training.read_log` returns, or the path that it takes.
        path: PNG file to write; its folder must exist.

    Returns:
        The path.

    Raises:
        ValueError: the log has no lines, or a loss that is not finite.
    """
    if not isinstance(log, dict):
        from .training import read_log

        log = read_log(log)
    step, loss, levels = (np.asarray(log[name]) for name in ("step", "loss", "levels"))
    if len(step) == 0:
        raise ValueError("loss_curve: log must have at least one line, got none")
    bad = step[~np.isfinite(loss) | np.isinf(levels).any(1)]
    if len(bad):
        raise ValueError(f"loss_curve: log must hold finite losses, got others at steps {bad[:8].tolist()}")
    figure = _curves(step, loss, levels)
    return write_figure(figure, path)


def _curves(step, loss, levels):
    """A figure of its own, without pyplot's global state."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    whole, single = figure.subplots(1, 2)
    mark = "." if len(step) < 3 else ""
    whole.plot(step, loss, color="black", linewidth=1.2, marker=mark)
    whole.set(xlabel="step", ylabel="loss", title="mean over levels")
    for level in range(levels.shape[1]):
        drawn = np.isfinite(levels[:, level])  # a level may be missing from a line
        colour = colormaps["viridis"](level / max(levels.shape[1] - 1, 1))
        single.plot(
            step[drawn],
            levels[drawn, level],
            color=colour,
            linewidth=0.9,
            marker=mark,
            label=f"level {level}" if levels.shape[1] <= 12 else None,
        )
    single.set(xlabel="step", ylabel="loss", title="each level (dark: largest noise)")
    if 0 < levels.shape[1] <= 12:
        single.legend(fontsize="x-small", ncols=2)
    return figure
