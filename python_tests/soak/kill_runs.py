"""Runs small enough to be killed many times, each as a function that a child process calls on a folder.

They go through the command line, so that what is killed includes the reading of files and the writing of results.
"""

import contextlib
import importlib
import os
import signal
import sys

from langevin_ext import _files, _tensor_files
from langevin_ext.cli import main
from langevin_ext.samplers import record

# What the runs import late, so that a child that is forked from a process with this module need not.
for _name in ("torch._dynamo", "torch.utils.tensorboard", "matplotlib.figure", "matplotlib.backends.backend_agg"):
    with contextlib.suppress(ImportError):
        importlib.import_module(_name)

TRAIN = "train rings:400 --hidden 8 --sigmas 1 0.1 4 --batch-size 8 --save-every 5 --log-every 10 --seed 3".split()
SAMPLE = "sample --model digits -n 6 --batch-size 3 --steps-each 3 --eps 1e-4 --seed 5".split()
TABLE = "table 2 --exact 8x8 --samples 20 -n 20 --batch-size 10 --steps-each 1 --no-time-rows --seed 7".split()


def nothing():
    """What a child does of which nothing is wanted but that it starts."""


def train(folder, steps=200):
    """A training run with a checkpoint every 5 steps."""
    _command([*TRAIN, "--steps", str(steps), "--out", folder])


def sample(folder):
    """A sampling run that saves its state after every step."""
    record.SAVING_SHARE = float("inf")
    _command([*SAMPLE, "--out", folder])


def table(folder):
    """A table that saves its state after every step."""
    record.SAVING_SHARE = float("inf")
    _command([*TABLE, "--out", folder])


def _command(arguments):
    with open(os.devnull, "w") as null:
        sys.stdout = sys.stderr = null
        main(arguments, standalone_mode=False)


def killed_while_writing(run, folder, moment, number):
    """The same run, which kills itself when it writes its `number`-th file, at a moment of `MOMENTS`."""
    seen = []

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def counted(function, name, before):
        def wrapper(*arguments, **options):
            seen.append(1)
            if len(seen) == number and before:
                die()
            result = function(*arguments, **options)
            if len(seen) == number:
                die()
            return result

        return wrapper

    class Half:
        """A file that is cut off in the middle of the tensors, and what was written so far on the disk."""

        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            seen.append(1)
            if len(seen) == number:
                self.file.write(bytes(content)[: len(content) // 2])
                self.file.flush()
                die()
            return self.file.write(content)

    if moment == "in the middle":
        _tensor_files.open = lambda path, mode: Half(open(path, mode))
    elif moment == "before the flush":
        _files._flush = counted(_files._flush, "flush", True)
    else:
        os.replace = counted(os.replace, "replace", moment == "before the rename")
    run(folder)


MOMENTS = ("in the middle", "before the flush", "before the rename", "after the rename")
