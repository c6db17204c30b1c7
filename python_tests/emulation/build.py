"""Builds the CUDA kernels of csrc/cuda as CPU code on emulate.h: a module with the interface of langevin_ext._C.

Objects are kept in build/emulation under a hash of all that they are made of, so a second run compiles nothing, and a
mutant, a build with pieces of the source replaced, compiles only what includes the changed file.
"""

import contextlib
import ctypes
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / "build" / "emulation"
KEPT_FILES = 1000  # more than all mutants have
CORES = len(os.sched_getaffinity(0))
SLOTS = threading.BoundedSemaphore(CORES)
FLAGS = [
    "-std=c++17",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-strict-aliasing",
    "-w",
    "-DLV_EMULATE",
    "-DLV_MODULE_NAME=_emulated",
]
BUILD_INFO = """namespace lv {
const char* kSourceHash = "emulated";
const char* kCudaArchs = "";
const char* kNoCudaReason = "the kernels are emulated on the CPU";
}
"""


class BuildError(Exception):
    """A source does not compile or a replacement does not fit."""


def compiler():
    return os.environ.get("CXX", "g++")


def why_not():
    """The reason why nothing can be built here, or ""."""
    if not (ROOT / "csrc").is_dir():
        return "csrc is not beside the tests"
    if shutil.which(compiler().split()[0]) is None:
        return f"no C++ compiler: {compiler()} is not on PATH"
    return "" if importlib.util.find_spec("pybind11") else "pybind11 is not installed"


def build(replacements=None) -> Path:
    """Compiles and links the kernels and the bindings; the path of the module.

    Args:
        replacements: {path inside csrc: [(old, new), ...]}; each old text must occur exactly once.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    if not replacements:
        prune()
    sources = ROOT / "csrc" if not replacements else mutated_tree(replacements)
    info = CACHE / "build_info.cpp"
    write(info, BUILD_INFO)
    units = sorted(path for path in (sources / "cuda").glob("*.cu") if path.name != "device.cu")
    units += [*sorted((ROOT / "csrc").glob("*.cpp")), HERE / "emulate.cpp", info]
    return link(units, sources)


def build_library(name) -> Path:
    """Compiles and links a file of this folder on emulate.h; the path of the library."""
    CACHE.mkdir(parents=True, exist_ok=True)
    return link([HERE / name, HERE / "emulate.cpp"], HERE)


def link(units, sources):
    with ThreadPoolExecutor(CORES) as pool:
        objects = list(pool.map(lambda unit: compile_unit(unit, sources), units))
    module = CACHE / f"_emulated-{digest(*(path.name for path in objects))}.so"
    if not module.is_file():
        run([*compiler().split(), "-shared", *map(str, objects)], module)
    return module


def mutated_tree(replacements):
    """A copy of csrc with the replacements done; unchanged files have the same objects as in csrc itself."""
    texts = {}
    for name, pairs in replacements.items():
        path = ROOT / "csrc" / name
        text = path.read_text() if path.is_file() else ""
        for old, new in pairs:
            if text.count(old) != 1:
                raise BuildError(f"{name} has {text.count(old)} times, not once: {old!r}")
            text = text.replace(old, new)
        texts[name] = text
    tree = CACHE / f"csrc-{digest(repr(sorted(texts.items())), sources_text())}"
    if not tree.is_dir():
        fresh = tree.with_name(f"{tree.name}.{os.getpid()}-{threading.get_ident()}")
        shutil.copytree(ROOT / "csrc", fresh, ignore=shutil.ignore_patterns("cpu", "*.py", "__pycache__"))
        for name, text in texts.items():
            (fresh / name).write_text(text)
        if not tree.is_dir():
            fresh.rename(tree)
    os.utime(tree)
    return tree


def sources_text():
    files = sorted(path for path in (ROOT / "csrc").rglob("*") if path.suffix in {".h", ".cu", ".cpp"})
    return "".join(path.read_text() for path in files)


def compile_unit(unit, sources):
    """The object of a source; mutants, which run only a little, are compiled without optimisation.

    The entries and their bindings are never mutated, which saves their long compilation: a replacement must leave
    structs as they are.
    """
    import pybind11

    texts, sources = {}, sources if unit.is_relative_to(sources) else ROOT / "csrc"
    gather(unit, sources, texts)
    parts = [compiler(), *FLAGS, sys.version, *(text for _, text in sorted(texts.items()))]
    output = CACHE / f"{unit.stem}-{digest(*parts)}.o"
    if output.is_file():
        os.utime(output)
    else:
        optimise = "-O0" if sources.parent == CACHE else "-O1"
        includes = [f"-I{sources}", f"-I{HERE}"]
        if unit.name == "bindings.cpp":
            includes += ["-isystem", pybind11.get_include(), "-isystem", sysconfig.get_path("include")]
        run([*compiler().split(), *FLAGS, optimise, *includes, "-x", "c++", "-c", str(unit)], output)
    return output


def gather(path, sources, texts):
    """The text of a file and of all that it includes by quotes, by name."""
    path = path.resolve()
    name = str(path.relative_to(sources.resolve()) if path.is_relative_to(sources.resolve()) else path.name)
    if name in texts:
        return
    texts[name] = path.read_text()
    for included in re.findall(r'^\s*#include "([^"]+)"', texts[name], re.MULTILINE):
        for folder in (path.parent, sources, HERE):
            if (folder / included).is_file():
                gather(folder / included, sources, texts)
                break


def run(command, output):
    """Runs a compiler into a file that appears only when it is whole."""
    fresh = output.with_name(f"{output.name}.{os.getpid()}-{threading.get_ident()}")
    with SLOTS:
        result = subprocess.run([*command, "-o", str(fresh)], capture_output=True, text=True)
    if result.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{result.stderr[-4000:]}")
    os.replace(fresh, output)


def write(path, text):
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)


def digest(*texts):
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:20]


def prune():
    """Keeps the cache bounded: the files used longest ago go."""
    ages = {}
    for path in CACHE.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process may be at work
            ages[path] = path.stat().st_mtime
    for path in sorted(ages, key=ages.get)[:-KEPT_FILES]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def load(path):
    """Imports a built module and gives it `set_schedule(name, seed=0)`."""
    import torch

    spec = importlib.util.spec_from_file_location("_emulated", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.init(torch.Tensor)
    set_schedule = ctypes.CDLL(str(path)).lv_emulate_set_schedule

    def set_order(name, seed=0):
        if not set_schedule(name.encode(), ctypes.c_uint(seed)):
            raise ValueError(f"set_schedule: name must be forward, reverse, round or random, got {name!r}")

    module.set_schedule = set_order
    return module
