"""Checks that say what is wrong and what to do about it: of the environment, and of the answers to the exercises."""

from typing import TYPE_CHECKING

from ood_helpers import lazy
from ood_helpers.checks.demos import demos
from ood_helpers.checks.environment import environment

if TYPE_CHECKING:
    from ood_helpers.checks import beyond, confident, gan, horizon, images, polytopes, reject, robustness, start_here, world

__all__ = [
    "beyond",
    "confident",
    "demos",
    "environment",
    "gan",
    "horizon",
    "images",
    "polytopes",
    "reject",
    "robustness",
    "start_here",
    "world",
]
__getattr__, __dir__ = lazy.parts(__name__, __all__)
