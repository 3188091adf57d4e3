"""Sliders and choices, all of one look."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import ipywidgets

from . import given

_LABEL = {"description_width": "9em"}
_LAYOUT = {"width": "26em"}


def slider(label: str, options: Sequence, value: Any, tooltip: str) -> ipywidgets.SelectionSlider:
    """A slider over `options`: values, or pairs (text, value). The label has at most 20 characters.

    The texts differ and so do the values, which are numbers, texts or other things that `==` can tell apart; tuples of two need
    a text. ValueError or TypeError otherwise.
    """
    return _labelled(ipywidgets.SelectionSlider, label, options, value, tooltip)


def choice(label: str, options: Sequence, value: Any, tooltip: str) -> ipywidgets.Dropdown:
    """A drop-down choice among `options`, which are as those of `slider`."""
    return _labelled(ipywidgets.Dropdown, label, options, value, tooltip)


def _labelled(kind, label, options, value, tooltip):
    given.text("label", label)
    if len(label) > 20:
        raise ValueError(f"label must have at most 20 characters, or it is cut on the page; {label!r} has {len(label)}")
    if not isinstance(tooltip, str):
        raise TypeError(f"tooltip must be a text; got {tooltip!r}")
    pairs = pairs_of(label, options)
    values = [value for _, value in pairs]
    if not given.among(value, values):
        raise ValueError(f"value must be one of the options {values}; got {value!r}")
    return kind(description=label, tooltip=tooltip, style=_LABEL, layout=_LAYOUT, options=pairs, value=value)


def pairs_of(name, options):
    """The options of the control `name` as pairs (text, value), which all differ. ValueError or TypeError otherwise."""
    try:
        options = None if isinstance(options, str | dict) else list(options)
    except TypeError:
        options = None
    if options is None:
        raise TypeError(f"the options of {name!r} must be a list of values, or of pairs (text, value)")
    if not options:
        raise ValueError(f"the options of {name!r} are empty: give at least one value to choose")
    twos = [option for option in options if isinstance(option, tuple) and len(option) == 2]
    if len(twos) == len(options) and all(isinstance(text, str) for text, _ in twos):
        pairs = options
    elif twos:
        raise ValueError(
            f"the options of {name!r} must be values, or pairs (text, value), not both; {twos[0]!r} could be either. "
            "Give each option its text"
        )
    else:
        pairs = [(str(option), option) for option in options]
    for _, value in pairs:
        for part in value if isinstance(value, tuple) else [value]:
            if part is None or not given.same(part, part):
                raise ValueError(
                    f"the options of {name!r} must be numbers, texts or other values that == can tell apart, not {part!r}; "
                    "take a name for each, and look up in `update` what it stands for"
                )
    for what, found in zip(("texts", "values"), zip(*pairs, strict=True), strict=True):
        ((most, times),) = Counter(found).most_common(1)
        if times > 1:
            raise ValueError(f"the {what} of the options of {name!r} must differ; {most!r} is there {times} times")
    return pairs
