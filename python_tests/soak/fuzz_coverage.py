"""The parsers of `fuzz` under atheris, which keeps inputs that reach new code and changes those further.

    python fuzz_coverage.py SECONDS SEED TARGET

Where a target takes bytes, it is given them as they are, first those that hypothesis makes of valid files; else
hypothesis builds what it takes from the bytes. A failure ends it as in `fuzz`, with the input.
"""

import sys
import tempfile
from pathlib import Path

import atheris
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

with atheris.instrument_imports(include=["langevin_ext", "zipfile", "tarfile", "gzip", "json", "PIL"]):
    import fuzz
    from fuzz_targets import TARGETS

QUIET = {"database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}
FIRST = 200  # inputs that hypothesis makes
LONGEST = 1 << 14  # bytes of an input, more than any of the valid files has


def first_inputs(strategy, number, folder):
    """Writes what a strategy makes to the folder; says whether that is bytes."""
    made = []

    @seed(number)
    @settings(max_examples=FIRST, phases=[Phase.generate], **QUIET)
    @given(strategy)
    def collect(example):
        made.append(example)

    collect()
    for place, example in enumerate(made):
        if isinstance(example, bytes):
            (folder / str(place)).write_bytes(example)
    return all(isinstance(example, bytes) for example in made)


def entry(name, takes_bytes):
    """What atheris calls with bytes."""
    if takes_bytes:
        return lambda content: fuzz.attempt(name, bytes(content))

    @settings(**QUIET)
    @given(TARGETS[name][0])
    def built(example):
        fuzz.attempt(name, example)

    return built.hypothesis.fuzz_one_input


def main(seconds, number, name):
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        takes_bytes = first_inputs(TARGETS[name][0], number, Path(folder))
        # `attempt` has its own patience and limit of memory; with no timeout libFuzzer's alarm ends the process.
        limits = f"-max_total_time={seconds} -max_len={LONGEST} -rss_limit_mb=0 -timeout={3 * fuzz.PATIENCE}"
        options = [*limits.split(), f"-seed={number + 1}", f"-artifact_prefix={folder}/"]
        atheris.Setup([sys.argv[0], *options, folder], entry(name, takes_bytes))
        fuzz.limit_memory()
        atheris.Fuzz()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), " ".join(sys.argv[3:]))
