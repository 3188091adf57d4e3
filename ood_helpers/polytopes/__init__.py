"""Exact geometry of ReLU networks: along a line, in a plane, and infinitely far away. Everything in float64."""

from . import measures
from .infinity import directions, infinity
from .line import line, ray
from .network import read
from .plane import plane

__all__ = ["directions", "infinity", "line", "measures", "plane", "ray", "read"]
