"""Make the exercises of every notebook, and their solutions, from one source each.

    python tools/make_exercises.py        writes notebooks/NN_name.ipynb (its exercises) and notebooks/solutions/NN_name.ipynb

A source is tools/exercises/NN_name.md. After a first block of imports (`python setup`) each exercise is

    ## A title
    The question.
    ```python stub             what the reader starts from; it must run
    ```python check            one expression that judges it
    Hint: any number of these, folded away
    ```python solution         what to write in place of the stub
    Why: what is to be learnt
    ```python wrong "fragment" a common wrong answer; the fragment is in what the check says about it

`make notebooks` then stores the outputs. tests/test_exercises.py runs every stub, solution and wrong answer through its check.
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from run_notebooks import METADATA, NOTEBOOKS, write

SOURCES = Path(__file__).parent / "exercises"
FENCE = re.compile(r"^```python (stub|check|solution|wrong|setup)(?: \"([^\"\n]*)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TAG = "exercise"


@dataclass
class Exercise:
    """One exercise; `wrong` holds pairs (code, fragment of the diagnosis)."""

    title: str
    question: str = ""
    stub: str = ""
    check: str = ""
    solution: str = ""
    why: str = ""
    hints: list = field(default_factory=list)
    wrong: list = field(default_factory=list)


def parse(text):
    """(setup, [Exercise, …]) of a source. ValueError says what is missing from which exercise."""
    head, *parts = re.split(r"^## +", text, flags=re.MULTILINE)
    setup = FENCE.search(head)
    if setup is None:
        raise ValueError("the source must open with a block ```python setup")
    return setup[3].strip(), [_exercise(*part.split("\n", 1)) for part in parts]


def _exercise(title, body):
    exercise = Exercise(title.strip())
    for kind, fragment, code in FENCE.findall(body):
        if kind == "wrong":
            exercise.wrong.append((code.strip(), fragment))
        else:
            setattr(exercise, kind, code.strip())
    exercise.question = body.split("```python", 1)[0].strip()
    paragraphs = [p.strip() for p in re.split(r"\n{2,}", FENCE.sub("\n\n", body))]
    exercise.hints = [p.removeprefix("Hint:").strip() for p in paragraphs if p.startswith("Hint:")]
    exercise.why = "\n\n".join(p.removeprefix("Why:").strip() for p in paragraphs if p.startswith("Why:"))
    for part in ("question", "stub", "check", "solution", "why", "hints", "wrong"):
        if not getattr(exercise, part):
            raise ValueError(f"exercise {exercise.title!r} has no {part}")
    return exercise


def judged(setup, answer, check):
    """The verdict of `check` on the code `answer`."""
    names = {}
    exec(f"{setup}\n{answer}", names)
    return eval(check, names)


def checked(answer, check):
    """An answer and its check as the source of one cell."""
    gap = "\n\n\n" if answer.rpartition("\n")[2].startswith((" ", "def")) else "\n\n"
    return answer + gap + check


def exercise_cells(setup, exercises, name):
    """The section "Exercises" of a notebook, as cells."""
    intro = f"""## Exercises

Each cell below runs as it stands and says that nothing is answered yet. Put your answer in place of `...`, run the cell
again, and it says what is right or wrong. Solutions and common mistakes: [solutions/{name}](solutions/{name}.ipynb)."""
    cells = [new_markdown_cell(intro), new_code_cell(setup)]
    for n, e in enumerate(exercises, 1):
        hints = "".join(f"\n\n<details><summary>Hint</summary>\n\n{hint}\n\n</details>" for hint in e.hints)
        cells += [
            new_markdown_cell(f"### Exercise {n}: {e.title}\n\n{e.question}{hints}"),
            new_code_cell(checked(e.stub, e.check)),
        ]
    for n, cell in enumerate(cells):
        cell.metadata["tags"] = [TAG]
        cell.id = f"exercise-{n}"
    return cells


def with_exercises(notebook, cells):
    """The cells of `notebook` with `cells` in place of its present exercises, before the summary."""
    kept = [cell for cell in notebook.cells if TAG not in cell.metadata.get("tags", [])]
    (at,) = [
        i for i, cell in enumerate(kept) if cell.cell_type == "markdown" and re.search(r"^## Summary", cell.source, re.MULTILINE)
    ]
    before, _, summary = kept[at].source.rpartition("## Summary")
    if before.strip():
        closing = new_markdown_cell("## Summary" + summary, id=f"{kept[at].id}-summary")
        kept[at].source = before.strip()
        kept.insert(at + 1, closing)
        at += 1
    return [*kept[:at], *cells, *kept[at:]]


def solutions(setup, exercises, name, title):
    """The notebook of solutions."""
    cells = [
        new_markdown_cell(f"# Solutions: {title}\n\nTo the exercises of [{name}](../{name}.ipynb). Try them there first."),
        new_code_cell(setup),
    ]
    for n, e in enumerate(exercises, 1):
        mistakes = "\n\n".join(f"```python\n{code}\n```\n\n{judged(setup, code, e.check)!r}" for code, _ in e.wrong)
        cells += [
            new_markdown_cell(f"## Exercise {n}: {e.title}\n\n{e.question}"),
            new_code_cell(checked(e.solution, e.check)),
            new_markdown_cell(
                f"**Why.** {e.why}\n\n<details><summary>Common wrong answers</summary>\n\n{mistakes}\n\n</details>"
            ),
        ]
    for n, cell in enumerate(cells):
        cell.id = f"solution-{n}"
    return new_notebook(cells=cells, metadata=METADATA)


def sources(notebook):
    """Kind and source of every cell: what tells one notebook from another, outputs aside."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def made(path):
    """(notebook, solutions) as they should be, of the source at `path`, and where each belongs."""
    name, (setup, exercises) = path.stem, parse(path.read_text(encoding="utf-8"))
    course, answers = NOTEBOOKS / f"{name}.ipynb", NOTEBOOKS / "solutions" / f"{name}.ipynb"
    notebook = nbformat.read(course, as_version=4)
    title = notebook.cells[0].source.splitlines()[0].removeprefix("# ")
    notebook.cells = with_exercises(notebook, exercise_cells(setup, exercises, name))
    return {course: notebook, answers: solutions(setup, exercises, name, title)}


def main():
    """Write what differs from its source, and say which notebooks must be run again."""
    (NOTEBOOKS / "solutions").mkdir(exist_ok=True)
    for path in sorted(SOURCES.glob("*.md")):
        for target, notebook in made(path).items():
            if target.exists() and sources(nbformat.read(target, as_version=4)) == sources(notebook):
                continue
            write(notebook, target)
            print(f"{target.relative_to(NOTEBOOKS)} is new: run it with tools/run_notebooks.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
