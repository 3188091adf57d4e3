"""Checks that say what is wrong and what to do about it."""

import functools
import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

from ood_helpers import lab


def environment() -> bool:
    """Print one line per thing the course needs: a tick, or what to fix. True if nothing needs fixing."""
    problems = [*_packages(), *_cache(), *_results(), *_browser_side()]
    for problem in problems:
        print("✗", problem)
    if not problems:
        print("✓ Everything the course needs is here.")
    return not problems


def _packages():
    try:
        needed = importlib.metadata.requires("ood_helpers")
    except importlib.metadata.PackageNotFoundError:
        yield "the course's own package is not installed: run `make lab` from the course's folder, or `pip install -e .` there"
        return
    for line in needed or ():
        wanted = Requirement(line)
        if wanted.marker is not None:
            continue  # only the tests need it
        try:
            have = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            yield f"{wanted.name} is missing: run `make lab` from the course's folder, or `pip install '{wanted}'`"
            continue
        if have not in wanted.specifier:
            yield f"{wanted.name} is {have}, not {wanted.specifier}: `pip install '{wanted}'`, then restart the kernel"


def _cache():
    try:
        folder = Path(os.environ.get("OOD_CACHE") or "~/.cache/ood_helpers").expanduser()
    except RuntimeError:
        yield "there is no home folder to keep trained networks in: set OOD_CACHE to a folder"
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        yield f"trained networks cannot be kept in {folder.name} ({error.strerror}): set OOD_CACHE to another folder"
        return
    free = shutil.disk_usage(folder).free / 1e9
    if free < 0.5:
        yield f"only {free:.1f} GB of disk are free for trained networks: free some, or set OOD_CACHE to a folder elsewhere"


def _results():
    """The first stored table that cannot be read, and how many more."""
    problems = []
    for read in [lab.stored.claims, *(functools.partial(lab.stored.runs, name) for name in lab.stored.settings())]:
        try:
            read()
        except (OSError, ValueError) as error:
            problems.append(str(error))
    if problems:
        more = f" ({len(problems) - 1} more tables cannot be read)" if len(set(problems)) > 1 else ""
        yield f"some cells have no numbers to show: {problems[0]}{more}"


def _browser_side():
    try:
        running, bundled = importlib.metadata.version("jupyterlab"), importlib.metadata.version("jupyterlab-widgets")
    except importlib.metadata.PackageNotFoundError as error:
        yield f"{error.name} is missing, so sliders cannot be shown: `pip install ipywidgets jupyterlab`, then restart JupyterLab"
        return
    if int(running.split(".")[0]) < 4 or int(bundled.split(".")[0]) < 3:
        yield f"JupyterLab {running} with jupyterlab-widgets {bundled} show no sliders: `pip install -U jupyterlab ipywidgets`"
