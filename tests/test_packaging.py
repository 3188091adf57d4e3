"""conda's and pip's lists of packages say the same, and the lock keeps within their bounds."""

import re
import tomllib
from pathlib import Path

import make_lock
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
    extras = [lines for name, lines in project()["optional-dependencies"].items() if name != "mnist"]  # installed by hand
    return bounds(
        [f"python{project()['requires-python']}", *project()["dependencies"], *(line for extra in extras for line in extra)]
    )


def slim_bounds():
    return bounds([f"python{project()['requires-python']}", *project()["dependencies"]])


def conda_bounds(text):
    listed = re.findall(r"^  - (\S+[<>=]\S+)$", text, flags=re.M)
    return {CONDA_NAMES.get(name, name): specifier for name, specifier in bounds(listed).items()}


def test_conda_and_pip_name_the_same_packages_and_bounds():
    text = (ROOT / "environment.yml").read_text()
    assert conda_bounds(text) == pip_bounds()
    assert "conda-forge" in text and conda_bounds(text.replace("<3", "<4", 1)) != pip_bounds()


def test_binder_installs_what_the_notebooks_need_and_no_more():
    text = (ROOT / ".binder" / "environment.yml").read_text()
    assert conda_bounds(text) == slim_bounds()
    assert "- pip\n" in text and "pip install --no-deps ." in (ROOT / ".binder" / "postBuild").read_text()


def test_an_installed_package_brings_what_every_kernel_reads():
    """`pip install .` puts the files of `etc/` into the environment, each in its own folder: none is forgotten."""
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "etc").rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert {file for files in data.values() for file in files} == files
    assert all(Path(file).parent.as_posix() == folder for folder, listed in data.items() for file in listed)


def locked(name):
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / name).read_text(), flags=re.M))


def test_the_locks_keep_within_the_bounds():
    every = locked("requirements.lock") | locked("requirements-dev.lock")
    for name, specifier in pip_bounds().items():
        if name != "python":
            assert every[name.lower()] in specifier, name


def test_what_a_student_installs_holds_no_tool_of_the_makers():
    run, dev = locked("requirements.lock"), locked("requirements-dev.lock")
    assert {Requirement(text).name.lower() for text in project()["dependencies"]} <= run.keys()
    assert run.keys().isdisjoint(dev) and {"playwright", "pytest", "jupyterhub", "distributed", "ruff"} <= dev.keys()


def test_the_locks_are_those_of_this_environment():
    """What `tools/make_lock.py` would write; one needs only the packages of the lock to know which they need."""
    run = make_lock.closure(project()["dependencies"]).keys()
    assert locked("requirements.lock").keys() <= run
    more = run - locked("requirements.lock").keys()
    assert all(name.startswith(("nvidia-", "cuda-", "triton")) for name in more), more  # what torch's build for CUDA brings


def test_the_oldest_versions_are_the_lower_bounds():
    versions = oldest.oldest(project())
    assert versions.keys() == pip_bounds().keys() - {"python"} | {"mlxtend"}
    assert versions["numpy"] == "2.0" and versions["torch"] in pip_bounds()["torch"]
    with pytest.raises(ValueError, match="torch<3 must have one lower bound"):
        oldest.oldest({"dependencies": ["torch<3"], "optional-dependencies": {}})
