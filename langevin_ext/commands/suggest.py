"""`langevin-ext suggest`: noise levels and a step size for one's own data."""

import click

from ..data import open_dataset
from ..schedules import suggest_eps, suggest_sigmas
from .train import parse_size


@click.command()
@click.argument("data")
@click.option("--size", help="Size of the images, SIZE or HxW.")
@click.option("--last", default=0.01, show_default=True, help="Smallest noise level.")
@click.option("--coverage", default=0.5, show_default=True, help="Overlap of neighbouring levels, in (0, 1).")
@click.option("--steps-each", default=5, show_default=True, help="Langevin steps per level that eps is for.")
def suggest(data, size, last, coverage, steps_each):
    """Suggest noise levels and a step size for DATA by the techniques of NCSNv2 (arXiv:2006.09011).

    The first level is the largest distance between two images, the ratio of neighbours makes their noise overlap, and
    the step keeps the variance at each level.
    """
    images = open_dataset(data, parse_size(size))
    pixels = images.vectors if hasattr(images, "vectors") else images.images.float() / 255
    sigmas = suggest_sigmas(pixels, last, coverage)
    eps = suggest_eps(sigmas, steps_each)
    click.echo(f"{images}: the images are at most {sigmas[0]:.4g} apart; {len(sigmas)} levels")
    click.echo(f"train:   --model ncsnv2 --sigmas {sigmas[0]:.6g} {sigmas[-1]:g} {len(sigmas)}")
    click.echo(f"sample:  --steps-each {steps_each} --eps {eps:.4g}     (step_lr {eps / 2:.4g})")
