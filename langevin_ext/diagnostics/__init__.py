"""Whether Langevin dynamics with a score can be trusted: losses on fresh data, drifts, starts, errors on the path."""

from .diagnose import diagnose
from .estimate import Estimate
from .result import Check, Diagnosis, Level

__all__ = ["Check", "Diagnosis", "Estimate", "Level", "diagnose"]
