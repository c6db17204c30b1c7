"""`langevin-ext sample`: images from trained networks."""

import inspect
import json

import click

from .. import sampling, sharding
from .._group import processes
from ..data import open_dataset
from ..samplers.starts import NAMES
from .common import (
    open_output,
    read_models,
    report,
    running_files,
    sampling_arguments,
    sampling_options,
    settings_file,
    write_pictures,
    write_samples,
)


@click.command()
@sampling_options
@click.option(
    "--init", type=click.Choice(NAMES), help="Where chains start.  [default: that of the scheme, mostly uniform noise]"
)
@click.option("--data", metavar="DATA", help="Images to start from, with --init data.")
@click.option("--split", default="test", show_default=True, help="Which of them: train, test or all.")
@click.option(
    "--option",
    "scheme_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Options of the scheme, such as sigma=0.5, m=16, T=5 or sigma_ref=stage; may be repeated.",
)
@click.option(
    "--shard-size",
    type=click.IntRange(1),
    help="Samples in a shard; more samples than that are drawn in shards, by all processes of torchrun.  [default: "
    "1000, or as many as have 2^22 values, at least one batch]",
)
def sample(
    model_paths, shape, n, scheme, device, out, dry_run, init, data, split, scheme_options, shard_size, **options
):
    """Draw images by annealed Langevin dynamics, or another scheme, and write them with a grid, their way, and the
    settings.

    With several models, coarsest first, by a multi-resolution scheme such as LRS-2-up-HRS-9. Other schemes: langevin,
    consistent, walk-jump, jms, sms, ou-reverse, probability-flow, and cld-em, cld-sscs, cld-ode for networks trained
    with --objective hsm. A run that was stopped is continued by the same command, bit for bit.

    More samples than --shard-size go to disk in shards: torchrun --nproc-per-node 8 -m langevin_ext sample -n 50000 ...
    shares them among 8 processes, and the same command, with any number of processes, draws just what is missing. On
    machines that do not know of each other share them by --first and -n, and put them together by `merge`.
    """
    model, facts = read_models(model_paths, shape, device)
    arguments = sampling_arguments({**options, "device": device}) | {"init": init}
    arguments |= _scheme_options(scheme_options)
    if data is not None:
        channels, *size = (model[0] if isinstance(model, list) else model).shape
        form = {} if size == [1, 1] else {"size": size, "channels": channels}  # vectors have neither
        arguments["data"] = open_dataset(data, split=split, **form)
    size = shard_size or _default_shard_size(model, scheme, n, arguments)
    if dry_run:
        shards = f"\n  {-(-n // size)} shards of at most {size} samples" if n > size else ""
        return click.echo(str(sampling.plan(model, scheme, n, measure=True, **arguments)) + shards)
    if n > size:
        return _in_shards(model, scheme, n, out, shard_size, facts, arguments)
    with processes() as group:  # one shard, which cannot be shared
        group.first(lambda: _whole(model, scheme, n, out, facts, arguments))


def _default_shard_size(model, scheme, n, arguments):
    plan = sampling.plan(model, scheme, n, **arguments)
    return sharding.default_size(plan.shape, arguments["batch_size"])


def _whole(model, scheme, n, out, facts, arguments):
    """A run that is drawn as one."""
    folder = open_output(out)
    arguments |= running_files(folder)
    x, run = sampling.sample(model, scheme, n, snapshot="levels", return_info=True, **arguments)
    write_samples(folder, x, run, facts)
    report(folder, run, n)


def _scheme_options(texts):
    """The options by name; those of `sample` itself have options of their own."""
    options: dict = {}
    for name, value in map(_option, texts):
        if name in inspect.signature(sampling.sample).parameters or name == "dtype":
            raise ValueError(f"--option must be an option of the scheme, such as sigma or m, got {name}")
        if name in options:
            raise ValueError(f"--option must give each option once, got {name} twice")
        options[name] = value
    return options


def _in_shards(model, scheme, n, out, shard_size, facts, arguments):
    """A run that goes to disk in shards; process 0 writes its pictures."""

    def finish(x, run):
        write_pictures(out, x, run, facts)
        return settings_file(run, facts)

    run = sharding.sample_shards(
        model, scheme, n, out=out, shard_size=shard_size, facts=facts, finish=finish, **arguments
    )
    if run:
        report(out, run, n)


def _option(text):
    """(name, value) of NAME=VALUE, the value a number, a list, true or false where it reads as JSON, else a word."""
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals and value):
        raise ValueError(f"--option must be like sigma=0.5, got {text!r}")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
