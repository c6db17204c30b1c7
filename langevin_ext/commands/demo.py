"""`langevin-ext demo`: from nothing to images: train on scanned digits, sample, compare."""

from pathlib import Path

import click
import torch

from .. import plots, sampling, training
from ..data import open_dataset
from ..metrics import frechet_samples
from ..models import NCSN
from .common import open_output, write_json, write_samples

NGF = 32
SEED = 0
RUN = "training"
RESULTS = {"samples.npz", "grid.png", "trajectory.png", "settings.json", "loss.png", "untrained.png", "summary.json"}


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default="demo_output", show_default=True)
@click.option("--steps", default=1500, show_default=True, help="Training steps.")
@click.option("-n", "n", default=100, show_default=True, help="Samples, at least 100 for a meaningful distance.")
@click.option("--steps-each", default=100, show_default=True, help="Langevin steps per noise level.")
def demo(out, steps, n, steps_each):
    """Train a small network on 1,500 scanned digits, sample new ones by annealed Langevin dynamics, and compare.

    A second call continues a training that was stopped and writes the pictures anew.
    """
    folder = open_output(out, RUN, RESULTS)
    train_set, test_set = open_dataset("digits"), open_dataset("digits", split="test")
    untrained = network(tuple(train_set.shape))
    click.echo(f"1/3 training: {train_set}, {sum(p.numel() for p in untrained.parameters()):,} parameters")
    model = training.train(
        network(tuple(train_set.shape)),
        train_set,
        out=folder / RUN,
        steps=steps,
        batch_size=64,
        ema=0.995,
        ema_warmup=True,
        seed=SEED,
        save_every=250,
        log_every=25,
    )
    plots.loss_curve(folder / RUN / "log.jsonl", folder / "loss.png")

    click.echo(f"2/3 sampling: {n} digits from the trained network, then from an untrained one")
    arguments = {"n": n, "seed": SEED, "n_steps_each": steps_each, "batch_size": n, "return_info": True}
    x, run = sampling.sample(model, "annealed", snapshot="levels", **arguments)
    noise, _ = sampling.sample(untrained, "annealed", **arguments)
    write_samples(folder, x, run, training.describe(folder / RUN / "model.safetensors"))
    plots.image_grid(noise[:100], folder / "untrained.png", smooth=True)

    click.echo("3/3 Frechet distance to held-out digits, 64 pixels as features:")
    held_out = test_set.images.float() / 255
    compared = {
        "untrained network": frechet_samples(noise.clamp(0, 1), held_out),
        "trained network": frechet_samples(x.clamp(0, 1), held_out),
        "training digits": frechet_samples(train_set.images[:n].float() / 255, held_out),
    }
    for name, distance in compared.items():
        click.echo(f"    {name:18} {distance}")
    write_json(folder / "summary.json", {name: float(distance) for name, distance in compared.items()})
    click.echo(
        f"written: {folder}/grid.png (the samples), trajectory.png, loss.png, untrained.png, samples.npz; "
        f"sample more with: langevin-ext sample --model {folder}/{RUN}/model.safetensors --out more"
    )


def network(shape):
    """The untrained network, the same in every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return NCSN(shape, NGF)
