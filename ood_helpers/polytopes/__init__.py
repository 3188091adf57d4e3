"""Exact geometry of ReLU networks: along a line, in a plane, and infinitely far away. Everything in float64."""

from . import measures
from .bound import confidence_bound
from .escape import escape
from .infinity import directions, infinity
from .line import line, ray
from .network import read, without_softmax
from .onnx_file import onnx
from .plane import plane
from .radius import horizon_radius
from .silence import silent_certificate

__all__ = [
    "confidence_bound",
    "directions",
    "escape",
    "horizon_radius",
    "infinity",
    "line",
    "measures",
    "onnx",
    "plane",
    "ray",
    "read",
    "silent_certificate",
    "without_softmax",
]
