"""Datasets of images and vectors: their sources, how a batch is drawn, and in which order training visits them."""

from .dataset import ImageDataset
from .order import indices_for, order
from .sources import SOURCES, open_dataset
from .vectors import VectorDataset

__all__ = ["ImageDataset", "SOURCES", "VectorDataset", "indices_for", "open_dataset", "order"]
