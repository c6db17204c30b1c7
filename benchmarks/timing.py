"""Timing and bookkeeping shared by the benchmarks: interleaved medians, the machine, rows of JSON lines."""

import datetime
import json
import pathlib
import platform
import statistics
import subprocess
import time
from typing import NamedTuple

import torch

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLUSH_BYTES = 256 << 20  # several times the last-level cache of any current GPU


class Times(NamedTuple):
    """Seconds for one call: median and interquartile range."""

    median: float
    iqr: float


def interleaved(fns, repeats=20, warmup=3, device="cpu", flush=True):
    """Times every function in turn, round after round, so that drifts of the machine hit all alike.

    Args:
        fns: {name: callable without arguments}.
        repeats: timed rounds, at least 2.
        warmup: untimed rounds before them.
        device: "cuda" times with CUDA events on the current stream.
        flush: on CUDA, overwrite the L2 cache before each call.

    Returns:
        {name: Times}.
    """
    if repeats < 2:
        raise ValueError(f"interleaved: repeats must be at least 2, got {repeats}")
    cuda = torch.device(device).type == "cuda"
    scratch = torch.empty(FLUSH_BYTES, dtype=torch.int8, device=device) if cuda and flush else None
    samples = {name: [] for name in fns}
    for turn in range(warmup + repeats):
        for name, fn in fns.items():
            if scratch is not None:
                scratch.zero_()
            seconds = cuda_seconds(fn) if cuda else cpu_seconds(fn)
            if turn >= warmup:
                samples[name].append(seconds)
    return {name: summary(values) for name, values in samples.items()}


def cpu_seconds(fn):
    """Wall time of one call."""
    start = time.perf_counter()
    fn()
    return time.perf_counter() - start


def cuda_seconds(fn):
    """Device time of one call."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    fn()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def summary(values):
    """Times of a list of seconds."""
    quarter, _, three_quarters = statistics.quantiles(values, n=4, method="inclusive")
    return Times(statistics.median(values), three_quarters - quarter)


def machine(device="cpu"):
    """What a row must say about where it was measured: device, threads, torch, git commit, date."""
    cuda = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if cuda else cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "commit": commit(),
        "date": datetime.date.today().isoformat(),
    }


def cpu_name():
    """The processor's name where the system tells it."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit():
    """Short hash of the checked-out commit, with "+" where files differ from it; "none" outside a repository."""
    head = git("rev-parse", "--short", "HEAD")
    return "none" if not head else head + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def git(*arguments):
    """Output of a git command, "" where it fails."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def append_rows(path, rows):
    """Appends each row, a dict, as one line of JSON; folders are made."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
