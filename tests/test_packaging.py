"""conda's and pip's lists of packages say the same, and the lock keeps within their bounds."""

import re
import tomllib
from pathlib import Path

import oldest
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib", "playwright-python": "playwright"}


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def bounds(lines):
    return {r.name: r.specifier for r in map(Requirement, lines)}


def pip_bounds():
    extras = [lines for name, lines in project()["optional-dependencies"].items() if name not in ("mnist", "onnx")]  # by hand
    return bounds(
        [f"python{project()['requires-python']}", *project()["dependencies"], *(line for extra in extras for line in extra)]
    )


def conda_bounds(text):
    listed = re.findall(r"^  - (\S+[<>=]\S+)$", text, flags=re.M)
    return {CONDA_NAMES.get(name, name): specifier for name, specifier in bounds(listed).items()}


def test_conda_and_pip_name_the_same_packages_and_bounds():
    text = (ROOT / "environment.yml").read_text()
    assert conda_bounds(text) == pip_bounds()
    assert "conda-forge" in text and conda_bounds(text.replace("<3", "<4", 1)) != pip_bounds()


def test_the_lock_keeps_within_the_bounds():
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), flags=re.M))
    locked = {name.lower().replace("_", "-"): version for name, version in locked.items()}
    for name, specifier in pip_bounds().items():
        if name != "python":
            assert locked[name.lower()] in specifier, name


def test_the_oldest_versions_are_the_lower_bounds():
    versions = oldest.oldest(project())
    assert versions.keys() == pip_bounds().keys() - {"python"} | {"mlxtend", "onnx"}
    assert versions["numpy"] == "2.0" and versions["torch"] in pip_bounds()["torch"]
    with pytest.raises(ValueError, match="torch<3 must have one lower bound"):
        oldest.oldest({"dependencies": ["torch<3"], "optional-dependencies": {}})
