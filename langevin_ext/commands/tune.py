"""`langevin-ext tune`: which scheme, how many steps and which step size suit the data."""

import dataclasses
import shlex
import sys
from pathlib import Path

import click

from .. import __version__, tuning
from ..data import open_dataset
from ..samplers.upsampling import UPSAMPLERS
from ..schedules import geometric_sigmas
from .common import open_output, read_model, write_json
from .train import parse_size


@click.command()
@click.argument("data")
@click.option("--size", help="Full resolution, SIZE or HxW; default: that of the images or of --model-high.")
@click.option("--low", type=click.IntRange(min=1), help="Height of the lowest resolution; default: half the full one.")
@click.option("--budget", type=float, help="Cost allowed, 1 being HRS at 100 steps.  [default: choose what equals HRS]")
@click.option("--model-low", metavar="FILE|NAME", help="Networks to measure the cost of an evaluation on,")
@click.option("--model-high", metavar="FILE|NAME", help="and whose noise levels are run; see --model of `sample`.")
@click.option(
    "--sigmas",
    nargs=3,
    type=(float, float, int),
    default=(1.0, 0.01, 10),
    show_default=True,
    help="Noise levels without networks: largest, smallest, how many.",
)
@click.option("--steps-each", type=int, multiple=True, help="Steps per level to try; repeatable.")
@click.option("--eps", type=float, multiple=True, help="Step size at the last level to try; repeatable.")
@click.option("--upsample", type=click.Choice(UPSAMPLERS), multiple=True, help="To try; repeatable. [default: bicubic]")
@click.option("--denoise/--no-denoise", default=True, show_default=True, help="Last denoising step.")
@click.option("--spectra", is_flag=True, help="Keep spectra instead of covariance matrices, as above 1,024 values.")
@click.option("--device", help="cpu, cuda, cuda:1, for the networks; default: cuda where it runs.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for tune.png and tune.json; must be new.")
def tune(data, size, low, budget, model_low, model_high, sigmas, steps_each, eps, upsample, spectra, out, **options):
    """Predict distance against cost of every scheme on DATA, and choose one.

    DATA as for `train`. The law of every scheme is known exactly for Gaussian data of the same mean and covariance; no
    network is needed.
    """
    models = read_pair(model_low, model_high, options["device"])
    if models is not None and (size is not None or low is not None):
        raise ValueError("--size and --low must not be given with networks, which have their own")
    wanted = parse_size(size) if models is None else tuple(models[-1].shape[1:])
    images = open_dataset(data, wanted, channels=None if models is None else models[-1].shape[0])
    folder = None if out is None else open_output(out)
    result = tuning.tune(
        images,
        models,
        budget=budget,
        shapes=None if models else halves(tuple(images.shape), low),
        sigmas=None if models else geometric_sigmas(*sigmas),
        n_steps_each=steps_each or tuning.STEPS,
        eps=eps or None,
        upsample=upsample or "bicubic",
        denoise=options["denoise"],
        stationary=True if spectra else None,
    )
    command = command_line(result, model_low or "LOW", model_high or "HIGH")
    trained = "" if models else f"(networks trained with the noise levels --sigmas {' '.join(map(str, sigmas))})\n"
    click.echo(f"{result}\n{command}\n{trained}".rstrip())
    if folder is not None:
        tuning.front_plot(result, folder / "tune.png")
        facts = {"command": sys.argv[1:], "version": __version__, "data": repr(images), "sample": command}
        write_json(folder / "tune.json", facts | {"arguments": result.plan_arguments} | dataclasses.asdict(result))
        click.echo(f"written to {folder}: tune.json, tune.png")


def read_pair(low, high, device):
    """The two networks, coarsest first; None for neither."""
    if (low is None) != (high is None):
        raise ValueError(f"--model-low and --model-high must be given together, got {low or high} alone")
    return None if low is None else [read_model(path, None, device)[0] for path in (low, high)]


def halves(shape, low):
    """The shapes from that of height `low` up to `shape`, each the double of the one before."""
    channels, height, width = shape
    if low is None and (height % 2 or width % 2):
        raise ValueError(f"--size must be even in both directions, got {height}x{width}")
    low = height // 2 if low is None else low
    ups = max((height // low).bit_length() - 1, 0)
    if low << ups != height or width % (1 << ups) or not ups:
        raise ValueError(f"--low must be {height} halved once or more, got {low} for images of {height}x{width}")
    return [(channels, height >> up, width >> up) for up in range(ups, -1, -1)]


def command_line(result, low, high):
    """The `langevin-ext sample` that runs the choice."""
    arguments = result.plan_arguments
    middle = [f"MODEL{'x'.join(map(str, shape[1:]))}" for shape in result.shapes[1:-1]]
    words = ["langevin-ext", "sample"]
    for model in [high] if arguments["scheme"].startswith("HRS") else [low, *middle, high]:
        words += ["--model", model]
    words += ["--scheme", arguments["scheme"]]
    for option, name in (("--steps-each", "n_steps_each"), ("--eps", "eps")):
        value = arguments[name]
        words += [option, ",".join(map(repr, value if isinstance(value, list) else [value]))]
    words += ["--upsample", arguments["upsample"]] if arguments.get("upsample", "bicubic") != "bicubic" else []
    words += ["--renoise"] if arguments.get("renoise") else []
    words += [] if arguments["denoise"] else ["--no-denoise"]
    return shlex.join([*words, "--out", "samples"])
