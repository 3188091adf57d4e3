"""Parts of a package that are read when they are first asked for."""

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType


def parts(package: str, names: Sequence[str]) -> tuple[Callable[[str], ModuleType], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package whose modules `names` are imported at their first use (PEP 562).

    One table of the laboratory, or the check of the environment, need not wait until scipy's statistics are read.
    """

    def get(name):
        if name in names:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted(names)
