"""Loads the native core and says what runs, what does not, and why.

`core(device)` is the one question the ops ask: the compiled module where it can work on tensors of `device`, else None,
and then the ops run on `langevin_ext.reference`. Each reason is given once, as a warning, and stands in `backend_info`.
"""

import functools
import hashlib
import os
import warnings
from pathlib import Path

import torch

ISAS = ("any", "v3", "v4")  # the x86-64 levels that have loops of their own
REBUILD = "run 'pip install -e .' (or reinstall langevin_ext) to build it"


class SlowerPathWarning(UserWarning):
    """The plain-torch reference serves where a native kernel could."""


def _load():
    """(module, "") or (None, the reason)."""
    if (isa := os.environ.get("LANGEVIN_ISA", "v4")) not in ISAS:
        raise ValueError(f"langevin_ext: LANGEVIN_ISA must be one of {', '.join(ISAS)} or not set, got {isa!r}")
    try:
        from . import _C
    except ImportError as error:
        if type(error) is ModuleNotFoundError or "cannot import name '_C'" in str(error):
            return None, f"the native core is not installed; {REBUILD}"
        return None, f"the native core does not load ({error}); {REBUILD}"
    stale = _why_stale(_C.build_info()["source_hash"])
    if stale:
        return None, stale
    try:
        _C.init(torch.Tensor)
    except (AttributeError, RuntimeError) as error:
        return None, f"torch {torch.__version__} cannot hand its tensors over ({error}); torch >= 2.11 can"
    return _C, ""


def _why_stale(built_from):
    """In an editable install csrc is beside the package; a binary of other sources must not serve."""
    sources = Path(__file__).resolve().parent.parent / "csrc"
    if not (sources / "bindings.cpp").is_file():
        return ""
    digest = hashlib.sha256()
    for path in sorted(p for p in sources.rglob("*") if p.suffix in {".h", ".cpp", ".cu"}):
        digest.update(path.relative_to(sources).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return "" if digest.hexdigest() == built_from else f"the native core is stale, csrc has changed since; {REBUILD}"


_core, _core_reason = _load()
if _core is None:
    warnings.warn(
        f"langevin_ext: {_core_reason}; until then everything runs on plain torch", SlowerPathWarning, stacklevel=2
    )


def why_no_cuda(index: int = 0) -> str:
    """The reason why no native kernel runs on GPU `index`, or "" where one does."""
    if _core is None:
        return _core_reason
    if not torch.cuda.is_available():
        return "torch sees no GPU" + ("" if torch.version.cuda else " (this torch is a CPU build)")
    return _core.why_no_cuda(index)


_run: set[tuple[str, int]] = set()  # where kernels run; why they do not may pass: a GPU can be full


def core(device: torch.device):
    """The native module for tensors on `device`, or None."""
    if _core is None or device.type == "cpu":
        return _core
    place = device.type, device.index or 0
    if place not in _run:
        reason = f"there are no native kernels for {device.type}" if place[0] != "cuda" else why_no_cuda(place[1])
        if reason:
            _warn_slower(device.type, reason)
            return None
        _run.add(place)
    return _core


@functools.cache
def _warn_slower(kind, reason):
    warnings.warn(f"langevin_ext: {kind} tensors run on plain torch: {reason}", SlowerPathWarning, stacklevel=4)


def core_for(x: torch.Tensor):
    """The native module for the elements of x, or None: there are no CUDA kernels for float64."""
    if x.is_cuda and x.dtype == torch.float64 and core(x.device) is not None:
        _warn_float64()
        return None
    return core(x.device)


@functools.cache
def _warn_float64():
    message = "langevin_ext: float64 tensors on CUDA run on plain torch: the CUDA kernels are for float32 and smaller"
    warnings.warn(message, SlowerPathWarning, stacklevel=4)


def backend_info() -> dict:
    """What was built, what runs now, and why not more.

    Returns:
        dict with `native` (bool) and `native_reason`; `cuda_built` (bool), `cuda_archs` and `cuda_built_reason`;
        `cuda_runs` (bool) and `cuda_reason`; `cpu` (torch's name of the instruction set), `isa` (the x86-64 level of
        the loops of convolutions and noise that run here, which the environment variable LANGEVIN_ISA limits: "any",
        "v3" with AVX2, "v4" with AVX-512), `threads`, `compiler`, `torch`, `version`. A reason is "" where there is
        nothing to explain.
    """
    from . import __version__

    built = _core.build_info() if _core is not None else {}
    # Where this process uses another GPU, the question alone would take memory on the first.
    gpu_reason = why_no_cuda(torch.cuda.current_device() if torch.cuda.is_initialized() else 0)
    return {
        "version": __version__,
        "torch": torch.__version__,
        "native": _core is not None,
        "native_reason": _core_reason,
        "compiler": built.get("compiler", ""),
        "isa": built.get("isa", ""),
        "cuda_built": built.get("cuda", False),
        "cuda_archs": built.get("cuda_archs", ""),
        "cuda_built_reason": built.get("no_cuda_reason", "" if built else _core_reason),
        "cuda_runtime": built.get("cuda_runtime", 0),
        "cuda_driver": built.get("cuda_driver", 0),
        "cuda_runs": gpu_reason == "",
        "cuda_reason": gpu_reason,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
