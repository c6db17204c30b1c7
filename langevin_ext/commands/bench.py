"""`langevin-ext bench`: how fast this machine is, and what each scheme will take on it."""

from pathlib import Path

import click
import torch
from tqdm import tqdm

from .. import __version__, _native
from ..benchmarking import network, tables
from ..benchmarking.timing import machine
from ..models import NCSN
from ..samplers.upsampling import check_ladder_of_sizes
from .common import parse_device, parse_shape, read_model, write_json

BATCHES = {"cpu": (1, 4, 16), "cuda": (1, 16, 100)}


@click.command()
@click.option(
    "--model",
    "model_paths",
    multiple=True,
    metavar="FILE|NAME",
    help="Your network: as --model of `sample`; for several resolutions once for each, coarsest first.  "
    "[default: an untrained NCSN]",
)
@click.option("--ngf", type=int, help="Width of the untrained NCSN.  [default: 128]")
@click.option(
    "--shape", metavar="CxHxW", help="Its image shape, or that of an official checkpoint.  [default: 3x32x32]"
)
@click.option("--scheme", "schemes", multiple=True, help="Schemes to predict.  [default: all that fit the models]")
@click.option(
    "-n", "n", type=click.IntRange(1), default=100, show_default=True, help="Samples that the predictions are for."
)
@click.option("--batch-size", type=click.IntRange(1), help="Samples at a time.  [default: 16 on the CPU, else 100]")
@click.option(
    "--seconds",
    default=120.0,
    show_default=True,
    help="About how long all may take; below 10 the kernels run on tiny images.",
)
@click.option("--device", help="cpu, cuda, cuda:1; default: cuda where it runs.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="JSON file to write; must be new.")
def bench(model_paths, ngf, shape, schemes, n, batch_size, seconds, device, out):
    """Measure kernels, forward passes and sampling on this machine, and predict the time of every scheme.

    Kernels are compared with plain torch and with a copy that moves as many bytes, the forward pass with the time of
    its arithmetic at the rate of a large matrix product and of its norms at the bandwidth of a large copy. A scheme
    takes its evaluations times what one takes here. Close other programs for numbers that mean something.
    """
    if out is not None and out.exists():
        raise ValueError(f"--out must be a new file, got {out}, which exists")
    if out is not None and not out.absolute().parent.is_dir():
        raise ValueError(f"--out must be in an existing folder, got {out}")
    if not seconds > 0:
        raise ValueError(f"--seconds must be positive, got {seconds:g}")
    place = parse_device(device)
    labels, models = open_models(model_paths, ngf, shape, device)
    size = batch_size or BATCHES[place.type][-1]
    found = {"version": __version__, **machine(place), "backend": _native.backend_info(), "models": labels}
    click.echo("\n".join(heading(found)))
    chosen = list(schemes) or tables.scheme_names(models)
    with tqdm(total=10 + len(models) * (1 + len(BATCHES[place.type])), unit="step", dynamic_ncols=True) as bar:
        found |= measured(labels, models, chosen, n, min(size, n), place, seconds, bar)
    click.echo("\n".join(text(found, n)))
    if out is not None:
        write_json(out, found)
        click.echo(f"written to {out}")


def open_models(paths, ngf, shape, device):
    """The names and the models; without paths the untrained network."""
    if paths:
        if ngf is not None:
            raise ValueError("--ngf is for the untrained network, without --model")
        models = [read_model(path, shape, device)[0].eval() for path in paths]
        for path, model in zip(paths, models, strict=True):
            if not (hasattr(model, "sigmas") or hasattr(model, "process")):
                raise ValueError(f"--model must be a score network, got {path}, which holds {type(model).__name__}")
        check_ladder_of_sizes([tuple(model.shape) for model in models])
        return list(map(str, paths)), models
    shape, ngf = parse_shape(shape or "3x32x32"), 128 if ngf is None else ngf
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return [f"NCSN {'x'.join(map(str, shape))} ngf {ngf}"], [NCSN(shape, ngf).to(parse_device(device)).eval()]


def measured(labels, models, schemes, n, batch, device, seconds, bar):
    """All tables, each in its share of the time."""

    def step(what):
        bar.set_description_str(what)
        return bar.update

    small = seconds < 10
    limits = network.ceilings(device, 0.02 * seconds)
    step("kernels")(1)
    images = (2, 16, 8) if small else (16, 64, 128) if device.type == "cpu" else (100, 64, 128)
    rows = tables.kernel_rows(*images, device, 0.2 * seconds, step("kernels"))
    forward = []
    for label, model in zip(labels, models, strict=True):
        share = 0.3 * seconds / len(models)
        forward += network.forward_rows(label, model, BATCHES[device.type], limits, device, share, step("forward"))
    units = tables.unit_seconds(models, batch)
    step("sampling")(len(models))
    run = tables.run_row(models, batch, units, 0.2 * seconds)
    step("done")(1)
    return {
        "copy_gb_per_s": limits.bytes_per_s / 1e9,
        "matmul_gflop_per_s": limits.flop_per_s / 1e9,
        "kernels": dict(zip(("batch", "size", "channels"), images, strict=True)) | {"rows": rows},
        "forward": forward,
        "units": units,
        "run": run,
        "schemes": {"n": n, "batch": batch, "rows": tables.scheme_rows(models, schemes, n, batch, units)},
    }


def heading(found):
    """Where all was measured."""
    native = "native core" if found["backend"]["native"] else "plain torch"
    yield f"langevin_ext {found['version']} ({found['commit']}), torch {found['torch']}, {native}"
    yield f"{found['device']}, {found['threads']} threads"


def text(found, n):
    """The tables."""
    copy, matmul = found["copy_gb_per_s"], found["matmul_gflop_per_s"]
    yield f"a large copy moves {copy:.1f} GB/s, a large matrix product does {matmul:.0f} GFLOP/s in float32\n"
    sizes = found["kernels"]
    yield f"kernels, float32, {sizes['batch']} images of {sizes['size']} pixels, {sizes['channels']} channels"
    yield f"{'':30} {'torch us':>10} {'fused us':>10} {'faster':>7} {'of a copy':>10}"
    for row in sizes["rows"]:
        yield (
            f"{row['op']:30} {row['torch_us']:10.1f} {row['fused_us']:10.1f} {row['ratio_to_torch']:6.2f}x "
            f"{100 * row['share_of_copy']:8.0f} %"
        )
    yield f"\n{'forward pass':34} {'batch':>6} {'ms':>10} {'images/s':>10} {'GFLOP/s':>9} {'of its bound':>13}"
    for row in found["forward"]:
        share = "" if row["share_of_floor"] is None else f"{100 * row['share_of_floor']:.0f} %"
        yield (
            f"{row['model'][-34:]:34} {row['batch']:6} {1e3 * row['median_s']:10.2f} {row['images_per_s']:10.1f} "
            f"{row['gflop_per_s']:9.1f} {share:>13}"
        )
    run = found["run"]
    settings = ", ".join(f"{name} {value}" for name, value in run["arguments"].items())
    yield f"\na run of {run['scheme']} ({settings}): {run['seconds']:.2f} s,"
    yield f"{run['measured_to_predicted']:.2f} of its prediction; {run['evaluations_per_s']:.1f} evaluations a second\n"
    yield f"predicted for {n} samples, {found['schemes']['batch']} at a time"
    yield f"{'':24} {'evaluations':>26} {'seconds':>10} {'images/s':>10}"
    for row in found["schemes"]["rows"]:
        if "why_not" in row:
            yield f"{row['scheme']:24} not for these models: {row['why_not']}"
            continue
        counts = ", ".join(f"{count} at {size}" for size, count in row["evaluations"].items() if count)
        yield f"{row['scheme']:24} {counts:>26} {row['predicted_s']:10.1f} {row['images_per_s']:10.3g}"
