"""`langevin-ext` (= `python -m langevin_ext`): the command line over the public functions."""

import contextlib
import logging
import os
import sys

import click

from . import __version__
from ._group import OtherProcessFailed, processes, rank, speaks, world_size
from ._interruption import Terminated, terminated_as_exception
from ._progress import logger
from .commands.bench import bench
from .commands.demo import demo
from .commands.diagnose import diagnose
from .commands.evaluate import evaluate
from .commands.experiment import experiment_command
from .commands.info import info
from .commands.inpaint import inpaint
from .commands.merge import merge_command
from .commands.sample import sample
from .commands.status import status
from .commands.suggest import suggest
from .commands.table import table
from .commands.train import train
from .commands.train_classifier import train_classifier
from .commands.train_upsampler import train_upsampler_command
from .commands.tune import tune

# What a user can get wrong or a machine can refuse; anything else is a defect of ours and keeps its traceback.
USER_ERRORS = (ValueError, TypeError, FloatingPointError, OSError, ImportError, MemoryError)


LOG_LEVELS = ("debug", "info", "warning", "error")
SHARED = ("train", "train-upsampler", "sample")  # the commands that several processes can run together


class Commands(click.Group):
    """Turns errors into one sentence on stderr and exit status 1, Ctrl-C into 130, SIGTERM into 143.

    Of several processes the first to fail says why, and the others end in silence.
    """

    def invoke(self, context):
        try:
            with terminated_as_exception(), processes(), _heard():
                return super().invoke(context)
        except OtherProcessFailed:
            sys.exit(1)
        except USER_ERRORS as error:
            if not speaks():
                sys.exit(1)
            raise click.ClickException(" ".join(str(error).split())) from error
        except KeyboardInterrupt as stop:
            terminated = isinstance(stop, Terminated)
            if rank() == 0:
                what = "terminated" if terminated else "interrupted"
                click.echo(f"langevin-ext: {what}; call it again in the same way to go on", err=True)
            sys.exit(143 if terminated else 130)

    def resolve_command(self, context, arguments):
        name, command, rest = super().resolve_command(context, arguments)
        if name not in SHARED and world_size() > 1:
            raise ValueError(f"langevin-ext {name}: must be started without torchrun, got {world_size()} processes")
        return name, command, rest


@contextlib.contextmanager
def _heard():
    """Lets process 0 alone write to stdout."""
    if rank() == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="langevin-ext")
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    help="What is written to stderr, with the time: debug also tells when files are written, warning hides progress. "
    "[default: a bar on a terminal, else a line a minute]",
)
def main(log_level):
    """Score-based Langevin sampling on fused C++/CUDA kernels."""
    if log_level is not None:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", force=True)
        logger.setLevel(log_level.upper())
        logging.captureWarnings(True)


COMMANDS = (
    info,
    demo,
    train,
    train_classifier,
    train_upsampler_command,
    sample,
    status,
    merge_command,
    inpaint,
    evaluate,
    tune,
    table,
    experiment_command,
    bench,
    diagnose,
    suggest,
)
for command in COMMANDS:
    main.add_command(command)
