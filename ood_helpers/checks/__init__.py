"""Checks that say what is wrong and what to do about it: of the environment, and of the answers to the exercises."""

from ood_helpers.checks import beyond, confident, gan, horizon, images, polytopes, reject, robustness, start_here, world
from ood_helpers.checks.demos import demos
from ood_helpers.checks.environment import environment

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
