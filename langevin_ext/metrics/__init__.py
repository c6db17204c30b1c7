"""How far samples are from data."""

from .frechet import FrechetDistance, PixelFeatures, frechet_distance, frechet_samples, gaussian_statistics

__all__ = ["FrechetDistance", "PixelFeatures", "frechet_distance", "frechet_samples", "gaussian_statistics"]
