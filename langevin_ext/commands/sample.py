"""`langevin-ext sample`: images from a trained network."""

import click

from .. import sampling
from .common import PROGRESS, open_output, read_model, report, sampling_options, write_samples


@click.command()
@sampling_options
@click.option("--scheme", default="annealed", show_default=True, help="annealed (= HRS) or langevin.")
@click.option("--init", default="uniform", show_default=True, type=click.Choice(["uniform", "normal"]))
def sample(
    model_path, shape, n, seed, first, batch_size, eps, step_lr, steps_each, denoise, device, out, dry_run, scheme, init
):
    """Draw images by annealed Langevin dynamics and write them with a grid, their way, and the settings.

    A run that was stopped is continued by the same command, bit for bit.
    """
    model, facts = read_model(model_path, shape, device)
    arguments = {
        "seed": seed,
        "first": first,
        "batch_size": batch_size,
        "eps": eps,
        "step_lr": step_lr,
        "n_steps_each": steps_each,
        "denoise": denoise,
        "init": init,
    }
    if dry_run:
        return click.echo(str(sampling.plan(model, scheme, n, measure=True, **arguments)))
    folder = open_output(out)
    x, run = sampling.sample(
        model, scheme, n, snapshot="levels", checkpoint=folder / PROGRESS, return_info=True, **arguments
    )
    write_samples(folder, x, run, facts)
    report(folder, run, n)
