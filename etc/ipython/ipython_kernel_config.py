"""Read by every kernel of the environment that the course is installed in: a cell run too early says what to run first."""

c = get_config()  # noqa: F821
c.InteractiveShellApp.extensions.append("ood_helpers.order")
