"""`langevin-ext experiment`: the experiments of the papers, each one command."""

from pathlib import Path

import click

from .._files import atomic_path
from ..experiments.catalogue import EXPERIMENTS, experiment
from .common import open_output, write_json

UNFINISHED = "unfinished"
RESULTS = {"report.md", "report.json"}


@click.command(name="experiment")
@click.argument("name", metavar="NAME|all")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for report.md, report.json and figures; new.")
@click.option("--size", type=float, default=1.0, show_default=True, help="Share of the samples and training steps.")
@click.option("--seed", type=int, default=0, show_default=True)
def experiment_command(name, out, size, seed):
    """Repeat an experiment of the papers: their number, the closed form, ours with its standard error, a verdict.

    NAME is one of the list below, or all. The exit status is 1 if something is not reproduced.
    """
    names = list(EXPERIMENTS) if name == "all" else [name]
    if out is not None:
        results = {path.name for path in out.glob("*.png")} | RESULTS if out.is_dir() else RESULTS
        out = open_output(out, UNFINISHED, results)
        (out / UNFINISHED).touch()
    reports = []
    for one in names:
        report = experiment(one, out=out, size=size, seed=seed)
        click.echo(f"{report}\n")
        reports.append(report)
    if out is not None:
        write_json(out / "report.json", [report.to_dict() for report in reports])
        with atomic_path(out / "report.md") as temporary:
            temporary.write_text("\n".join(report.markdown() for report in reports))
        (out / UNFINISHED).unlink()
    seconds = sum(report.seconds for report in reports)
    click.echo(f"{sum(r.reproduced for r in reports)} of {len(reports)} experiments reproduced, {seconds:.0f} s")
    if not all(report.reproduced for report in reports):
        raise SystemExit(1)


experiment_command.epilog = "\b\n" + "\n".join(f"{name:18} {what}" for name, what in EXPERIMENTS.items())
