"""Cells run out of order say what to run first: an IPython extension.

`etc/ipython/ipython_kernel_config.py`, which `make` puts where IPython looks for it, loads this into every kernel of the
environment, so that it is there before the first cell. It learns from the notebook's file which cell makes which name.

- After a NameError it says which cell makes the name.
- Before a cell is run it says so if a name of the cell is not the one that the cells above make: they were left out, or a cell
  further down has used the name for something else.
"""

import ast
import dis
import functools
import json
import os
import types
import warnings
from pathlib import Path

from IPython.display import display

_REMEDY = "Run the cells above first (menu *Run* → *Run All Above Selected Cell*), then this cell again."


def load_ipython_extension(shell):
    """Called by IPython when a kernel starts."""
    order = _Order(shell)
    shell.events.register("pre_run_cell", order.before)
    shell.events.register("post_run_cell", order.after)


class _Order:
    """What the cells of the open notebook read and make, and what those that were run have made."""

    def __init__(self, shell):
        self.shell, self.folder = shell, Path.cwd()
        self.changed, self.stored = None, {}  # when the file was changed; cell -> source, in the notebook's order
        self.ran, self.made = {}, {}  # cell -> the source that was run, and {name: id of the object} that it made in the end
        self._names = functools.cache(self._names)

    def before(self, info):
        """Say which names of the cell are not those that the cells above make."""
        cell = self._cell(info)
        if cell not in self.stored:
            return
        read, _ = self._names(info.raw_cell)
        wrong = sorted(name for name in self._all_read(read) if self._is_wrong(name, cell))
        if wrong:
            names = ", ".join(f"`{name}`" for name in wrong)
            are = "is not what the cells above make it" if len(wrong) == 1 else "are not what the cells above make them"
            _say(f"**This may go wrong:** {names} {are}: some were left out, or a cell further down was run. {_REMEDY}")

    def after(self, result):
        """Keep what the cell has made; after a NameError say which cell makes the name."""
        if result is None:  # interrupted before it began
            return
        cell, names = self._cell(result.info), self.shell.user_ns
        self.ran[cell] = result.info.raw_cell
        if result.success:
            self.made[cell] = {name: id(names[name]) for name in self._names(result.info.raw_cell)[1] if name in names}
        error = result.error_in_exec
        if isinstance(error, NameError) and error.name not in (None, *names):
            if not self.stored:
                _say(f"**`{error.name}` is not defined yet.** If a cell above defines it: {_REMEDY}")
            elif maker := next(self._makers(error.name, cell), None):
                line = _first_line(self._source(maker))
                _say(f"**`{error.name}` is not defined yet.** The cell that begins with `{line}` defines it. {_REMEDY}")

    def _cell(self, info):
        """The cell that is run: its identifier, or where the page does not send one the cell of the same source, or None."""
        self._read_notebook()
        cell = getattr(info, "cell_id", None)
        same = [key for key, source in self.stored.items() if source.strip() == info.raw_cell.strip()]
        return cell or (same[0] if len(same) == 1 else None)

    def _read_notebook(self):
        """Read the notebook's file again if it has changed. A page that does not say which it is leaves no cells to look at."""
        named = self.shell.user_ns.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME") or ""
        for path in [Path(named), self.folder / Path(named).name] if named else []:
            try:
                changed = path.stat().st_mtime_ns
                if changed != self.changed:
                    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
                    code = [cell for cell in cells if cell["cell_type"] == "code"]
                    self.stored = {cell.get("id", n): "".join(cell["source"]) for n, cell in enumerate(code)}
                    self.changed = changed
                return
            except (OSError, ValueError, KeyError):  # elsewhere, or being written just now
                continue

    def _source(self, cell):
        return self.ran.get(cell, self.stored[cell])

    def _names(self, source):
        """(names that the cell reads before it makes them, names that it makes)"""
        try:
            with warnings.catch_warnings(action="ignore"):  # of the cell's code: they come again when it is run
                code = compile(self.shell.transform_cell(source), "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except (SyntaxError, ValueError):
            return set(), set()
        read, made = set(), set()
        for step in dis.get_instructions(code):
            if step.opname == "STORE_NAME":
                made.add(step.argval)
            elif step.opname == "LOAD_NAME" and step.argval not in made:
                read.add(step.argval)
        return read | set().union(*map(_globals, _inner(code))) - made, made

    def _all_read(self, read):
        """These names, and those that the notebook's functions among them read when they are called."""
        found, waiting = set(), set(read)
        while waiting:
            found.add(name := waiting.pop())
            value = self.shell.user_ns.get(name)
            if isinstance(value, types.FunctionType) and value.__globals__ is self.shell.user_ns:
                waiting |= _globals(value.__code__) - found
        return found

    def _is_wrong(self, name, cell):
        """Whether `name` has a meaning, but not the one that the cells above `cell` give it."""
        if name not in self.shell.user_ns:
            return False
        value = self.shell.user_ns[name]
        if isinstance(value, types.ModuleType | types.FunctionType | type) and getattr(value, "__module__", "") != "__main__":
            return False  # an import gives the same wherever it stands
        maker = next(self._makers(name, cell), None)
        makers = {maker, *(other for other in self.made if other not in self.stored)}  # and those that the reader has just added
        return maker is not None and not any(self.made.get(other, {}).get(name) == id(value) for other in makers)

    def _makers(self, name, cell):
        """The cells that make `name`, from the nearest above `cell` upwards; of all cells where `cell` is not known."""
        order = list(self.stored)
        above = order[: order.index(cell)][::-1] if cell in self.stored else order
        for other in above:
            if name in self._names(self._source(other))[1] and (other not in self.made or name in self.made[other]):
                yield other


def _inner(code):
    return [const for const in code.co_consts if isinstance(const, types.CodeType)]


def _globals(code):
    """The names that a function's code, with the functions in it, takes from the notebook."""
    own = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return own.union(*map(_globals, _inner(code)))


def _first_line(source):
    """The line by which a reader finds a cell."""
    lines = [line for line in source.splitlines() if line.strip() and not line.startswith("#")]
    return lines[0].strip() if lines else ""


def _say(text):
    display({"text/markdown": text, "text/plain": text.replace("*", "").replace("`", "")}, raw=True)
