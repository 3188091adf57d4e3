"""INSTRUCTOR.md keeps to the notebooks: sections, minutes, presets, exercises, links, and names of the package.

The first tests hold the page to them; the last ones show on bad pages that each rule notices what it is for.
"""

import ast
import contextlib
import functools
import importlib
import re
import tomllib
from pathlib import Path

import make_exercises
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "INSTRUCTOR.md").read_text(encoding="utf-8")
NOTEBOOKS = {path.name[:2]: path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))}
OUTLINES = tomllib.loads((ROOT / "tools" / "slides.toml").read_text(encoding="utf-8"))
MODULES = {path.stem for path in (ROOT / "ood_helpers").iterdir() if path.suffix == ".py" or path.is_dir()}


@functools.cache
def cells(number, kind):
    """The sources of a notebook's cells, "code" or "markdown"."""
    return [cell.source for cell in nbformat.read(NOTEBOOKS[number], as_version=4).cells if cell.cell_type == kind]


@functools.cache
def presets(number):
    """The names on the buttons of a notebook's demos: what its cells call `presets`, or hand on by this name."""
    found = {"Reset"}
    for source in cells(number, "code"):
        tree, names = ast.parse(source), {}
        for statement in tree.body if "presets" in source else []:
            with contextlib.suppress(NameError):  # what does not make presets needs the package
                exec(ast.unparse(statement) if isinstance(statement, ast.Assign) else "", names)
        nodes = list(ast.walk(tree))
        handed = [node.value for node in nodes if isinstance(node, ast.keyword) and node.arg == "presets"]
        handed += [node.value for node in nodes if isinstance(node, ast.AugAssign) and ast.unparse(node.target) == "presets"]
        found |= set(names.get("presets", ())).union(*([key.value for key in d.keys] for d in handed if isinstance(d, ast.Dict)))
    return found


@functools.cache
def sections(number):
    """The numbers of a notebook's sections."""
    return set(re.findall(r"^## (\d+) ", "\n".join(cells(number, "markdown")), flags=re.MULTILINE))


def page_of(text, number):
    """What the page says about one notebook, or ''."""
    found = re.search(rf"^### \[{number} .*?\]\(notebooks/{NOTEBOOKS[number].name}\)\n(.*?)(?=^##|\Z)", text, flags=re.M | re.S)
    return found[1] if found else ""


def parts(text):
    """(numbers of notebooks, lines) of all that speaks of notebooks: their pages, and the rows of the routes."""
    for number in NOTEBOOKS:
        yield [number], page_of(text, number)
    for row in re.findall(r"^\| \d+–\d+ \|.*$", text, flags=re.M):
        yield re.findall(r"\b([01]\d)\b", row.split("|")[2]), row


def check_notebooks(text):
    """Every notebook has a page, with the minutes of its sections and its exercises."""
    for number in NOTEBOOKS:
        page = page_of(text, number)
        if "**Take home.**" not in page or "From the floor." not in page:
            yield f"notebook {number} has no page, or one without its parts"
            continue
        rows = re.findall(r"^\| (\d+) \| (\d+) \|", page, flags=re.M)
        (stated,) = re.findall(r"\*\*Time:\*\* (\d+) minutes", "\n".join(cells(number, "markdown")))
        if {section for section, _ in rows} != sections(number):
            yield f"notebook {number}: sections {[section for section, _ in rows]}, not {sorted(sections(number))}"
        if (total := sum(int(minutes) for _, minutes in rows)) != int(stated):
            yield f"notebook {number}: the minutes of its sections add up to {total}, the notebook says {stated}"


def check_exercises(text):
    """Every exercise of a notebook is on its page, with its number, title and minutes."""
    for path in sorted(make_exercises.SOURCES.glob("*.md")):
        _, exercises = make_exercises.parse(path.read_text(encoding="utf-8"))
        wanted = [(f"{n} {e.title}".replace("\\", ""), str(e.minutes)) for n, e in enumerate(exercises, 1)]
        found = re.findall(r"^\| (\d .*?) \| (?:predict|compute|code) \| (\d+) \|", page_of(text, path.stem[:2]), flags=re.M)
        if [(title.replace("\\", ""), minutes) for title, minutes in found] != wanted:
            yield f"notebook {path.stem[:2]}: exercises {found}, not {wanted}"


def check_presets(text):
    """Every `[preset]` is a button of the notebook that is spoken of."""
    for numbers, part in parts(text):
        for name in re.findall(r"`\[([^`]+)\]`", part):
            if not any(name in presets(number) for number in numbers):
                yield f"there is no preset [{name}] in {', '.join(numbers) or 'no notebook'}"


def check_places(text):
    """Every row of a route and every "NN §n" names a section that is there; a notebook's own page may say §n alone."""
    for place in re.findall(r"\b[01]\d (?:§\d+(?:, | to | and )?)+", text):
        number, *found = re.findall(r"\d+", place)
        yield from (f"notebook {number} has no section {section}" for section in found if section not in sections(number))


def check_routes(text):
    """A route's rows follow each other without a gap, and end when its title says; a tenth of them, at least, is slack."""
    for minutes, route in re.findall(r"^### (\d+) minutes\n(.*?)(?=^##)", text, flags=re.M | re.S):
        clock = [0]
        for start, end in re.findall(r"^\| (\d+)–(\d+) \|", route, flags=re.M):
            if int(start) != clock[-1] or int(end) <= int(start):
                yield f"{minutes} minutes: a row from {start} to {end} follows minute {clock[-1]}"
            clock.append(int(end))
        if clock[-1] != int(minutes):
            yield f"{minutes} minutes: the table ends at {clock[-1]}"
        slack = sum(int(end) - int(start) for start, end in re.findall(r"^\| (\d+)–(\d+) \| slack \|", route, flags=re.M))
        if 10 * slack < int(minutes):
            yield f"{minutes} minutes: {slack} of them are slack, less than a tenth"


def check_slides(text):
    """Every slide that the slide route shows is there."""
    for number, shown in re.findall(r"^\| \d+–\d+ \| (\d\d) \| ([\d–, ]+) \|", text, flags=re.M):
        last = len(re.findall(r"^(?:sub)?slide\b", OUTLINES[NOTEBOOKS[number].stem], flags=re.M))
        if max(map(int, re.findall(r"\d+", shown))) > last:
            yield f"the talk of notebook {number} ends with slide {last}, not {shown}"


def check_links(text):
    """Every link leads to a file of the course."""
    for target in re.findall(r"\]\(([^)#\s]+)\)", text):
        if not target.startswith("http") and not (ROOT / target).exists():
            yield f"{target} is not there"


def check_names(text):
    """Every `module.name` of the package exists."""
    for module, name in re.findall(r"`(\w+)\.([A-Za-z_][\w.]*)`", text):
        if module in MODULES:
            try:
                functools.reduce(getattr, name.split("."), importlib.import_module(f"ood_helpers.{module}"))
            except AttributeError:
                yield f"ood_helpers.{module} has no {name}"


CHECKS = [check_notebooks, check_exercises, check_presets, check_places, check_routes, check_slides, check_links, check_names]


@pytest.mark.parametrize("check", CHECKS)
def test_the_page_keeps_to_the_course(check):
    assert list(check(PAGE)) == []


def test_the_page_has_three_routes_and_enough_to_check():
    assert re.findall(r"^### (\d+) minutes$", PAGE, flags=re.M) == ["50", "90", "180"]
    named = {(number, name) for numbers, part in parts(PAGE) for name in re.findall(r"`\[([^`]+)\]`", part) for number in numbers}
    missing = {(number, name) for number in NOTEBOOKS for name in presets(number) - {"Reset"}} - named
    assert missing == set(), "presets that the page does not mention"


def test_every_rule_notices_what_it_is_for():
    bad = {
        check_notebooks: [
            ("**Take home.**", "Take home."),
            ("| 1 | 6 | four discs", "| 1 | 7 | four discs"),
            ("| 5 | 1 |", "| 9 | 1 |"),
        ],
        check_exercises: [("| 1 Count before you draw |", "| 1 Count after you draw |")],
        check_presets: [("`[Figure 1b]`", "`[Figure 9z]`"), ("`[A thousandth]`", "`[Figure 3c]`")],
        check_places: [("01 §6", "01 §8"), ("11 §3", "11 §8")],
        check_routes: [("| 0–3 |", "| 0–4 |"), ("### 90 minutes", "### 95 minutes"), ("| 45–50 | slack |", "| 45–50 | 03 |")],
        check_slides: [("| 9–22 | 01 | 1–7", "| 9–22 | 01 | 1–21")],
        check_links: [("(README.md)", "(READYOU.md)")],
        check_names: [("`scores.auroc`", "`scores.aurock`")],
    }
    for check, changes in bad.items():
        for old, new in changes:
            assert old in PAGE and list(check(PAGE.replace(old, new, 1))), (check.__name__, old)
