"""What the commands share: reading a model, an output folder that never loses anything, and what is put into it."""

import hashlib
import json
import sys
from pathlib import Path

import click
import numpy as np
import torch

from .. import __version__, _native, _progress, plots
from .._files import atomic_path, remove_temporaries
from .._group import local_gpu, world_size
from .._lock import NAME as LOCK
from .._lock import locked
from ..engine import PRECISIONS
from ..models import FSRCNN, import_fsrcnn, import_ncsn
from ..samplers.upsampling import UPSAMPLERS
from ..training import describe, load, shipped

PROGRESS = "run.safetensors"  # the state of a sampling run; a folder that has it alone can be continued
RESULTS = {"samples.npz", "grid.png", "trajectory.png", "scatter.png", "settings.json"}
OFFICIAL = (".pth", ".pt")


def sampling_options(function):
    """The options of `sample` and `inpaint` that mean the same."""
    options = [
        click.option(
            "--model",
            "model_paths",
            required=True,
            multiple=True,
            metavar="FILE|NAME",
            help="Checkpoint of `train`, an official NCSN or NCSNv2 .pth, or a shipped one: "
            + (", ".join(shipped("score")) or "none")
            + ". For several resolutions once for each, coarsest first.",
        ),
        click.option("--shape", metavar="CxHxW", help="Image shape of an official checkpoint; default: Cx32x32."),
        click.option("-n", "n", default=64, show_default=True, help="Number of samples."),
        click.option("--seed", default=0, show_default=True),
        click.option("--first", default=0, show_default=True, help="Global index of the first sample."),
        click.option("--batch-size", type=int, help="Samples at a time; changes nothing but memory and speed."),
        click.option(
            "--scheme",
            default="annealed",
            show_default=True,
            help="annealed (= HRS), HRS-j, langevin; with two models LRS, LRS-up, LRS-up-HRS-j, LRS-i-up-HRS-j; or "
            "R1[1:4]-up-R0[4:10] and so on.",
        ),
        click.option(
            "--upsample",
            default="bicubic",
            show_default=True,
            metavar="NAME|FILE",
            help=f"{', '.join(UPSAMPLERS)}, a checkpoint of `train-upsampler` or of FSRCNN (.pth), "
            f"or a shipped one: {', '.join(shipped('fsrcnn'))}.",
        ),
        click.option("--renoise/--no-renoise", default=False, help="After upsampling add the next level's noise."),
        click.option(
            "--eps",
            metavar="X[,X...]",
            help="Step size at the last level (NCSN, Algorithm 1), one or one for each model.  [default: 2e-5]",
        ),
        click.option(
            "--step-lr", metavar="X[,X...]", help="The same in the released code's convention, eps = 2 step_lr."
        ),
        click.option(
            "--steps-each",
            default="100",
            metavar="N[,N...]",
            show_default=True,
            help="Langevin steps per noise level, one number or one for each model.",
        ),
        click.option("--denoise/--no-denoise", default=True, show_default=True, help="Last denoising step."),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            default="auto",
            show_default=True,
            help="Of networks: int16 is the fastest for wide ones on most CPUs, fp16 and tf32 are for GPUs; auto is "
            "the fastest whose error is far below the noise of a step.",
        ),
        click.option("--device", help="cpu, cuda, cuda:1; default: cuda where it runs."),
        click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write; must be new."),
        click.option("--dry-run", is_flag=True, help="Print the plan and stop."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def read_models(paths, shape=None, device=None):
    """(model or list of models, what it is or they are): see `read_model`."""
    models, facts = zip(*(read_model(path, shape, device) for path in paths), strict=True)
    return (models[0], facts[0]) if len(models) == 1 else (list(models), list(facts))


def sampling_arguments(options):
    """The arguments of `sample` from the options that `sample` and `inpaint` share.

    Args:
        options: dict of their values; those that `sample` does not take are left out.
    """
    arguments = {name: options[name] for name in ("seed", "first", "batch_size", "denoise", "precision")}
    arguments |= {name: _numbers(name, options[name], float) for name in ("eps", "step_lr")}
    arguments["n_steps_each"] = _numbers("steps_each", options["steps_each"], int)
    arguments["upsample"] = read_upsampler(options["upsample"], options["device"])
    if options["renoise"]:
        arguments["renoise"] = True
    return arguments


def _numbers(name, text, kind):
    """One number or a list of them, of "1e-5" or "1e-5,2e-5"."""
    if text is None:
        return None
    try:
        values = [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--{name.replace('_', '-')} must be a number, or one for each model with commas, got {text!r}"
        ) from None
    return values[0] if len(values) == 1 else values


def read_upsampler(text, device=None):
    """The name as it is, or the network in a file."""
    if text in UPSAMPLERS:
        return text
    if str(text).endswith(OFFICIAL):
        return import_fsrcnn(text).to(parse_device(device)).eval()
    if not Path(text).is_file() and text not in shipped():
        raise ValueError(f"--upsample must be one of {', '.join(UPSAMPLERS)} or a file, got {text!r}")
    network = load(text, parse_device(device))
    if not isinstance(network, FSRCNN):
        raise ValueError(f"--upsample must be an upsampling network, got {text}, which holds {type(network).__name__}")
    return network


def read_model(path, shape=None, device=None):
    """(model, what it is): a checkpoint of ours by file or shipped name, or an official one."""
    device = parse_device(device)
    if str(path).endswith(OFFICIAL):
        model = import_ncsn(path, None if shape is None else parse_shape(shape))
        sha256 = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        return model.to(device), {"path": str(path), "format": "official", "sha256": sha256, "config": model.config()}
    if shape is not None:
        raise ValueError(f"--shape is for official checkpoints, {path} carries its own")
    facts = describe(path)
    return load(path, device), {"path": str(path)} | {name: facts[name] for name in ("sha256", "config", "metadata")}


def parse_device(text):
    """The device that --device names; without it CUDA where torch sees it, else the CPU.

    Under torchrun each process has the GPU of its number, unless --device names one.
    """
    if text is None:
        text = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = text.partition(":")
    if kind not in ("cpu", "cuda") or not (index == "" or index.isdigit()):
        raise ValueError(f"--device must be cpu, cuda or cuda:N, got {text!r}")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device must be a GPU that torch sees, it sees {torch.cuda.device_count()}, got {text!r}")
    if text == "cuda" and world_size() > 1:
        return torch.device("cuda", local_gpu())
    return torch.device(text)


def parse_shape(text):
    try:
        channels, height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise ValueError(f"--shape must be like 3x32x32, got {text!r}") from None
    return channels, height, width


def open_output(folder, mark=PROGRESS, results=RESULTS):
    """Makes the folder, or takes an empty one, or that of a run that was stopped; locked until the command ends.

    Such a folder holds `mark`, which is removed (or, for the demo, complete) only at the end, and nothing but `results`
    beside it; they are written again.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    click.get_current_context().with_resource(locked(folder, "--out"))
    remove_temporaries(folder)  # of a process that was killed while it wrote
    names = {entry.name for entry in folder.iterdir() if not entry.name.endswith(LOCK)} - {_progress.NAME}
    if names and (mark not in names or names - results - {mark}):
        raise ValueError(f"--out must be a new or empty folder, got {folder}, which holds other files")
    return folder


def running_files(folder) -> dict:
    """The arguments of `sample` that name what a run keeps in `folder` while it is drawn."""
    return {"checkpoint": folder / PROGRESS, "status": folder / _progress.NAME}


def write_json(path, value):
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2) + "\n")


def write_samples(folder, x, run, model_facts, *, extra=None):
    """samples.npz (float32 images, N C H W), pictures and settings.json of a finished run."""
    with atomic_path(folder / "samples.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, images=x.cpu().numpy(), seed=run["settings"]["seed"], first=run["settings"]["first"])
    write_pictures(folder, x, run, model_facts)
    write_json(folder / "settings.json", settings_file(run, model_facts) | (extra or {}))
    (folder / PROGRESS).unlink(missing_ok=True)


def settings_file(run, model_facts) -> dict:
    """What settings.json says of a run."""
    return {
        "command": sys.argv[1:],
        "version": __version__,
        "backend": run["backend"],
        "precision": run["precision"],
        "core": _native.backend_info(),
        "model": model_facts,
        **run["settings"],
        "evaluations": run["evaluations"],
        "seconds": run["seconds"],
        "images_per_second": run["images_per_second"],
        "diagnostics": run["diagnostics"],
    }


def write_pictures(folder, x, run, model_facts):
    """grid.png and trajectory.png, the first samples and their way through the levels; scatter.png of the plane."""
    if x.shape[1:] == (2, 1, 1):
        plots.scatter(x, folder / "scatter.png")
    if x.shape[1] not in (1, 3):
        return
    plots.image_grid(x[:100], folder / "grid.png", smooth=is_small(x), metadata={"model": _paths(model_facts)})
    count = min(10, *(len(snapshot) for snapshot in run["snapshots"])) if run["snapshots"] else 10
    strip = [snapshot[:count] for snapshot in run["snapshots"]] + [x[:count].cpu()]
    labels = [_label(place) for place in run["snapshot_places"]] + ["result"]
    frames = [i for i, place in enumerate(run["snapshot_places"]) if place["kind"] == "upsample"]
    plots.trajectory(strip, folder / "trajectory.png", labels, frames=frames, smooth=is_small(x))


def _paths(facts):
    return [one["path"] for one in facts] if isinstance(facts, list) else facts["path"]


def _label(place):
    if place["kind"] == "upsample":
        return "upsampled" if place["sigma"] == 0 else f"up, σ={place['sigma']:.3g}"
    return f"σ={place['sigma']:.3g}"


def is_small(x):
    """Images so small that a reader recognises them only when they are enlarged smoothly."""
    return max(x.shape[2:]) < 16


def report(folder, run, n):
    written = sorted(RESULTS & {path.name for path in folder.iterdir()})
    click.echo(
        f"{n} samples in {run['seconds']:.1f} s ({run['images_per_second']:.3g} images/s, {run['backend']}); "
        f"written to {folder}: {', '.join(written)}"
    )
