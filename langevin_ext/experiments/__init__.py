"""The papers' experiments, each by one call."""

from .report import Row, Table
from .run import outline, table

__all__ = ["Row", "Table", "outline", "table"]
