"""Interleaved medians, on the CPU by the clock and on a GPU by events and graph replays; what a row says of its origin.

A GPU works behind the program: the time of one call from Python holds the time it takes to say so. `rotated` therefore
times many calls as one graph, and lets them go through inputs that together exceed the cache.
"""

import datetime
import functools
import math
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import torch

from .. import captures

ROOT = Path(__file__).resolve().parent.parent.parent
FLUSH_BYTES = 256 << 20  # several times the last-level cache of any current GPU
MOST_SETS = 64  # of inputs


class Times(NamedTuple):
    """Seconds for one call: median and interquartile range; how the call was made."""

    median: float
    iqr: float
    how: str = "call"


def interleaved(fns, repeats=20, warmup=3, device="cpu", flush=True, seconds=math.inf) -> dict[str, Times]:
    """Times every function in turn, round after round, so that drifts of the machine hit all alike.

    Args:
        fns: {name: callable without arguments}.
        repeats: timed rounds, at least 2.
        warmup: untimed rounds before them.
        device: "cuda" times with CUDA events on the current stream.
        flush: on CUDA, overwrite the L2 cache before each call.
        seconds: begin no further round after this time once two rounds are timed.

    Returns:
        {name: Times}.

    Raises:
        ValueError: fewer than 2 repeats.
    """
    if repeats < 2:
        raise ValueError(f"interleaved: repeats must be at least 2, got {repeats}")
    cuda = torch.device(device).type == "cuda"
    scratch = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device) if cuda and flush else None
    samples: dict[str, list[float]] = {name: [] for name in fns}
    began = time.perf_counter()
    for turn in range(warmup + repeats):
        if turn >= warmup + 2 and time.perf_counter() - began > seconds:
            break
        for name, fn in fns.items():
            if scratch is not None:
                scratch.zero_()
            taken = cuda_seconds(fn) if cuda else cpu_seconds(fn)
            if turn >= warmup:
                samples[name].append(taken)
    return {name: summary(values) for name, values in samples.items()}


def rotated(sets, repeats=20, warmup=3, device="cpu", loops=(), seconds=math.inf) -> dict[str, Times]:
    """`interleaved` for calls that come with several sets of inputs, gone through in turn.

    On CUDA the calls of all sets are timed as one graph where they can be captured.

    Args:
        sets: {name: list of callables, one for each set of inputs}; see `input_sets`.
        repeats, warmup, device, seconds: as for `interleaved`.
        loops: names of calls that cannot be captured.

    Returns:
        {name: Times} of one call; `how` is "call", "graph", or "loop" for calls on CUDA that no graph holds.
    """
    runs, how = {}, {}
    for name, calls in sets.items():
        runs[name], how[name] = together(calls, torch.device(device), name not in loops)
    times = interleaved(runs, repeats, warmup, device, flush=False, seconds=seconds)
    return {
        name: Times(found.median / len(sets[name]), found.iqr / len(sets[name]), how[name])
        for name, found in times.items()
    }


def input_sets(moved, device) -> int:
    """How many sets of inputs of `moved` bytes a call needs for twice the cache; one on the CPU, whose sizes do."""
    device = torch.device(device)
    if device.type != "cuda":
        return 1
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return min(MOST_SETS, max(2, math.ceil(2 * cache / max(moved, 1))))


def together(calls, device, graphs=True):
    """(one callable that makes all calls, "graph", "loop" or "call")."""
    if device.type == "cuda" and graphs:
        try:
            return captured(calls, device), "graph"
        except RuntimeError:  # something waits for the device, or allocates in a way that no graph can hold
            torch.cuda.synchronize()
    return functools.partial(_each, calls), "loop" if device.type == "cuda" else "call"


def _each(calls):
    for call in calls:
        call()


def captured(calls, device):
    """The replay of a CUDA graph of all calls; their results live side by side, as those of separate calls would."""
    with captures.aside(device):
        for _ in range(3):  # compiles, loads and chooses what must not happen during the capture
            for call in calls:
                call()
    torch.cuda.synchronize()
    return captures.captured(lambda: [call() for call in calls], device).replay


def cpu_seconds(fn) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    fn()
    return time.perf_counter() - start


def cuda_seconds(fn) -> float:
    """Device time of one call."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    fn()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def wall_seconds(fn, device="cpu") -> float:
    """Wall time of one call and of what it left the device to do."""
    cuda = torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    fn()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def summary(values) -> Times:
    """Times of a list of seconds."""
    quarter, _, three_quarters = statistics.quantiles(values, n=4, method="inclusive")
    return Times(statistics.median(values), three_quarters - quarter)


def machine(device="cpu") -> dict:
    """What a row must say about where it was measured: device, threads, torch, git commit, date."""
    cuda = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else f"{cpu_name()}, {instruction_set()}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
    }


def instruction_set() -> str:
    """Torch's name of it, and what ours is limited to."""
    limit = os.environ.get("LANGEVIN_ISA")
    return torch.backends.cpu.get_cpu_capability() + (f", LANGEVIN_ISA={limit}" if limit else "")


def cpu_name() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """Short hash of the checked-out commit, with "+" where files differ from it; "none" outside our repository."""
    if not (ROOT / "csrc" / "bindings.cpp").is_file():
        return "none"
    head = git("rev-parse", "--short", "HEAD")
    return "none" if not head else head + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def git(*arguments) -> str:
    """Output of a git command, "" where it fails."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
