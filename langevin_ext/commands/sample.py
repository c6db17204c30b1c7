"""`langevin-ext sample`: images from trained networks."""

import click

from .. import sampling
from .common import (
    PROGRESS,
    open_output,
    read_models,
    report,
    sampling_arguments,
    sampling_options,
    write_samples,
)


@click.command()
@sampling_options
@click.option("--init", default="uniform", show_default=True, type=click.Choice(["uniform", "normal"]))
def sample(model_paths, shape, n, scheme, device, out, dry_run, init, **options):
    """Draw images by annealed Langevin dynamics and write them with a grid, their way, and the settings.

    With several models, coarsest first, by a multi-resolution scheme such as LRS-2-up-HRS-9. A run that was stopped is
    continued by the same command, bit for bit.
    """
    model, facts = read_models(model_paths, shape, device)
    arguments = sampling_arguments({**options, "device": device}) | {"init": init}
    if dry_run:
        return click.echo(str(sampling.plan(model, scheme, n, measure=True, **arguments)))
    folder = open_output(out)
    x, run = sampling.sample(
        model, scheme, n, snapshot="levels", checkpoint=folder / PROGRESS, return_info=True, **arguments
    )
    write_samples(folder, x, run, facts)
    report(folder, run, n)
