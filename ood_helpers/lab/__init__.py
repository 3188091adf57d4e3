"""The laboratory: the experiments of the paper and beyond it, from their description to their stored numbers."""

from . import claims, closed, convolutions, detectors, experiment, gans, horizons, paper, samples, stored

__all__ = ["claims", "closed", "convolutions", "detectors", "experiment", "gans", "horizons", "paper", "samples", "stored"]
