"""A progress bar for whoever waits, which leaves nothing behind in a notebook."""

from collections.abc import Iterable

from IPython import get_ipython
from IPython.display import display
from tqdm import tqdm


def progress(steps: Iterable, total: int, what: str) -> tqdm:
    """Pass on what `steps` yields; from the second second on a bar shows how many of `total` are done. `what` names them.

    In a notebook each bar is an output of its own, so that one inside another need not move up a line to find its place.
    """
    page = {"file": _Output(), "ncols": 80, "position": 0} if hasattr(get_ipython(), "kernel") else {}
    return tqdm(steps, what, total, unit="step", leave=False, delay=1, mininterval=0.5, **page)


class _Output:
    """A file that shows the last line written to it, as one output of the cell.

    Not tqdm's bar of widgets: a finished one stays in the saved notebook as "model not found".
    """

    encoding = "utf-8"  # tqdm asks whether it may draw blocks

    def __init__(self):
        self.shown = None

    def write(self, text):
        line = {"text/plain": text.strip()}
        if self.shown:
            self.shown.update(line, raw=True)
        elif line["text/plain"]:
            self.shown = display(line, raw=True, display_id=True)

    def flush(self):
        """Nothing is kept back."""
