"""Sections of the GPU report that find something right or wrong: the machine, the build, the noise, the tests."""

import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

from gpu_common import Failed, Skipped

ROOT = pathlib.Path(__file__).resolve().parent.parent
DRAWS = 100_000_000
PIECE = 10_000_000


def machine(result, setting):
    """Device, driver, CUDA, torch, commit."""
    import torch

    from langevin_ext.benchmarking.timing import machine as about

    result.say(**about(setting.device if torch.cuda.is_available() else "cpu"), python=sys.version.split()[0])
    result.say(cpus=len(os.sched_getaffinity(0)), cuda=torch.version.cuda or "none")
    if not setting.cuda:
        return
    if not torch.cuda.is_available():
        raise Failed("torch sees no GPU")
    properties = torch.cuda.get_device_properties(0)
    result.say(
        driver=driver(),
        cudnn=torch.backends.cudnn.version(),
        capability=f"{properties.major}.{properties.minor}",
        multiprocessors=properties.multi_processor_count,
        l2_mb=properties.L2_cache_size / 2**20,
        memory_gib=properties.total_memory / 2**30,
        nvcc=first_line("nvcc", "--version", pattern=r"release ([\d.]+)"),
    )


def driver():
    """The driver's version."""
    return first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")


def first_line(*command, pattern=r"(.*)"):
    """What a tool prints, or that it is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return f"no {command[0]}"
    found = re.search(pattern, done.stdout)
    return found[1].strip() if done.returncode == 0 and found else f"{command[0]} does not answer"


def build(result, setting):
    """The editable install without a network, timed; it must load and run on the device."""
    if setting.no_build:
        result.say(how="not built here: the core as it is installed")
    else:
        options = ["install", "-e", ".", "--no-build-isolation", "--no-deps"]
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *options]
        result.say(how=" ".join(["pip", *options]))
        began = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, env=os.environ | {"LANGEVIN_CUDA": "1"} if setting.cuda else None)
        result.say(seconds=time.perf_counter() - began)
        if done.returncode:
            raise Failed(f"pip ended with exit status {done.returncode}")
    ask = "import json, langevin_ext; print('INFO' + json.dumps(langevin_ext.backend_info()))"
    done = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=False)
    found = re.search(r"^INFO(.*)$", done.stdout, re.MULTILINE)
    if not found:
        raise Failed(f"langevin_ext does not import: {done.stderr.strip().splitlines()[-1:]}")
    info = json.loads(found[1])
    result.say(**{name: info[name] for name in ("version", "compiler", "native", "cuda_archs", "cuda_runs")})
    if not info["native"] or (setting.cuda and not info["cuda_runs"]):
        raise Failed(info["native_reason"] or info["cuda_reason"])


def noise(result, setting):
    """Normals in pieces on the device and on the CPU, bit for bit; on the CPU alone against plain torch."""
    import torch

    from langevin_ext import ops, reference

    draws, piece = (200_000, 50_000) if setting.quick else (DRAWS, PIECE)
    other = ops if setting.cuda else reference
    samples, each = piece // 10_000, 10_000
    digests = hashlib.sha256(), hashlib.sha256()
    taken = [0.0, 0.0]
    differ = 0
    for number in range(draws // piece):
        place = {"seed": 2**63 + 7, "step": number, "first": number * samples, "stream": number % 16}
        found = []
        for k, (draw, device) in enumerate(((ops.philox_normal, setting.device), (other.philox_normal, "cpu"))):
            began = time.perf_counter()
            found.append(draw((samples, each), device=device, **place).cpu())
            taken[k] += time.perf_counter() - began
            digests[k].update(found[k].numpy().tobytes())
        differ += (found[0].view(torch.int32) != found[1].view(torch.int32)).sum().item()
    names = (setting.device, "cpu") if setting.cuda else ("cpu", "plain torch")
    for name, digest, seconds in zip(names, digests, taken, strict=True):
        result.add(what="normals", variant=name, draws=draws, sha256=digest.hexdigest()[:32], s=seconds)
    place = {"seed": 2**64 - 1, "step": 2**32 - 1, "first": 5, "stream": 2**32 - 1}
    words = [op.philox_words((7, 100_003), device=device, **place).cpu() for op, device in
             ((ops, setting.device), (other, "cpu"))]  # fmt: skip
    result.say(normals_that_differ=differ, words_that_differ=(words[0] != words[1]).sum().item())
    if differ or not torch.equal(*words) or digests[0].digest() != digests[1].digest():
        raise Failed(f"{differ} of {draws} normals differ between {names[0]} and {names[1]}")


def tests(result, setting):
    """pytest -m cuda, in the files that have such tests."""
    if not setting.cuda:
        raise Skipped("no GPU was asked for")
    files = [path for path in sorted((ROOT / "python_tests").glob("test_*.py")) if "mark.cuda" in path.read_text()]
    table = setting.folder / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-q", "-p", "no:cacheprovider"]
    command += ["--continue-on-collection-errors", f"--junitxml={table}", *map(str, files)]
    done = subprocess.run(command, cwd=ROOT, check=False)
    if not table.is_file():
        raise Failed(f"pytest ended with exit status {done.returncode} and no results")
    passed = counted(result, ElementTree.parse(table).getroot())
    if done.returncode or not passed or any(row.get("wrong") for row in result.rows):
        raise Failed(f"pytest ended with exit status {done.returncode}, {passed} tests passed")


def counted(result, root):
    """Facts from pytest's table, and a row for each test that did not pass; the number of those that did."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for case in root.iter("testcase"):
        bad = [entry for entry in case if entry.tag in ("failure", "error")]
        skipped = [entry for entry in case if entry.tag == "skipped"]
        counts["failed" if bad else "skipped" if skipped else "passed"] += 1
        name = f"{case.get('classname')}::{case.get('name')}"
        if bad:
            result.add(what=name, wrong=" ".join((bad[0].get("message") or bad[0].tag).split())[:200])
        elif skipped:
            result.add(what=name, why=f"skipped: {skipped[0].get('message')}")
    result.say(**counts)
    return counts["passed"]
