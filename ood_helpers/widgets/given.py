"""What a demo, a training or a question is given, checked when it is made: a mistake must not wait for a click."""

import inspect

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg


def text(name, value):
    """ValueError or TypeError that names the argument unless `value` is a text that is not empty."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text; got {value!r}")
    if not value.strip():
        raise ValueError(f"{name} must not be empty: write what the reader shall see there")


def table(name, value):
    """TypeError that names the argument unless `value` is a dict whose keys are texts; ValueError for an empty text."""
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be a dict; got {value!r}")
    for key in value:
        text(f"each name in {name}", key)


def presets(value, check):
    """name -> check(values) for the presets name -> values; errors name the preset that is empty, or that the check refuses."""
    table("presets", value)
    made = {}
    for name, values in value.items():
        if name == "Reset":
            raise ValueError("a preset may not be called 'Reset': that button is there already")
        table(f"preset {name!r}", values)
        if not values:
            raise ValueError(f"preset {name!r} must set at least one control; it would do nothing")
        try:
            made[name] = check(values)
        except ValueError as error:
            raise ValueError(f"preset {name!r}: {error}") from None
    return made


def function(name, value, of, *args, **kwargs):
    """TypeError that names the argument unless `value` can be called with these arguments, which are those `of` describes."""
    if not callable(value):
        raise TypeError(f"{name} must be a function of {of}; got {value!r}")
    try:
        signature = inspect.signature(value)
    except ValueError:  # some functions written in C have none
        return
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name} must be a function of {of}; it takes {signature}: {error}") from None


def figure(value):
    """TypeError unless `value` is a figure that is drawn by Agg."""
    if not isinstance(getattr(value, "canvas", None), FigureCanvasAgg):
        raise TypeError(f"figure must be the figure that `plotting.figure` returns first; got {value!r}")


def same(a, b):
    """Whether `==` finds two values the same; False where it gives no truth value, as of arrays, and where they are lists."""
    try:
        hash(a)
        equal = a == b
    except Exception:  # what a class does in == is its own
        return False
    return isinstance(equal, bool | np.bool_) and bool(equal)


def among(value, options):
    """Whether `value` is one of the options."""
    return any(same(value, option) for option in options)
