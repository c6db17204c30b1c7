"""Which models have an engine, and what identifies the weights of one."""

import torch

from .. import _native
from ..models.ncsn import NCSN, NCSNv2


def why_not(model) -> str:
    """Why there is no engine for a model, "" where there is one."""
    if type(model) not in (NCSN, NCSNv2):
        return f"it is {type(model).__name__}"
    found = {(p.dtype, p.device) for p in model.parameters()}
    dtype, device = next(iter(found))
    if len(found) > 1 or dtype != torch.float32 or device.type not in ("cpu", "cuda"):
        return "its parameters are " + ", ".join(sorted(f"{dtype} on {device}" for dtype, device in found))
    if any(m._forward_hooks or m._forward_pre_hooks or hasattr(m, "parametrizations") for m in model.modules()):
        return "it has hooks or parametrizations, which an engine would pass by"
    if _native.core(device) is None:
        reason = f": {_native.why_no_cuda(device.index or 0)}" if device.type == "cuda" else ""
        return f"the native core does not run{reason} (see langevin_ext.backend_info)"
    return ""


def named(device) -> str:
    """A device as a message says it."""
    return "the CPU" if device.type == "cpu" else str(device)


def versions(model):
    """Identifies the parameters and buffers and counts their changes, as far as torch does.

    Asked at each call of an engine; `parameters` and `buffers` would take longer.
    """
    tensors, modules = [], [model]
    for module in modules:  # which grows meanwhile; None stands for what there could be
        if module is not None:
            modules += module._modules.values()
            tensors += module._parameters.values()
            tensors += module._buffers.values()
    return [(id(t), t.data_ptr(), -1 if t.is_inference() else t._version) for t in tensors if t is not None]
