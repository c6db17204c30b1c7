"""Training score networks: the run, the average of the weights, and the checkpoints."""

from .checkpoint import describe, load, save, shipped
from .classifier import train_classifier
from .ema import EMA
from .log import read_log
from .loop import train
from .selection import Selection, select_checkpoint
from .selection_log import read_selection, selection_curve
from .trainer import Settings, Trainer
from .upsampler import train_upsampler

__all__ = [
    "EMA",
    "Selection",
    "Settings",
    "Trainer",
    "describe",
    "load",
    "read_log",
    "read_selection",
    "save",
    "select_checkpoint",
    "selection_curve",
    "shipped",
    "train",
    "train_classifier",
    "train_upsampler",
]
