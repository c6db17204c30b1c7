"""`langevin-ext train-upsampler`: the network that doubles the size of images, from images."""

from pathlib import Path

import click
import torch

from .. import plots
from .._group import rank
from ..data import open_dataset
from ..models.fsrcnn import FSRCNN, bicubic
from ..training import describe
from ..training.upsampler import LOW, train_upsampler
from .common import parse_device
from .train import parse_size

SHOWN = 10  # images of the comparison


@click.command("train-upsampler")
@click.argument("data")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the run; one that was stopped is continued.",
)
@click.option("--size", help="Resize images to SIZE or HxW, the size after upsampling; default: as they are.")
@click.option(
    "--low", type=click.Choice(sorted(LOW)), default="average", show_default=True, help="How an image is halved."
)
@click.option("--steps", default=20_000, show_default=True)
@click.option("--batch-size", default=64, show_default=True)
@click.option("--lr", default=1e-3, show_default=True)
@click.option("--flip/--no-flip", default=False, show_default=True, help="Mirror images at random.")
@click.option("--seed", default=0, show_default=True)
@click.option("--save-every", default=1000, show_default=True, help="Steps between checkpoints.")
@click.option("--log-every", default=100, show_default=True)
@click.option("--device", help="cpu, cuda, cuda:1; default: cuda where it runs.")
@click.option("--dry-run", is_flag=True, help="Print what would be trained and stop.")
def train_upsampler_command(
    data, out, size, low, steps, batch_size, lr, flip, seed, save_every, log_every, device, dry_run
):
    """Train an FSRCNN on DATA to undo a halving of the image size.

    DATA: as for `train`. Its test part is held out, to compare the result with bicubic interpolation.
    """
    images = open_dataset(data, parse_size(size))
    device = parse_device(device)
    parameters = sum(p.numel() for p in FSRCNN().parameters())
    click.echo(f"FSRCNN with {parameters:,} parameters on {images}, {steps} steps of {batch_size} on {device}")
    if dry_run:
        return
    model = train_upsampler(
        images,
        out=out,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        low=low,
        seed=seed,
        flip=flip,
        device=device,
        save_every=save_every,
        log_every=log_every,
    )
    if rank() > 0:  # process 0 writes
        return
    compare(model, images.split("test"), low, out / "comparison.png")
    facts = describe(out / "model.safetensors")["metadata"]
    click.echo(
        f"{facts['psnr']:.2f} dB on {facts['held_out_images']} held-out images, bicubic {facts['psnr_bicubic']:.2f} dB"
    )
    click.echo(f"written: {out}/model.safetensors, checkpoint.safetensors, log.jsonl, comparison.png")


@torch.inference_mode()
def compare(model, images, low, path):
    """Draws a few images halved, enlarged by bicubic interpolation and by the network, and as they were."""
    device = model.last_part.weight.device
    x = images.batch(range(min(SHOWN, len(images))), seed=0, step=0, dequantise=False).to(device)
    small = LOW[low](x)
    columns = {"low": small, "bicubic": bicubic(small).clamp(0.0, 1.0), "FSRCNN": model(small), "image": x}
    plots.trajectory([column.cpu() for column in columns.values()], path, list(columns))
