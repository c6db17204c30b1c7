"""Builds the native core: one pybind11 module, compiled by ninja, that does not need torch to be built.

Switches, all environment variables:
    LANGEVIN_CUDA=auto|1|0      CUDA kernels where nvcc is found (default), always (else fail), never
    LANGEVIN_CUDA_ARCHS="90"    compute capabilities; default: the visible GPU's, else 75 80 90 100 120; and PTX
    LANGEVIN_NO_NATIVE=1        install without the native core; everything then runs on plain torch
    LANGEVIN_WERROR=1|0         the C++ compiler's warnings are errors too; 0: nvcc's, which else are, are not
    LANGEVIN_SANITIZE=1         with AddressSanitizer and UndefinedBehaviorSanitizer, CPU only; see `make sanitize`
    MAX_JOBS, CXX, CUDA_HOME    as usual
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
SOURCES = ROOT / "csrc"
DEFAULT_ARCHS = ["75", "80", "90", "100", "120"]
# Contraction is off and fused multiply-adds are explicit, so that results do not depend on the instruction set.
CXX_FLAGS = [
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fopenmp",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
]
SANITIZE_FLAGS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g"]
NVCC_FLAGS = [
    "-std=c++17",
    "-O3",
    "--threads=2",
    "-Werror",
    "all-warnings",
    "-Xptxas",
    "-v,-warn-spills,-Werror",
    "-Xcompiler",
    "-fPIC,-fvisibility=hidden,-Wall,-Wextra,-Werror",
]


class BuildError(SystemExit):
    """Ends the build with one sentence on stderr."""

    def __init__(self, sentence):
        super().__init__(f"langevin_ext: {sentence}")


def source_hash():
    """SHA-256 over csrc, kept in the module so that a stale binary is noticed at import."""
    digest = hashlib.sha256()
    for path in sorted(p for p in SOURCES.rglob("*") if p.suffix in {".h", ".cpp", ".cu"}):
        digest.update(path.relative_to(SOURCES).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def find_cuda():
    """The root of the CUDA toolkit, or None with the reason."""
    wish = os.environ.get("LANGEVIN_CUDA", "auto").lower()
    if wish not in {"auto", "0", "1"}:
        raise BuildError(f"LANGEVIN_CUDA must be auto, 0 or 1, got {wish!r}")
    if wish == "0":
        return None, "switched off by LANGEVIN_CUDA=0"
    reason = "no nvcc found"
    for root in candidate_roots():
        if (root / "bin" / "nvcc").is_file() and (root / "include" / "cuda_runtime.h").is_file():
            if cudart_folder(root) is not None:
                return root.resolve(), ""
            reason = f"no libcudart_static.a in {root}"
    if wish == "1":
        raise BuildError(f"LANGEVIN_CUDA=1 but {reason}; set CUDA_HOME to the folder that has bin/nvcc")
    return None, reason


def cudart_folder(root):
    """The folder of the static runtime, or None."""
    folders = [root / "lib64", root / "lib", *sorted(root.glob("targets/*/lib"))]
    return next((folder for folder in folders if (folder / "libcudart_static.a").is_file()), None)


def candidate_roots():
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield Path(os.environ[variable])
    nvcc = shutil.which("nvcc")
    if nvcc:  # a wrapper on PATH may stand elsewhere than the toolkit, so nvcc is asked
        run = subprocess.run([nvcc, "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True)
        top = re.search(r"^#\$ TOP=(.*)$", run.stderr, re.MULTILINE)
        if top:
            yield Path(top.group(1).strip())
    yield Path("/usr/local/cuda")


def known_archs(cuda):
    """Those of the usual capabilities that this nvcc can compile for."""
    answer = subprocess.run([cuda / "bin" / "nvcc", "--list-gpu-code"], capture_output=True, text=True)
    codes = answer.stdout.split()
    return [arch for arch in DEFAULT_ARCHS if f"sm_{arch}" in codes] or DEFAULT_ARCHS


def cuda_archs(cuda):
    """Compute capabilities to compile for: those asked for, else the visible GPU's, else the usual ones."""
    asked = re.split(r"[ ,;]+", os.environ.get("LANGEVIN_CUDA_ARCHS", "").strip().replace(".", ""))
    if asked != [""]:
        if not all(re.fullmatch(r"\d{2,3}[af]?", arch) for arch in asked):
            raise BuildError(f"LANGEVIN_CUDA_ARCHS must be capabilities such as '80 90', got {' '.join(asked)!r}")
        return asked
    try:
        query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20)
        visible = sorted({line.strip().replace(".", "") for line in answer.stdout.splitlines()}, key=int)
        return visible if answer.returncode == 0 and visible else known_archs(cuda)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return known_archs(cuda)


def compiler():
    cxx = os.environ.get("CXX", "g++")
    if shutil.which(cxx.split()[0]) is None:
        raise BuildError(
            f"no C++ compiler: {cxx!r} is not on PATH; install g++ (12 or newer is best), or set "
            "LANGEVIN_NO_NATIVE=1 to install without the native core"
        )
    return cxx


def nvcc_flags():
    """nvcc's; with LANGEVIN_WERROR=0 its warnings, ptxas's and the C++ compiler's behind it are warnings."""
    if os.environ.get("LANGEVIN_WERROR") != "0":
        return NVCC_FLAGS
    text = " ".join(NVCC_FLAGS).replace("-Werror all-warnings ", "")
    return text.replace(",-Werror", "").split(" ")


def ninja_path():
    try:
        import ninja

        return str(Path(ninja.BIN_DIR) / "ninja")
    except ImportError:
        path = shutil.which("ninja")
        if path is None:
            raise BuildError("ninja is missing; run 'pip install ninja'") from None
        return path


def escape(path):
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


class NinjaBuild(build_ext):
    """Writes build.ninja in a folder that outlives the call, so that a second build compiles only what changed."""

    def build_extension(self, ext):
        tag = sysconfig.get_config_var("EXT_SUFFIX").split(".")[1]
        sanitize = os.environ.get("LANGEVIN_SANITIZE") == "1"
        cuda, reason = (None, "the sanitizers are for the CPU") if sanitize else find_cuda()
        folder = ROOT / "build" / f"{tag}-{'sanitize' if sanitize else 'cuda' if cuda else 'cpu'}"
        folder.mkdir(parents=True, exist_ok=True)
        archs = cuda_archs(cuda) if cuda else []
        what = f"CUDA {cuda} for {', '.join('sm_' + a for a in archs)} and PTX" if cuda else f"CPU only ({reason})"
        print(f"langevin_ext: building the native core, {what}", flush=True)
        self.write_build_info(folder, cuda, archs, reason)
        self.write_ninja(folder, cuda, archs)
        jobs = os.environ.get("MAX_JOBS") or str(len(os.sched_getaffinity(0)))
        command = [ninja_path(), "-C", str(folder), "-j", jobs] + (["-v"] if self.verbose > 1 else [])
        if subprocess.run(command).returncode != 0:
            raise BuildError(
                "the native core did not compile (see above); LANGEVIN_CUDA=0 builds without CUDA, "
                "LANGEVIN_NO_NATIVE=1 installs without the core"
            )
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(target.name + ".new")  # replaced in one step: a running process keeps the old file
        shutil.copyfile(folder / "_C.so", fresh)
        os.replace(fresh, target)

    def write_build_info(self, folder, cuda, archs, reason):
        """A translation unit of its own, so that the stamp changes without compiling anything else."""
        text = (
            "\n".join(
                [
                    "namespace lv {",
                    f'const char* kSourceHash = "{source_hash()}";',
                    f'const char* kCudaArchs = "{" ".join(archs)}";',
                    f'const char* kNoCudaReason = "{reason}";',
                    "}",
                ]
            )
            + "\n"
        )
        self.write_if_changed(folder / "build_info.cpp", text)

    def write_ninja(self, folder, cuda, archs):
        if not (SOURCES / "bindings.cpp").is_file():
            raise BuildError(
                f"{SOURCES} is missing, so there is nothing to compile; install from the whole source tree"
            )
        try:
            import pybind11
        except ImportError:
            raise BuildError("pybind11 is missing; run 'pip install pybind11'") from None
        self.link(folder / "pybind11", Path(pybind11.get_include()))  # build isolation moves it with every call
        cxx, flags = compiler(), CXX_FLAGS + (["-Werror"] if os.environ.get("LANGEVIN_WERROR") == "1" else [])
        sanitizers = SANITIZE_FLAGS if os.environ.get("LANGEVIN_SANITIZE") == "1" else []
        flags = flags + sanitizers
        includes = [f"-I{SOURCES}", f"-isystem {folder / 'pybind11'}", f"-isystem {sysconfig.get_path('include')}"]
        defines, libraries = [], ["-fopenmp", *sanitizers]
        lines = [f"builddir = {escape(folder)}"]
        objects = [(path, "cxx") for path in [*by_size(SOURCES, "*.cpp"), *by_size(SOURCES / "cpu", "*.cpp")]]
        if cuda:
            defines = ["-DLV_WITH_CUDA", f"-isystem {cuda / 'include'}"]
            objects = [(path, "nvcc") for path in by_size(SOURCES / "cuda", "*.cu")] + objects
            lib = cudart_folder(cuda)
            libraries += [f"-L{lib}", "-Wl,--exclude-libs,ALL", "-lcudart_static", "-lrt", "-lpthread", "-ldl"]
            lines += rule(
                "nvcc",
                f"{cuda / 'bin' / 'nvcc'} -ccbin {cxx.split()[0]} {' '.join(nvcc_flags())} "
                f"$archs -I{SOURCES} -MD -MF $out.d -c $in -o $out "
                "> $out.log 2>&1 || (cat $out.log; exit 1)",
            )  # registers and spills, read by the tests
        lines += rule("cxx", f"{cxx} {' '.join(flags + defines + includes)} $more -MD -MF $out.d -c $in -o $out")
        lines += rule("link", f"{cxx} -shared $in -o $out {' '.join(libraries)}", depfile=False)
        objects.append((folder / "build_info.cpp", "cxx"))
        outputs = []
        for path, kind in objects:
            outputs.append(f"{path.parent.name}-{path.name}.o")
            lines.append(f"build {escape(outputs[-1])}: {kind} {escape(path)}")
            if path.parent == SOURCES:  # long to compile, and without a loop in them
                lines.append("  more = -Og")
            if kind == "nvcc":
                lines.append(f"  archs = {gencode_of(path, archs)}")
        lines += [f"build _C.so: link {' '.join(map(escape, outputs))}", "default _C.so"]
        self.write_if_changed(folder / "build.ninja", "\n".join(lines) + "\n")

    @staticmethod
    def link(link, target):
        if link.is_symlink() and link.resolve() == target.resolve():
            return
        link.unlink(missing_ok=True)
        link.symlink_to(target, target_is_directory=True)

    @staticmethod
    def write_if_changed(path, text):
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)


def gencode_of(path, archs):
    """nvcc's flags for a file; clusters of blocks are for 9.0 and newer, or for all, with empty kernels."""
    if path.name.endswith("_cluster.cu"):
        archs = [arch for arch in archs if int(arch.rstrip("af")) >= 90] or archs
    return gencode(archs, split=path.name.startswith("instance_norm_plus"))


def gencode(archs, split=False):
    """nvcc's flags: machine code for each capability from the PTX of the oldest, and that PTX for whatever is newer.

    One front-end pass for all halves the build. From PTX older than 8.0 bfloat16 is rounded without its instruction,
    for a fifth of a norm's instructions; split: older ones have a pass of their own. Capabilities with a suffix (90a)
    are not compatible with the others' PTX and get one as well.
    """
    plain = sorted((arch for arch in archs if arch.isdigit()), key=int)
    flags = [f"-gencode arch=compute_{arch},code=sm_{arch}" for arch in archs if not arch.isdigit()]
    older = [arch for arch in plain if split and int(arch) < 80]
    for made in filter(None, (older, plain[len(older) :])):
        codes = [f"sm_{arch}" for arch in made] + [f"compute_{made[0]}"]
        flags.append(f"-gencode arch=compute_{made[0]},code=[{','.join(codes)}]")
    return " ".join(flags)


def by_size(folder, pattern):
    """The longest files first: ninja starts them in this order, and no core waits for a long one at the end."""
    return sorted(folder.glob(pattern), key=lambda path: (-path.stat().st_size, path.name))


def rule(name, command, depfile=True):
    tracked = ["  depfile = $out.d", "  deps = gcc"] if depfile else []
    return [f"rule {name}", f"  command = {command}", f"  description = {name} $out", *tracked]


if os.environ.get("LANGEVIN_NO_NATIVE") == "1":
    print("langevin_ext: LANGEVIN_NO_NATIVE=1, installing without the native core", file=sys.stderr)
    for built in (ROOT / "langevin_ext").glob("_C*.so"):
        built.unlink()  # of an earlier build in this tree, which would be loaded all the same
    setup()
else:
    setup(ext_modules=[Extension("langevin_ext._C", sources=[])], cmdclass={"build_ext": NinjaBuild})
