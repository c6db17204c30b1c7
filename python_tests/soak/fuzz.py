"""Feeds broken files and names to every parser, in a process of its own with little memory and a clock.

    python fuzz.py found                        tries what once was a failure
    python fuzz.py rounds EXAMPLES SEED         tries so many inputs of every target
    python fuzz.py for SECONDS SEED TARGET      prints the number of inputs tried

A failure ends it with status 1 and the input.

A parser may return, or raise ValueError or OSError in one sentence. Anything else is a failure: another exception, a
crash, more than `MEMORY` bytes beyond what the imports take, or an input that takes longer than `PATIENCE`.
"""

import faulthandler
import os
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from fuzz_targets import TARGETS, found
from hypothesis import HealthCheck, Phase, given, seed, settings

MEMORY = 2**30
PATIENCE = 20  # seconds
EXAMPLES = 50  # of one round; each round has its seed


def attempt(name, example):
    """Gives one example to a target; raises AssertionError unless it returns or raises what it may."""
    with tempfile.TemporaryDirectory() as outer, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(outer) / "a" / "b"
        folder.mkdir(parents=True)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        try:
            TARGETS[name][1](folder, example)
        except (ValueError, OSError) as error:
            assert "\n" not in str(error), f"a message of several lines: {error}"
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}") from error
        finally:
            faulthandler.cancel_dump_traceback_later()
        above = [path.name for path in (Path(outer), folder.parent) for path in path.iterdir()]
        assert above == ["a", "b"], f"files outside of the folder: {above}"


def limit_memory():
    """Leaves `MEMORY` bytes of address space beyond what is in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + MEMORY, resource.RLIM_INFINITY))


def run(name, seconds, first, examples=EXAMPLES):
    """Tries inputs for so long, at least one round; returns their number."""
    tried, end = 0, time.monotonic() + seconds
    while tried == 0 or time.monotonic() < end:

        @seed(first + tried)
        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        @given(TARGETS[name][0])
        def tries(example):
            nonlocal tried
            tried += 1
            attempt(name, example)

        tries()
    return tried


def main(how, *arguments):
    torch.set_num_threads(1)
    limit_memory()
    if how == "found":
        for name, example in found():
            attempt(name, example)
        print(len(found()))
    elif how == "rounds":
        examples, first = map(int, arguments)
        print(sum(run(name, 0, first, examples) for name in TARGETS))
    else:
        seconds, first, *name = arguments
        print(run(" ".join(name), float(seconds), int(first)))


if __name__ == "__main__":
    main(*sys.argv[1:])
