"""The face of the package: what readers call is annotated and checked, and the small package is small."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import nbformat
import pytest

from ood_helpers import cache, models, training

ROOT = Path(__file__).parents[1]
SMALL = ("data", "losses", "models", "scores", "training")
BELOW = {"arrays", "closed", "progress"}  # what these five stand on


def sources():
    """(where, code) of every notebook, and of every page of text that shows Python."""
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts:
            cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
            yield path.name, re.sub(r"^\s*[!%].*$", "pass", "\n".join(cells), flags=re.MULTILINE)
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        yield path.name, "\n".join(re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL))


def used(code):
    """The functions and classes of the package that the code names; AttributeError if it names one that there is not."""
    names, found, tree = {}, set(), ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ood_helpers"):
            for alias in node.names:
                try:
                    thing = importlib.import_module(f"{node.module}.{alias.name}")
                except ModuleNotFoundError:
                    thing = None
                own = getattr(importlib.import_module(node.module), alias.name, thing)
                names[alias.asname or alias.name] = thing if thing and not callable(own) else own

    def value(node):
        if isinstance(node, ast.Name):
            return names.get(node.id)
        owner = value(node.value) if isinstance(node, ast.Attribute) else None
        return getattr(owner, node.attr) if isinstance(owner, ModuleType) else None

    for node in ast.walk(tree):
        thing = value(node) if isinstance(node, ast.Name | ast.Attribute) else None
        if isinstance(thing, FunctionType | type) and thing.__module__.startswith("ood_helpers"):
            found.add(thing)
    return found


def bare(thing):
    """The arguments of a function, or of a class, that have no annotation, and "return" if what it gives has none."""
    signature = inspect.signature(thing)
    missing = [name for name, argument in signature.parameters.items() if argument.annotation is inspect.Parameter.empty]
    returns = isinstance(thing, type) or signature.return_annotation is not inspect.Signature.empty
    return missing + ["return"] * (not returns)


CALLED = sorted(
    {thing for _, code in sources() for thing in used(code)}, key=lambda thing: (thing.__module__, thing.__qualname__)
)


def test_what_readers_call_is_annotated():
    assert len(CALLED) > 100
    assert {f"{thing.__module__}.{thing.__qualname__}": bare(thing) for thing in CALLED if bare(thing)} == {}
    code = "from ood_helpers import models\nfrom ood_helpers.training import train\nmodels.mlp(); train()"
    assert {thing.__name__ for thing in used(code)} == {"mlp", "train"}
    assert bare(lambda x: x) == ["x", "return"]
    with pytest.raises(AttributeError):
        used("from ood_helpers import models\nmodels.mpl()")


SAME_SETTINGS = {  # what hands all settings on, to what; and those that it leaves out
    cache.cached_train: (training.train, {"callback"}),
    cache.cached_snapshots: (training.train, {"steps", "callback"}),
    models.mlps: (models.mlp, {"generator"}),
}


@pytest.mark.parametrize("outer", SAME_SETTINGS)
def test_settings_stand_in_the_signature(outer):
    inner, out = SAME_SETTINGS[outer]
    has, wanted = (inspect.signature(thing).parameters for thing in (outer, inner))
    same = {name: wanted[name].replace(kind=has[name].kind) for name in wanted if name not in out | {"models"}}
    assert same.items() <= has.items() and not out & has.keys()
    assert all(setting.kind is not inspect.Parameter.VAR_KEYWORD for setting in has.values())


CALLS = {  # the checker's complaint, or none
    'models.mlp(width="wide")': "bad-argument-type",
    'models.mlps([0], width="wide")': "bad-argument-type",
    "cache.cached_train(models.mlp(), data.TwoGaussians(), losses.reject_loss, stpes=8)": "unexpected-keyword",
    "models.mlp(wdith=8)": "unexpected-keyword",
    "scores.auroc([1.0])": "missing-argument",
    "from ood_helpers.models import mpl": "missing-module-attribute",
    "def f() -> int:\n    return scores.auroc([1.0], [0.0])": "bad-return",
    "def f() -> float:\n    return scores.auroc([1.0], models.mlp(width=8)(x))": None,
}


def test_lint_sees_a_wrong_call(tmp_path):
    files = [tmp_path / f"call_{number}.py" for number in range(len(CALLS))]
    for file, line in zip(files, CALLS, strict=True):
        file.write_text(f"from ood_helpers import cache, data, losses, models, scores\n\n{line}\n", encoding="utf-8")
    where = ["--config", ROOT / "pyproject.toml", "--search-path", ROOT, "--python-interpreter-path", sys.executable]
    command = [Path(sys.executable).parent / "pyrefly", "check", *where, "--output-format", "min-text", *files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = dict(re.findall(r"call_(\d)\.py:.*\[([a-z-]+)\]$", done.stdout, flags=re.MULTILINE))
    assert done.returncode and found == {str(i): kind for i, kind in enumerate(CALLS.values()) if kind}, done.stdout + done.stderr


def lines(name):
    return len((ROOT / "ood_helpers" / f"{name}.py").read_text(encoding="utf-8").splitlines())


def imports(name):
    """The modules of the package that one of its modules imports."""
    tree = ast.parse((ROOT / "ood_helpers" / f"{name}.py").read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ood_helpers"):
            found |= {node.module.split(".")[1]} if "." in node.module else {alias.name for alias in node.names}
    return found


def test_the_small_package_is_small():
    """README: five files of at most 1,000 lines together, on three short ones."""
    assert sum(map(lines, SMALL)) <= 1000
    assert set().union(*map(imports, SMALL)) <= {*SMALL, *BELOW}
    assert set().union(*map(imports, BELOW)) <= BELOW and sum(map(lines, BELOW)) <= 300
    assert imports("training") >= {"data", "models", "progress"}  # the test can see them
