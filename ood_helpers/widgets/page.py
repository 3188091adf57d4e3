"""What stands in the page: a widget while its kernel lives, and a picture and words wherever none does."""

import base64
import re

import ipywidgets
from IPython import get_ipython
from IPython.display import display

_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# JupyterLab shows one form of an output, and falls back to no other when its widget is dead. So each form is an output of its
# own (a "child" of the cell's output area). Where the widget has come to life, picture and words above it are hidden; where it
# has not, its own output ("model not found") is.
_STYLE = """<style>
.jp-OutputArea-child:has(.ood-static):has(+ .jp-OutputArea-child .ood-live),
.jp-OutputArea-child:has(+ .jp-OutputArea-child .ood-pictured):has(+ .jp-OutputArea-child + .jp-OutputArea-child .ood-live),
.jp-OutputArea-child:has(.ood-static)
    + .jp-OutputArea-child:has(> .jp-OutputArea-output:not([data-mime-type])):not(:has(.ood-live))
{ display: none; }
</style>"""
_shown = {}  # cell -> (its run, what that run has shown)


def show(item, words, png=None):
    """Show what a cell has made, and leave what a reader without a kernel sees: a saved notebook, its HTML, a code host.

    item   has `.box`, a widget with all its parts, and `.close()`; what an earlier run of the same cell has shown is closed
    words  markdown
    png    a picture to stand above the words, as bytes
    """
    _close_earlier(item)
    item.box.add_class("ood-live")
    if png:
        picture = {"image/png": base64.b64encode(png).decode(), "text/plain": words}
        display(picture, metadata={"image/png": {"alt": words}}, raw=True)
    kind = "ood-static ood-pictured" if png else "ood-static"
    display({"text/markdown": f'<div class="{kind}">\n\n{words}\n\n</div>\n\n{_STYLE}'}, raw=True)
    display({_WIDGET_VIEW: item.box._repr_mimebundle_()[_WIDGET_VIEW], "text/plain": ""}, raw=True)


def earlier(kind):
    """What the run before of the present cell has shown of a kind: the last one, or None."""
    cell, run = _cell(get_ipython())
    before, items = _shown.get(cell, (run, []))
    return next((item for item in reversed(items) if isinstance(item, kind)), None) if before != run else None


def close(item):
    """Close the widget of `item` with all its parts, but for those that something else in the page shows as well."""
    others = {part for _, items in _shown.values() for other in items if other is not item for part in _parts(other.box)}
    for part in set(_parts(item.box)) - others:
        part.close()


def _close_earlier(item):
    """Close what an earlier run of this cell has shown: it would stay in memory for as long as the kernel lives."""
    shell = get_ipython()
    cell, run = _cell(shell)
    if cell is None:  # not a notebook
        return
    before, earlier = _shown.get(cell, (run, []))
    _shown[cell] = (run, [*(earlier if before == run else []), item])
    for old in earlier:
        if not any(old is other for _, items in _shown.values() for other in items):
            old.close()
            close(old)  # a map is itself a widget, and closes no part
            _forget(shell, old)


def _cell(shell):
    """(the cell that is run, this run of it); (None, None) where there is no notebook."""
    parent = getattr(shell, "get_parent", dict)()
    return parent.get("metadata", {}).get("cellId"), parent.get("header", {}).get("msg_id")


def _forget(shell, old):
    """Take `old` out of IPython's memory of results: Out[3], _3, _, __, ___."""
    for names in (shell.user_ns, shell.user_ns_hidden, shell.history_manager.output_hist):
        for name in [name for name, value in names.items() if value is old and re.fullmatch(r"_*\d*", str(name))]:
            del names[name]
    for name in ("_", "__", "___"):
        if getattr(shell.displayhook, name) is old:
            setattr(shell.displayhook, name, None)


def _parts(widget):
    """A widget, its children, the controls it was made of, and their layouts and styles."""
    yield widget
    values = [getattr(widget, name) for name in widget.keys] + list(getattr(widget, "controls", {}).values())
    for value in values:
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, ipywidgets.Widget):
                yield from _parts(part)
