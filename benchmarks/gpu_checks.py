"""Sections of the GPU report that find something right or wrong: the machine, the build, the noise, the tests."""

import concurrent.futures
import hashlib
import importlib.metadata
import json
import math
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
AT_ONCE = 5  # files of tests
EACH, ALONE = 75.0, 30.0  # most seconds for a file, and for the tests that are run again
STOPPED = "stopped"
ENDS = ("exit status 0", "exit status 5")  # of pytest: all passed, or none to run
KEPT = 3000  # characters of the output of each


def machine(result, setting):
    """Device, driver, CUDA, torch, commit."""
    import torch

    from langevin_ext.benchmarking.timing import machine as about

    result.say(**about(setting.device if torch.cuda.is_available() else "cpu"), python=sys.version.split()[0])
    result.say(cpus=len(os.sched_getaffinity(0)), cuda=torch.version.cuda or "none")
    result.say(compiler=first_line("g++", "--version"), packages=packages())
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


def packages():
    """Versions of what builds, tests and compiles."""
    found = {dist.name.lower(): dist.version for dist in importlib.metadata.distributions() if dist.name}
    names = ("numpy", "triton", "pip", "setuptools", "pybind11", "ninja", "pytest")
    return ", ".join(f"{name} {found.get(name, 'is not there')}" for name in names)


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
        environment = os.environ | ({"LANGEVIN_CUDA": "1"} if setting.cuda else {})
        began = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, env=environment)
        if done.returncode and "LANGEVIN_WERROR" not in environment:  # a compiler that warns of more than ours
            result.say(again="with LANGEVIN_WERROR=0, as it failed without")
            done = subprocess.run(command, cwd=ROOT, env=environment | {"LANGEVIN_WERROR": "0"})
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
    """pytest -m cuda in each file that has such tests, the longest first; see `tested`."""
    if not setting.cuda:
        raise Skipped("no GPU was asked for")
    files = [path for path in sorted((ROOT / "python_tests").glob("test_*.py")) if "mark.cuda" in path.read_text()]
    tested(result, setting.folder, sorted(files, key=lambda path: -path.stat().st_size), ends=setting.ends)


def tested(result, folder, files, mark="cuda", ends=math.inf):
    """The tests of each file in a process of its own, several at once, and the first that failed in it again, alone.

    A kernel that faults ends the tests of its process, and says so anywhere behind it; alone, and with launches that
    are waited for, it says so where it is launched. A quarter of the time is kept for that.
    """
    until = ends - min(ALONE, max(0.0, ends - time.monotonic()) / 4)
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        runs, failed = [], []
        started = {pool.submit(pytest_in, folder, path.stem, [str(path)], mark, (EACH, until)): path for path in files}
        for end in concurrent.futures.as_completed(started):  # rows as they come, for a section that is stopped
            path, (how, root, text) = started[end], end.result()
            runs.append((path, how, text))
            failed += rows_of(result, path, how, root, text)
        first = list({path: (path, row, test) for path, row, test in reversed(failed)}.values())
        again = list(pool.map(lambda one: alone(folder, *one, mark, ends), first))
    for (_, row, _), (said, _) in zip(first, again, strict=True):
        row["alone"] = said
    for path, how, text in runs:
        if how not in ENDS:
            print(f"--- {path.name}: {how} ---\n{text[-KEPT:]}")
    for (_, row, _), (said, text) in zip(first, again, strict=True):
        print(f"--- {row['what']}, alone: {said} ---\n{text[-KEPT:]}")
    passed, late = result.facts.get("passed", 0), [path.name for path, how, _ in runs if how.startswith(STOPPED)]
    if failed or not (passed or late):
        raise Failed(f"{len(failed)} of the tests or files failed, {passed} tests passed")
    if late:
        raise Skipped(f"{', '.join(late)} did not end in time, {passed} tests passed")


def pytest_in(folder, name, what, mark, limits, **environment):
    """(how a pytest process ended, its table or None, its output); `limits`: its most seconds, and when it must end."""
    limit = max(1.0, min(limits[0], limits[1] - time.monotonic()))
    table = folder / f"{name}.xml"
    command = [sys.executable, "-m", "pytest", "-m", mark, "-v", "-p", "no:cacheprovider", f"--junitxml={table}", *what]
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, timeout=limit, env=os.environ | environment
            )
            how = f"exit status {done.returncode}"
        except subprocess.TimeoutExpired:
            how = f"{STOPPED} after {limit:.0f} s"
    text = log.read_text(errors="replace")
    try:
        return how, ElementTree.parse(table).getroot(), text
    except (OSError, ElementTree.ParseError):  # not written, or cut off
        return how, None, text


def rows_of(result, path, how, root, text):
    """(file, row, test) of each test of a file that did not pass, or of the file."""
    before = len(result.rows)
    if root is not None:
        counted(result, root)
    if how.startswith(STOPPED):  # without a table
        for test in re.findall(r"^\S+\.py::(.+?) (?:FAILED|ERROR)\b", text, re.MULTILINE):
            result.add(what=f"{path.stem}::{test}", wrong="failed, before its file was stopped")
        result.add(what=path.name, why=f"pytest: {how}")
    found = [(path, row, row["what"].split("::", 1)[1]) for row in result.rows[before:] if "wrong" in row]
    if not found and how not in ENDS and not how.startswith(STOPPED):  # a process that fell
        result.add(what=path.name, wrong=f"pytest: {how}, without a test that failed")
        found.append((path, result.rows[-1], None))
    return found


def alone(folder, path, row, test, mark, ends):
    """(how a test ends alone, with launches that are waited for; its output)."""
    if test is None:
        return "not run: which test it was is in the output", ""
    what = [f"{path}::{test}"]
    how, root, text = pytest_in(folder, f"{path.stem}-alone", what, mark, (ALONE, ends), CUDA_LAUNCH_BLOCKING="1")
    bad = [] if root is None else [entry for entry in root.iter() if entry.tag in ("failure", "error")]
    return ("passes" if how == "exit status 0" else message_of(bad[0]) if bad else how), text


def message_of(entry) -> str:
    """Of a failure in pytest's table, in one line."""
    return " ".join((entry.get("message") or entry.tag).split())[:300]


def counted(result, root):
    """Facts from pytest's table, and a row for each test that did not pass; the number of those that did."""
    counts = {name: result.facts.get(name, 0) for name in ("passed", "failed", "skipped")}
    for case in root.iter("testcase"):
        bad = [entry for entry in case if entry.tag in ("failure", "error")]
        skipped = [entry for entry in case if entry.tag == "skipped"]
        counts["failed" if bad else "skipped" if skipped else "passed"] += 1
        name = f"{case.get('classname')}::{case.get('name')}"
        if bad:
            result.add(what=name, wrong=message_of(bad[0]))
        elif skipped:
            result.add(what=name, why=f"skipped: {skipped[0].get('message')}")
    result.say(**counts)
    return counts["passed"]
