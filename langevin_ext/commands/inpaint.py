"""`langevin-ext inpaint`: images completed from some of their pixels (NCSN, arXiv:1907.05600, Algorithm 2)."""

from pathlib import Path

import click
import numpy as np
import torch

from .. import plots, sampling
from ..data import open_dataset
from .common import (
    is_small,
    open_output,
    read_models,
    report,
    running_files,
    sampling_arguments,
    sampling_options,
    write_samples,
)

REGIONS = ("left", "right", "top", "bottom", "centre")


@click.command()
@sampling_options
@click.option("--images", required=True, metavar="DATA", help="The images to complete: any source that `train` takes.")
@click.option("--split", default="test", show_default=True, help="Which part of the source: train or test.")
@click.option(
    "--known",
    "region",
    default="left",
    show_default=True,
    metavar="REGION|FILE",
    help=f"Known pixels: {', '.join(REGIONS)} (half), or an image file, white where known.",
)
@click.option("--variants", type=click.IntRange(min=1), default=4, show_default=True, help="Completions of each image.")
def inpaint(model_paths, shape, n, scheme, device, out, dry_run, images, split, region, variants, **options):
    """Complete images from the known part: n samples, `variants` of each image."""
    model, facts = read_models(model_paths, shape, device)
    arguments = sampling_arguments({**options, "device": device})
    channels, height, width = sampling.plan(model, scheme, n, **arguments).shape
    if n % variants:
        raise ValueError(f"-n must be a multiple of --variants {variants}, got {n}")
    source = open_dataset(images, (height, width), channels=channels, split=split, limit=n // variants)
    originals = source.images[: n // variants].float() / 255
    if len(originals) * variants < n:
        raise ValueError(f"--images must hold at least {n // variants} images, got {len(originals)}")
    mask = known_mask(region, height, width)
    arguments |= {"mask": mask, "known": originals.repeat_interleave(variants, 0)}
    if dry_run:
        return click.echo(str(sampling.plan(model, scheme, n, measure=True, **arguments)))
    folder = open_output(out)
    arguments |= running_files(folder)
    x, run = sampling.sample(model, scheme, n, snapshot="levels", return_info=True, **arguments)
    x = torch.where(mask, arguments["known"], x.cpu())
    write_samples(
        folder, x, run, facts, extra={"images": images, "split": split, "known_region": region, "variants": variants}
    )
    if channels in (1, 3):
        shown = rows(originals, mask, x, variants)[: 16 * (variants + 2)]
        plots.image_grid(shown, folder / "grid.png", variants + 2, smooth=is_small(x))
    report(folder, run, n)


def rows(originals, mask, x, variants):
    """For each image: the known part on grey, its completions, the original."""
    given = torch.where(mask, originals, torch.tensor(0.5))
    parts = [given[:, None], x.view(len(originals), variants, *x.shape[1:]), originals[:, None]]
    return torch.cat(parts, 1).flatten(0, 1)


def known_mask(region, height, width):
    """Bool (1, H, W), True where known."""
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    if region not in REGIONS:
        return mask_from(region, height, width)
    rows_, columns = slice(None), slice(None)
    if region in ("left", "right"):
        columns = slice(width // 2) if region == "left" else slice(width // 2, None)
    elif region in ("top", "bottom"):
        rows_ = slice(height // 2) if region == "top" else slice(height // 2, None)
    else:
        rows_, columns = slice(height // 4, height - height // 4), slice(width // 4, width - width // 4)
    mask[:, rows_, columns] = True
    return mask


def mask_from(path, height, width):
    """The mask drawn in an image file, resized to the network's images."""
    from PIL import Image

    from ..data.pictures import decode

    if not Path(path).is_file():
        raise ValueError(f"--known must be one of {', '.join(REGIONS)} or an image file, got {path!r}")
    try:
        picture = decode(path)
    except ValueError as error:
        raise ValueError(f"--known must be a region or a picture, got {path!r}: {error}") from error
    grey = picture.convert("L").resize((width, height), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(grey) > 127)[None]
