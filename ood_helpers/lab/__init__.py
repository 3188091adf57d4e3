"""The laboratory: the experiments of the paper and beyond it, from their description to their stored numbers."""

from typing import TYPE_CHECKING

from ood_helpers import lazy

if TYPE_CHECKING:
    from . import claims, closed, convolutions, detectors, experiment, gans, horizons, paper, samples, stored

__all__ = ["claims", "closed", "convolutions", "detectors", "experiment", "gans", "horizons", "paper", "samples", "stored"]
__getattr__, __dir__ = lazy.parts(__name__, __all__)
