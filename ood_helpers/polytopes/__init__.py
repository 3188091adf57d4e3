"""Exact geometry of ReLU networks: along a line, in a plane, and infinitely far away. Everything in float64."""

from .infinity import directions, infinity
from .line import line, ray
from .network import read

__all__ = ["directions", "infinity", "line", "ray", "read"]
