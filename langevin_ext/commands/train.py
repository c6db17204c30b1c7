"""`langevin-ext train`: a score network from images."""

from pathlib import Path

import click
import torch

from .. import plots, training
from ..data import open_dataset
from ..metrics.features import ClassifierFeatures
from ..models import NCSN, NCSNv2
from ..schedules import geometric_sigmas
from .common import parse_device

MODELS = {"ncsn": NCSN, "ncsnv2": NCSNv2}


@click.command()
@click.argument("data")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the run; one that was stopped is continued.",
)
@click.option("--size", help="Resize images to SIZE or HxW; default: as they are.")
@click.option("--model", "kind", type=click.Choice(sorted(MODELS)), default="ncsn", show_default=True)
@click.option("--ngf", default=128, show_default=True, help="Width of the network.")
@click.option(
    "--sigmas",
    nargs=3,
    type=(float, float, int),
    default=(1.0, 0.01, 10),
    show_default=True,
    help="Noise levels: largest, smallest, how many.",
)
@click.option("--steps", default=200_000, show_default=True)
@click.option("--batch-size", default=128, show_default=True)
@click.option("--lr", default=1e-3, show_default=True)
@click.option("--ema", default=0.999, show_default=True, help="Decay of the average of the weights; 0: none.")
@click.option("--grad-clip", type=float, help="Largest norm of the gradient.")
@click.option("--flip/--no-flip", default=False, show_default=True, help="Mirror images at random.")
@click.option("--dequantise/--no-dequantise", default=True, show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--save-every", default=1000, show_default=True, help="Steps between checkpoints.")
@click.option("--log-every", default=100, show_default=True)
@click.option("--select-every", type=int, metavar="N", help="Every N steps measure samples, and keep the best network.")
@click.option("--select-samples", default=1000, show_default=True, help="Samples for it.")
@click.option("--select-steps-each", default=100, show_default=True, help="Langevin steps per noise level for it.")
@click.option("--select-eps", type=float, help="Step size at the last level for it.  [default: 2e-5]")
@click.option(
    "--select-reference",
    nargs=2,
    metavar="DATA SPLIT",
    help="Images that it compares with, e.g. glyphs test.  [default: the training images]",
)
@click.option(
    "--select-features",
    default="pixels",
    show_default=True,
    metavar="pixels|digits|glyphs|FILE",
    help="Space of the distance: pixels, a shipped classifier, or one of `train-classifier`.",
)
@click.option("--device", help="cpu, cuda, cuda:1; default: cuda where it runs.")
@click.option("--dry-run", is_flag=True, help="Print what would be trained and stop.")
def train(
    data,
    out,
    size,
    kind,
    ngf,
    sigmas,
    steps,
    batch_size,
    lr,
    ema,
    grad_clip,
    flip,
    dequantise,
    precision,
    seed,
    save_every,
    log_every,
    select_every,
    select_samples,
    select_steps_each,
    select_eps,
    select_reference,
    select_features,
    device,
    dry_run,
):
    """Train a score network on DATA by denoising score matching.

    DATA: digits, glyphs, a folder or zip of images, .npy or .npz, an MNIST idx file or folder, CIFAR-10's binary
    files, or celeba:FOLDER.
    """
    images = open_dataset(data, parse_size(size))
    device = parse_device(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # initial weights; all other randomness is counted, not drawn
        model = MODELS[kind](tuple(images.shape), ngf, geometric_sigmas(*sigmas)).to(device)
    parameters = sum(p.numel() for p in model.parameters())
    click.echo(f"{kind} with {parameters:,} parameters on {images}, {steps} steps of {batch_size} on {device}")
    select = None
    if select_every is not None:
        select = selection(
            images, select_samples, select_steps_each, select_eps, select_reference, select_features, device
        )
    if dry_run:
        return
    training.train(
        model,
        images,
        out=out,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        ema=ema or None,
        seed=seed,
        flip=flip,
        dequantise=dequantise,
        grad_clip=grad_clip,
        precision=precision,
        save_every=save_every,
        log_every=log_every,
        select_every=select_every,
        select=select,
    )
    plots.loss_curve(out / "log.jsonl", out / "loss.png")
    chosen = ", best.safetensors, selection.jsonl, selection.png" if (out / "best.safetensors").exists() else ""
    click.echo(f"written: {out}/model.safetensors, checkpoint.safetensors, log.jsonl, loss.png{chosen}")


def selection(images, n, n_steps_each, eps, reference, features, device):
    """What the --select options mean."""
    if reference:
        data, split = reference
        reference = open_dataset(data, images.shape[1:], channels=images.shape[0], split=split)
    features = None if features == "pixels" else ClassifierFeatures(features, device)
    return training.Selection(n=n, n_steps_each=n_steps_each, eps=eps, reference=reference or None, features=features)


def parse_size(text):
    """None, or (height, width) of "32" or "32x48"."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() for part in parts):
        raise ValueError(f"--size must be like 32 or 32x48, got {text!r}")
    return int(parts[0]), int(parts[-1])
