"""`langevin-ext train-classifier`: the small classifier whose features stand in for those of Inception."""

import shlex
import time
from pathlib import Path

import click

from .. import training
from ..data import open_dataset
from .common import parse_device
from .train import parse_size


@click.command("train-classifier")
@click.argument("data")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File to write, NAME.safetensors.")
@click.option("--size", help="Resize images to SIZE or HxW; default: as they are.")
@click.option("--epochs", default=15, show_default=True, help="Passes over the training images.")
@click.option("--batch-size", default=128, show_default=True)
@click.option("--lr", default=2e-3, show_default=True)
@click.option("--coarse", default=0.0, show_default=True, help="Share of the images that is shown at half resolution.")
@click.option("--seed", default=0, show_default=True)
@click.option("--width", default=24, show_default=True, help="Channels of the first convolution.")
@click.option("--dimension", default=64, show_default=True, help="Number of features.")
@click.option("--device", help="cpu, cuda, cuda:1; default: cuda where it runs.")
def train_classifier(data, out, size, epochs, batch_size, lr, coarse, seed, width, dimension, device):
    """Train a small convolutional classifier on DATA, which must have labels, such as digits or glyphs.

    The file says by which command it was made, and its accuracy on the test images.
    """
    images, began = open_dataset(data, parse_size(size)), time.monotonic()
    options = {
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "coarse": coarse,
        "seed": seed,
        "width": width,
        "dimension": dimension,
    }
    words = ["langevin-ext", "train-classifier", data, *(("--size", size) if size else ())]
    words += [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = shlex.join([*words, "--out", out.name])
    device = parse_device(device)
    training.train_classifier(images, out=out, device=device, metadata={"command": command}, **options)
    facts = training.describe(out)
    accuracies = ", ".join(f"{share:.1%} ({name})" for name, share in facts["metadata"]["accuracy"].items())
    click.echo(
        f"classifier with {facts['parameters']:,} values on {images} in {time.monotonic() - began:.0f} s; accuracy:"
        f" {accuracies}; written: {out}, {facts['bytes'] / 1000:.0f} kB"
    )
