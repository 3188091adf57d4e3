"""A cell that is run too early says what to run first: an IPython extension.

`make` puts `etc/ipython/ipython_kernel_config.py` where IPython looks for it, below the environment's own folder. So this is in
every kernel of the environment before the first cell is run.
"""

from IPython.display import display

REMEDY = "Run the cells above first (menu *Run* → *Run All Above Selected Cell*), then this cell again."


def load_ipython_extension(shell):
    """Called by IPython when a kernel starts."""
    shell.events.register("post_run_cell", lambda result: _explain(shell, result))


def _explain(shell, result):
    """After a NameError for a name that the notebook does not have, show the remedy below the traceback."""
    error = getattr(result, "error_in_exec", None)  # there is no result where the cell was interrupted before it began
    if isinstance(error, NameError) and error.name not in (None, *shell.user_ns):
        text = f"**`{error.name}` is not defined yet.** {REMEDY}"
        display({"text/markdown": text, "text/plain": text.replace("*", "").replace("`", "")}, raw=True)
