"""Write the two locks from the environment in which the tests ran: what the course needs, and what its makers need on top.

    .venv/bin/python tools/make_lock.py      writes requirements.lock and requirements-dev.lock

To move to newer versions: install them into .venv (`.venv/bin/python -m pip install --upgrade -e ".[test,site,hub]"`), run
`make test`, then this.
"""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
EXTRAS = ("test", "site", "hub")  # what the tests need
RUN = "# The exact versions that the tests ran with, as far as the course needs them to run; `make lab` installs these."
DEV = "# What `make test` installs on top of requirements.lock: tests, reading edition, slides, hub."


def closure(requirements):
    """name -> version of everything installed that these requirements need, and that those need, and so on."""
    found, waiting = {}, [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            package = distribution(requirement.name)
        except PackageNotFoundError:  # another build of torch brings its own
            continue
        name = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
        new = name not in found
        found[name] = package.version.partition("+")[0]
        for extra in ["", *requirement.extras] if new or requirement.extras else []:
            waiting += [(Requirement(text), extra) for text in package.requires or [] if new or (extra and extra in text)]
    return found


def write(path, opening, versions):
    lines = [f"{name}=={version}" for name, version in sorted(versions.items())]
    path.write_text("\n".join([opening, *lines]) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(lines)} packages")


def main():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    run = closure(project["dependencies"])
    every = closure(project["dependencies"] + [text for extra in EXTRAS for text in project["optional-dependencies"][extra]])
    write(ROOT / "requirements.lock", RUN, run)
    write(ROOT / "requirements-dev.lock", DEV, {name: version for name, version in every.items() if name not in run})


if __name__ == "__main__":
    main()
