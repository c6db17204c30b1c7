"""Score-based Langevin sampling on fused C++/CUDA kernels: fast, exact, reproducible."""

__version__ = "0.1.0"

from . import noise, ops, reference
from ._native import SlowerPathWarning, backend_info

__all__ = ["SlowerPathWarning", "backend_info", "noise", "ops", "reference"]
