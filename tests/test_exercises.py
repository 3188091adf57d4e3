"""Every stub is told that it is open, every solution passes, and every common wrong answer gets its own diagnosis."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

from ood_helpers.checks.answers import OPEN, RIGHT, WRONG

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import make_exercises

SOURCES = sorted(make_exercises.SOURCES.glob("*.md"))
SHEETS = {path: make_exercises.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
EXERCISES = [
    pytest.param(path, setup, exercise, id=f"{path.stem[:2]}-{n}")
    for path, (setup, exercises) in SHEETS.items()
    for n, exercise in enumerate(exercises, 1)
]


def test_every_notebook_has_three_to_five_exercises():
    course = [path.stem for path in sorted(make_exercises.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))]
    assert [path.stem for path in SOURCES] == course
    assert {path.stem: len(exercises) for path, (_, exercises) in SHEETS.items() if not 3 <= len(exercises) <= 5} == {}


@pytest.mark.parametrize("path, setup, exercise", EXERCISES)
def test_a_stub_is_open_and_a_solution_passes(path, setup, exercise):
    open_, right = (make_exercises.judged(setup, code, exercise.check) for code in (exercise.stub, exercise.solution))
    assert (open_.mark, bool(open_)) == (OPEN, False) and "Not answered yet" in repr(open_), open_
    assert (right.mark, bool(right)) == (RIGHT, True), right


@pytest.mark.parametrize("path, setup, exercise", EXERCISES)
def test_wrong_answers_get_their_own_diagnosis_and_the_passage(path, setup, exercise):
    sections = re.findall(r"^## (\d+) ", text_of(make_exercises.NOTEBOOKS / f"{path.stem}.ipynb"), re.MULTILINE)
    said = [make_exercises.judged(setup, code, exercise.check) for code, _ in exercise.wrong]
    for verdict, (_, fragment) in zip(said, exercise.wrong, strict=True):
        assert verdict.mark == WRONG and fragment in verdict.message, verdict
        assert (place := re.search(r"See section (\d+)", verdict.message)) and place[1] in sections, verdict
    assert len({verdict.message for verdict in said}) == len(said) >= 2


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_notebooks_hold_what_their_source_says(path):
    for target, notebook in make_exercises.made(path).items():
        stored = nbformat.read(target, as_version=4)
        assert make_exercises.sources(stored) == make_exercises.sources(notebook), f"run tools/make_exercises.py: {target.name}"


def text_of(path):
    return "\n\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")


# --- the tool itself ------------------------------------------------------------------------------------------------------------

GOOD = """
```python setup
x = 1
```

## One

Minutes: 7

How much?

```python stub
y = ...
```

```python check
y == x
```

Hint: More than none.

```python solution
y = 1
```

Why: Because.

```python wrong "too much"
y = 2
```
"""


def test_a_source_is_read_part_by_part():
    setup, (exercise,) = make_exercises.parse(GOOD)
    assert (setup, exercise.title, exercise.question, exercise.stub, exercise.check) == (
        "x = 1",
        "One",
        "How much?",
        "y = ...",
        "y == x",
    )
    assert (exercise.hints, exercise.solution, exercise.why) == (["More than none."], "y = 1", "Because.")
    assert exercise.wrong == [("y = 2", "too much")]
    assert make_exercises.judged(setup, exercise.solution, exercise.check) is True


@pytest.mark.parametrize(
    "part", ["Minutes: 7", "Hint: More than none.", "Why: Because.", "How much?", "```python stub\ny = ...\n```"]
)
def test_a_missing_part_is_named(part):
    with pytest.raises(ValueError, match=r"'One' has no (minutes|hints|why|question|stub)"):
        make_exercises.parse(GOOD.replace(part, ""))


def test_a_sheet_opens_with_its_minutes_and_folds_its_hints():
    opening, setup, question, stub = make_exercises.sheet(*make_exercises.parse(GOOD), "01_x", "X: why?").cells
    assert opening.source.startswith("# Exercises: X: why?") and "about 7 minutes" in opening.source
    assert (setup.source, stub.source) == ("x = 1", "y = ...\n\ny == x")
    assert "*7 minutes.* How much?" in question.source and "<details><summary>Hint</summary>" in question.source


def test_every_notebook_leads_to_its_exercises():
    for path in SOURCES:
        assert f"](exercises/{path.stem}.ipynb)" in text_of(make_exercises.NOTEBOOKS / f"{path.stem}.ipynb")
