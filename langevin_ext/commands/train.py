"""`langevin-ext train`: a score network from images or vectors."""

from pathlib import Path

import click
import torch
from tqdm import tqdm

from .. import plots, training
from .._group import rank
from ..data import open_dataset
from ..metrics.features import ClassifierFeatures
from ..models import MLP, NCSN, CLDNet, NCSNv2
from ..models.mlp import ACTIVATIONS
from ..schedules import geometric_sigmas
from ..training.objective import OBJECTIVES
from .common import parse_device

CLD = "cld-"
MODELS = {  # what --model means: shape and options -> network
    "ncsn": lambda shape, o: NCSN(shape, o["ngf"], geometric_sigmas(*o["sigmas"])),
    "ncsnv2": lambda shape, o: NCSNv2(shape, o["ngf"], geometric_sigmas(*o["sigmas"])),
    "mlp": lambda shape, o: MLP(shape, o["hidden"] or (128, 128), o["activation"], geometric_sigmas(*o["sigmas"])),
    "cld-mlp": lambda shape, o: CLDNet(shape, "mlp", hidden=o["hidden"] or (256, 256, 256)),
    "cld-refinenet": lambda shape, o: CLDNet(shape, "refinenet", ngf=o["ngf"]),
}


@click.command()
@click.argument("data")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the run; one that was stopped is continued.",
)
@click.option("--size", help="Resize images to SIZE or HxW; default: as they are.")
@click.option(
    "--objective",
    type=click.Choice(sorted(OBJECTIVES)),
    help="Denoising, sliced (-vr: with variance reduction) or, for critically-damped diffusion, hybrid score matching."
    "  [default: hsm for a cld model, else dsm]",
)
@click.option("--noisy/--no-noisy", default=True, help="Noise on the data of ssm and ssm-vr.  [default: noisy]")
@click.option(
    "--model",
    "kind",
    type=click.Choice(sorted(MODELS)),
    help="The network.  [default: ncsn, mlp for vectors; cld-refinenet or cld-mlp for the objective hsm]",
)
@click.option("--ngf", default=128, show_default=True, help="Width of ncsn, ncsnv2 and cld-refinenet.")
@click.option(
    "--hidden", metavar="N[,N...]", help="Widths of the hidden layers.  [default: mlp 128,128; cld-mlp 256,256,256]"
)
@click.option(
    "--activation", type=click.Choice(list(ACTIVATIONS)), default="softplus", show_default=True, help="Of mlp."
)
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
@click.option(
    "--ema-warmup/--no-ema-warmup", default=True, show_default=True, help="Let the average follow closely at first."
)
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
@click.option(
    "--on-nan",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="What to do about a loss that is not finite; skip leaves the step out.",
)
@click.option("--device", help="cpu, cuda, cuda:1; default: cuda where it runs.")
@click.option(
    "--accumulate", default=1, show_default=True, help="Compute a batch in so many pieces, for memory; else the same."
)
@click.option("--dry-run", is_flag=True, help="Print what would be trained and stop.")
def train(
    data,
    out,
    size,
    objective,
    noisy,
    kind,
    steps,
    batch_size,
    lr,
    ema,
    ema_warmup,
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
    on_nan,
    device,
    accumulate,
    dry_run,
    **network,
):
    """Train a score network on DATA, by default by denoising score matching.

    DATA: digits, glyphs, a folder or zip of images, .npy or .npz, an MNIST idx file or folder, CIFAR-10's binary
    files, or celeba:FOLDER; or vectors: mixture2d, checkerboard, swiss-roll, rings, or .npy of floats (N, D).

    torchrun --nproc-per-node 4 -m langevin_ext train ... shares each batch among 4 processes: the same noise and, but
    for rounding, the same run.
    """
    images = open_dataset(data, parse_size(size))
    device = parse_device(device)
    kind, objective = resolve(kind, objective, vectors=images.shape[1:] == (1, 1))
    network["hidden"] = parse_hidden(network["hidden"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # initial weights; all other randomness is counted, not drawn
        model = MODELS[kind](tuple(images.shape), network).to(device)
    parameters = sum(p.numel() for p in model.parameters())
    click.echo(
        f"{kind} with {parameters:,} parameters on {images}, {steps} steps of {batch_size} on {device}, {objective}; "
        f"a checkpoint takes {tqdm.format_sizeof(4 * parameters * (4 if ema else 3), 'B')}, two while it is written"
    )
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
        ema_warmup=ema_warmup,
        seed=seed,
        flip=flip,
        dequantise=dequantise,
        grad_clip=grad_clip,
        precision=precision,
        objective=objective,
        noisy=noisy,
        save_every=save_every,
        log_every=log_every,
        select_every=select_every,
        select=select,
        on_nan=on_nan,
        accumulate=accumulate,
    )
    if rank() > 0:  # process 0 writes
        return
    plots.loss_curve(out / "log.jsonl", out / "loss.png")
    chosen = ", best.safetensors, selection.jsonl, selection.png" if (out / "best.safetensors").exists() else ""
    click.echo(f"written: {out}/model.safetensors, checkpoint.safetensors, log.jsonl, loss.png{chosen}")


def resolve(kind, objective, vectors):
    """(kind of network, objective) where the one that is not given follows from the other and from the data."""
    if objective is None:
        objective = "hsm" if kind is not None and kind.startswith(CLD) else "dsm"
    if kind is None:
        prefix, image = (CLD, "refinenet") if objective == "hsm" else ("", "ncsn")
        kind = prefix + ("mlp" if vectors else image)
    return kind, objective


def parse_hidden(text):
    """None, or (128, 64) of "128,64"."""
    if text is None:
        return None
    if not all(part.isdigit() for part in text.split(",")):
        raise ValueError(f"--hidden must be like 128 or 128,128, got {text!r}")
    return tuple(int(part) for part in text.split(","))


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
