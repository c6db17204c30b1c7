"""Datasets of images: where they come from, how a batch is drawn, and in which order training visits them."""

from .dataset import ImageDataset
from .order import indices_for, order
from .sources import SOURCES, open_dataset

__all__ = ["ImageDataset", "SOURCES", "indices_for", "open_dataset", "order"]
