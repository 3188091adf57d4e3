"""Read by every kernel of the environment that the course is installed in.

A cell run too early says what to run first; and memory that a cell has freed goes back to the system.
"""

c = get_config()  # noqa: F821
c.InteractiveShellApp.extensions.extend(["ood_helpers.kernel.order", "ood_helpers.kernel.memory"])
