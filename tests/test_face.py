"""The face of the package: what readers call is annotated and checked, and the small package is small."""

import ast
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType

import nbformat
import pytest

from ood_helpers import cache, models, training
from ood_helpers.images import KINDS

ROOT = Path(__file__).parents[1]
SMALL = ("data", "losses", "models", "scores", "training")
BELOW = {"adam", "arrays", "closed", "progress"}  # what these five stand on


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


CALLED_BY_NAME = {  # public though nothing outside their module takes them
    "load_ipython_extension",  # IPython calls it
    "SETTINGS", "run", "EXPERIMENTS", "METHODS",  # of the laboratory: CONTRIBUTING says what an experiment is
    "band_legend",  # the notebooks within the benchmarks
    "OPEN", "RIGHT",  # with WRONG, the marks of a check
    "at_most", "above", "below", "within",  # with at_least, the conditions of a claim
    "least_probable", "Arcs",  # with the other measures and worlds, for networks and worlds of one's own
    *KINDS,  # images that notebooks call by these names
}  # fmt: skip


def taken(code, package="ood_helpers"):
    """What the code takes from modules, by imports and as attributes: full names. package: that of its relative imports."""
    tree, found, names = ast.parse(code), set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names |= {alias.asname or alias.name: f"{origin}.{alias.name}" for alias in node.names}
            found |= {f"{origin}.{alias.name}" for alias in node.names}

    def full(node):
        owner = full(node.value) if isinstance(node, ast.Attribute) else None
        return f"{owner}.{node.attr}" if owner else names.get(getattr(node, "id", None))

    return found | {full(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def offered(code):
    """The public names of a module, without the types that the annotations of others of them name."""
    names, types = set(), set()
    for node in ast.parse(code).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            own = {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
        else:
            own = {node.name} if isinstance(node, ast.FunctionDef | ast.ClassDef) else set()
        if own := {name for name in own if not name.startswith("_")}:
            said = [getattr(part, kind, None) for part in ast.walk(node) for kind in ("annotation", "returns")]
            names, types = names | own, types | set(re.findall(r"\w+", " ".join(ast.unparse(x) for x in said if x))) - own
    return names - types


def test_what_only_its_own_module_uses_has_an_underscore():
    package = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in (ROOT / "ood_helpers").rglob("*.py")}
    code = {name: path.read_text(encoding="utf-8") for name, path in package.items()}
    tools = [path.read_text(encoding="utf-8") for path in (*(ROOT / "tools").rglob("*.py"), *(ROOT / "docs").rglob("*.py"))]
    readers = set().union(*(taken(text) for text in [*tools, *(text for _, text in sources())]))
    takes = {name: taken(text, name.rpartition(".")[0]) for name, text in code.items()}

    def alone(name):
        outside = readers.union(*(found for other, found in takes.items() if other != name))
        public = {one for one in offered(code[name]) - CALLED_BY_NAME if not one.endswith("Setting")}
        return {f"{name}.{one}" for one in public if f"{name}.{one}" not in outside}

    assert set().union(*map(alone, code)) == set()
    assert len(readers) > 100 and taken("from ood_helpers import polytopes as p\np.measures.area()") == {
        "ood_helpers.polytopes", "ood_helpers.polytopes.measures", "ood_helpers.polytopes.measures.area"
    }  # fmt: skip
    code["ood_helpers.gan"] += "\n\nLEFT = 1\n\n\nclass Kind:\n    pass\n\n\ndef _f(x: Kind): ...\n"
    assert alone("ood_helpers.gan") == {"ood_helpers.gan.LEFT", "ood_helpers.gan.Kind"}


CALLS = {  # the checker's complaint, or none
    'models.mlp(width="wide")': "bad-argument-type",
    'models.mlps([0], width="wide")': "bad-argument-type",
    "cache.cached_train(models.mlp(n_classes=3), data.TwoGaussians(), losses.reject_loss, stpes=8)": "unexpected-keyword",
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
    """README: five files of at most 1,000 lines together, on four short ones."""
    assert sum(map(lines, SMALL)) <= 1000
    assert set().union(*map(imports, SMALL)) <= {*SMALL, *BELOW}
    assert set().union(*map(imports, BELOW)) <= BELOW and sum(map(lines, BELOW)) <= 300
    assert imports("training") >= {"data", "models", "progress"}  # the test can see them


def test_what_a_first_picture_does_not_need_is_read_later():
    """Half a second or more each: scipy's statistics, scikit-learn, torch's compiler, the laboratory's tables, the checks."""
    code = "from ood_helpers import cache, checks, data, lab, losses, models, plotting, polytopes, scores, training, widgets"
    late = {"scipy.stats", "sklearn", "ood_helpers.lab.stored", "ood_helpers.checks.beyond"}
    step = "training.train(models.mlp(n_classes=3), data.TwoGaussians(), losses.reject_loss, steps=1)"
    early = f"{code}\nimport sys\n{step}\nprint(*({late | {'torch._dynamo', 'sympy'}!r} & set(sys.modules)))\n"
    script = f"{early}lab.stored, checks.beyond\nprint(*({late!r} - set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "\n\n"


@pytest.mark.parametrize("package", ["lab", "checks"])
def test_parts_that_are_read_later_are_named_and_no_others(package):
    package = importlib.import_module(f"ood_helpers.{package}")
    assert dir(package) == sorted(package.__all__)
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = package.nothing
