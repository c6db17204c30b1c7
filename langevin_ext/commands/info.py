"""`langevin-ext info`: what was built, what runs, and why not more."""

import json

import click

from .. import _native
from ..engine.convolutions import why_int16_is_slow, why_not_int16
from ..training import shipped

LOOPS = {"any": "any CPU", "v3": "x86-64-v3", "v4": "x86-64-v4"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def info(as_json):
    """Say what was built, what runs now, and why not more."""
    facts = _native.backend_info()
    click.echo(json.dumps(facts, indent=2) if as_json else "\n".join(lines(facts)))


def lines(facts):
    """The facts as sentences."""
    yield f"langevin_ext {facts['version']}, torch {facts['torch']}, {facts['cpu']}, {facts['threads']} threads"
    if facts["native"]:
        yield f"native core:  runs (compiled by {facts['compiler']}; convolutions and noise for {LOOPS[facts['isa']]})"
        if reason := why_not_int16():
            yield f"int16 engine: does not run: {reason}"
        else:
            slow = why_int16_is_slow()
            yield f"int16 engine: runs{', if asked for: ' + slow if slow else ''}"
    else:
        yield f"native core:  does not run: {facts['native_reason']}"
    if facts["cuda_built"]:
        archs = ", ".join(f"sm_{arch}" for arch in facts["cuda_archs"].split())
        yield f"CUDA kernels: built for {archs} and PTX, CUDA {version(facts['cuda_runtime'])}"
    else:
        yield f"CUDA kernels: not built: {facts['cuda_built_reason']}"
    driver = f", driver for CUDA {version(facts['cuda_driver'])}" if facts["cuda_driver"] else ""
    yield f"GPU:          {'runs' if facts['cuda_runs'] else 'does not run: ' + facts['cuda_reason']}{driver}"
    yield f"checkpoints:  {', '.join(shipped()) or 'none'}"


def version(number):
    """13000 -> 13.0"""
    return f"{number // 1000}.{number % 1000 // 10}"
