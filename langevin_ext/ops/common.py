"""What every op needs: registration with torch.library, and the checks of what a user can get wrong."""

import torch

from .._transforms import transformed

_library = torch.library.Library("langevin_ext", "DEF")
STATE = (torch.float32, torch.float64)
ACTIVATION = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def define(schema, implementation, fake, backward=None, setup_context=None):
    """Registers one implementation for every device; it asks for the native core itself."""
    name = schema.split("(")[0]
    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"langevin_ext::{name}", fake, lib=_library)
    if backward is not None:
        torch.library.register_autograd(f"langevin_ext::{name}", backward, setup_context=setup_context, lib=_library)
    return getattr(torch.ops.langevin_ext, name).default


def signed(seed):
    """Schemas carry int64; the core reads the same 64 bits as unsigned."""
    return seed - 2**64 if seed >= 2**63 else seed


def unsigned(seed):
    return seed % 2**64


def dense(tensor):
    """The tensor itself where it is contiguous or channels-last, else a contiguous copy."""
    if tensor.is_contiguous() or (tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)):
        return tensor
    return tensor.contiguous()


def apart(tensor, target):
    """The tensor, or a copy of it where a kernel that writes into `target` could change it before it is read."""
    if tensor is None or tensor.untyped_storage().data_ptr() != target.untyped_storage().data_ptr():
        return tensor
    same = tensor.data_ptr() == target.data_ptr() and tensor.dtype == target.dtype
    same = same and tensor.shape == target.shape and tensor.stride() == target.stride()
    return tensor if same else tensor.clone()


def compute_dtype(tensor):
    """The dtype in which elements of `tensor` are computed with."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def per_sample(values, tensor):
    """(samples,) numbers shaped to multiply (samples, ...)."""
    return values.view(-1, *[1] * (tensor.dim() - 1))


def written(tensor):
    """Tells autograd that a kernel wrote into `tensor`, so that a stale gradient is an error and not a wrong number."""
    if not tensor.is_inference():
        torch.autograd.graph.increment_version(tensor)


def write_back(tensor, target):
    """Ends an op in place: `target`, which a kernel wrote into, is `tensor` itself or a dense copy of it."""
    if target is tensor:
        written(tensor)
    else:
        tensor.copy_(target)


def check_tensor(name, label, tensor, dtypes):
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name}: {label} must be a tensor, got {type(tensor).__name__}")
    if tensor.dtype not in dtypes:
        allowed = ", ".join(str(d).removeprefix("torch.") for d in dtypes)
        raise TypeError(f"{name}: {label} must be {allowed}, got {str(tensor.dtype).removeprefix('torch.')}")


def check_like(name, label, tensor, x_label, x, shape=None):
    shape = x.shape if shape is None else shape
    if tensor.shape != shape:
        raise ValueError(
            f"{name}: {label} must have shape {tuple(shape)} to go with {x_label}, got {tuple(tensor.shape)}"
        )
    if tensor.device != x.device:
        raise ValueError(f"{name}: {label} must be on {x_label}'s device {x.device}, got {tensor.device}")


def check_no_gradient(name, label, tensor):
    """For ops in place, which have no derivative."""
    if tensor.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name}: {label} must not require grad, the step is in place; call it under torch.no_grad()")
    if transformed():
        raise ValueError(
            f"{name}: {label} must be a plain tensor, got one within a transform of torch.func or a level of "
            f"forward-mode derivatives; the step is in place and has no derivative, langevin_ext.reference.{name} has"
        )


def check_batch(name, label, x):
    if x.dim() < 2:
        raise ValueError(f"{name}: {label} must have shape (samples, ...), got {tuple(x.shape)}")


def check_sigma(name, sigma, x_label, x):
    """A noise level for each sample; float32, or float64 where x is."""
    check_tensor(name, "sigma", sigma, STATE if x.dtype == torch.float64 else (torch.float32,))
    check_like(name, "sigma", sigma, x_label, x, x.shape[:1])
    if sigma.requires_grad and torch.is_grad_enabled():
        raise ValueError(f"{name}: sigma must not require grad, there is no gradient in sigma")
