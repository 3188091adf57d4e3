"""Sliders and choices, all of one look."""

import ipywidgets

LABEL = {"description_width": "9em"}
LAYOUT = {"width": "26em"}


def slider(label, options, value, tooltip):
    """A slider over `options` (a list of values, or of (text, value) pairs). The label has at most 20 characters."""
    return _labelled(ipywidgets.SelectionSlider, label, tooltip, options=options, value=value)


def choice(label, options, value, tooltip):
    """A drop-down choice among `options`."""
    return _labelled(ipywidgets.Dropdown, label, tooltip, options=options, value=value)


def _labelled(kind, label, tooltip, **kwargs):
    if len(label) > 20:
        raise ValueError(f"label must have at most 20 characters, or it is cut on the page; {label!r} has {len(label)}")
    values = [o[1] if isinstance(o, tuple) else o for o in kwargs["options"]]
    if kwargs["value"] not in values:
        raise ValueError(f"value must be one of the options {values}; got {kwargs['value']!r}")
    return kind(description=label, tooltip=tooltip, style=LABEL, layout=LAYOUT, **kwargs)
