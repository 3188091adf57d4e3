"""Print the oldest versions that pyproject.toml allows, one `name==version` per line, as constraints for pip.

    python tools/oldest.py > oldest.txt && pip install --constraint oldest.txt --editable '.[test]'

`make oldest` does so in an environment of its own and runs the tests there.
"""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def oldest(project):
    """{name: version}: the lower bound of every package that the table `project` names. ValueError where one has none."""
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    found = {}
    for requirement in map(Requirement, lines):
        bounds = [clause.version for clause in requirement.specifier if clause.operator == ">="]
        if len(bounds) != 1:
            raise ValueError(f"{requirement} must have one lower bound, such as {requirement.name}>=1.0")
        found[requirement.name] = bounds[0]
    return found


if __name__ == "__main__":
    for name, version in oldest(tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]).items():
        print(f"{name}=={version}")
