"""`langevin-ext status`: how far a run is, asked from outside."""

import json

import click

from .._progress import describe, read_status


@click.command()
@click.argument("folder", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print all that is known as JSON.")
def status(folder, as_json):
    """Say how far the run in FOLDER is: what is done, rate, remaining time, and whether its process still runs.

    `train` and `sample` write FOLDER/status.json every ten seconds.
    """
    found = read_status(folder)
    click.echo(json.dumps(found, indent=1) if as_json else describe(found))
