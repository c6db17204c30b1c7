"""`build`: which engine a network gets."""

import weakref

import torch

from ..models.ncsn import NCSNv2
from .arena import Arena
from .channels_last import Fresh, GpuForms
from .convolutions import CpuForms, why_int16_is_slow, why_not_int16, why_not_packed, why_not_winograd
from .engine import Engine, SigmaEngine
from .precisions import DTYPES, ON_CPU, ON_GPU, PRECISIONS, difference, finite
from .served import named, versions, why_not

WIDE = 64  # channels, from which on a CPU's products are worth 16-bit factors
ALLOWED = 0.01  # of the score: "auto" takes no 16-bit factors with a larger error
_differences: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # of networks whose weights are as they were


def build(model, *, precision="auto", device=None, batch=16) -> Engine:
    """The engine of a network.

    "auto" is the fastest whose error is far below the noise of a sampler's own steps: on the CPU int16 for networks of
    at least 64 channels, where it is faster and a few scores differ from those in fp32 by at most 1 %, else fp32; on
    a GPU fp16, or bf16 where a few scores are not finite in fp16. The notes say which and why (docs/performance.md has
    the measurements).

    Args:
        model: `NCSN` or `NCSNv2` with float32 parameters.
        precision: "auto" or "fp32"; on the CPU "int16", factors of the products of F(4x4, 3x3) in 16-bit fixed point
            with scales of their own for each tile, and exact sums, for CPUs with AVX2; "bf16"; on a GPU also
            "fp16" and "tf32". In bf16 and fp16 weights and activations between the first and last convolution have that
            type; in "tf32" all convolutions round their inputs to TF32, in no other does any. The error in the score is
            about 1 % in bf16, 0.2 % in fp16 and int16 (there more where a channel is 100 times as large as others).
        device: None, or the model's.
        batch: about how many images come at a time.

    Raises:
        TypeError, ValueError: there is no engine for this model, device or precision; the message says why.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"engine: precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    reason = why_not(model)
    if reason:
        raise TypeError(f"engine: model must be a float32 NCSN or NCSNv2 on the CPU or a GPU; {reason}")
    own = next(model.parameters()).device
    given = own if device is None else torch.device(device)
    if given.type != own.type or given.index not in (None, own.index):
        raise ValueError(f"engine: device must be the model's, {named(own)}, got {given}")
    if own.type != "cpu":
        return _on_gpu(model, precision, batch)
    if precision not in ON_CPU:
        raise ValueError(f"engine: precision must be one of {', '.join(ON_CPU)} on the CPU, got {precision!r}")
    if precision == "bf16" and not bf16_runs():
        raise ValueError("engine: precision must be 'fp32' or 'auto' here, this CPU has no bfloat16 arithmetic")
    if precision == "int16" and (reason := why_not_int16()):
        raise ValueError(f"engine: precision must be 'fp32' or 'auto' here, {reason}")
    return _fastest_on_cpu(model, batch) if precision == "auto" else _on_cpu(model, precision, batch)


def _on_cpu(model, precision, batch, notes=()):
    forms, notes = CpuForms(precision), [*_notes(model, precision), *notes]
    return _kind(model)(model, precision, notes, batch, forms, Arena(forms.dtype))


def _fastest_on_cpu(model, batch):
    """int16 where it is fast, the products take most of the time and this network is not one that it spoils; else fp32.

    A tile's channels share a scale: where some are hundreds of times as large as the others, and weights make up for
    that, the others are lost.
    """
    exact = _on_cpu(model, "fp32", batch)
    if model.ngf < WIDE or why_not_int16() or why_not_winograd(model.res1[0].conv1, *model.shape[1:], "int16"):
        return exact
    if reason := why_int16_is_slow():
        return _on_cpu(model, "fp32", batch, [f"fp32 for int16: {reason}"])
    fast = _on_cpu(model, "int16", batch)
    seen = versions(model)
    if _differences.get(model, (None, None))[0] != seen:
        _differences[model] = seen, difference(fast, exact)
    error = _differences[model][1]
    if not error <= ALLOWED:  # or not finite
        reason = f"fp32 for int16, in which scores of its starting points are off by {100 * error:.2g} %"
        return _on_cpu(model, "fp32", batch, [reason])
    return fast


def gpu_form(model, precision, batch=16, notes=()) -> Engine:
    """The engine in the form for a GPU, on whatever device the model is."""
    forms, device = GpuForms(DTYPES[precision], tf32=precision == "tf32"), next(model.parameters()).device
    text = [f"GPU engine in {precision}, channels-last", *notes]
    return _kind(model)(model, precision, text, batch, forms, Fresh(forms.dtype, device))


def _on_gpu(model, precision, batch):
    if precision not in ON_GPU:
        raise ValueError(f"engine: precision must be one of {', '.join(ON_GPU)} on a GPU, got {precision!r}")
    if precision != "auto":
        return gpu_form(model, precision, batch)
    fast = gpu_form(model, "fp16", batch)
    if finite(fast):
        return fast
    return gpu_form(model, "bf16", batch, ["bf16 for fp16, in which scores of its starting points are not finite"])


def _kind(model):
    return SigmaEngine if isinstance(model, NCSNv2) else Engine


def bf16_runs() -> bool:
    """Whether oneDNN computes in bfloat16 here."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _notes(model, precision):
    """What an engine on the CPU does and why."""
    convs = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    reasons = {why_not_winograd(conv, *model.shape[1:], precision) for conv in convs if conv.in_channels == model.ngf}
    notes = [f"CPU engine in {precision}"]
    if "" in reasons:
        factors = " with 16-bit factors" if precision == "int16" else ""
        notes.append(f"3x3 convolutions by F(4x4, 3x3){factors} where the size allows")
    else:
        notes.append(f"no convolution by F(4x4, 3x3): {'; '.join(sorted(reasons))}")
    packed = why_not_packed(DTYPES[precision])
    notes.append(f"weights not repacked: {packed}" if packed else "the others with repacked weights")
    return notes
