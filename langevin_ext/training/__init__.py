"""Training score networks: the run, the average of the weights, and the checkpoints."""

from .checkpoint import describe, load, save, shipped
from .ema import EMA
from .log import read_log
from .loop import train
from .trainer import Settings, Trainer

__all__ = ["EMA", "Settings", "Trainer", "describe", "load", "read_log", "save", "shipped", "train"]
