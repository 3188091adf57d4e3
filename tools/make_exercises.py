"""Make the exercises of every notebook, and their solutions, from one source each.

    python tools/make_exercises.py        writes notebooks/exercises/NN_name.ipynb and notebooks/solutions/NN_name.ipynb

A source is tools/exercises/NN_name.md. After a first block of imports (`python setup`) each exercise is

    ## A title
    Minutes: how many, stated honestly
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


@dataclass
class Exercise:
    """One exercise; `wrong` holds pairs (code, fragment of the diagnosis)."""

    title: str
    minutes: int = 0
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
    minutes, exercise.question = re.match(r"\s*(?:Minutes: (\d+)\n)?(.*?)(?:```python|$)", body, re.DOTALL).groups()
    exercise.minutes, exercise.question = int(minutes or 0), exercise.question.strip()
    paragraphs = [p.strip() for p in re.split(r"\n{2,}", FENCE.sub("\n\n", body))]
    exercise.hints = [p.removeprefix("Hint:").strip() for p in paragraphs if p.startswith("Hint:")]
    exercise.why = "\n\n".join(p.removeprefix("Why:").strip() for p in paragraphs if p.startswith("Why:"))
    for part in ("minutes", "question", "stub", "check", "solution", "why", "hints", "wrong"):
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


def sheet(setup, exercises, name, title):
    """The notebook of exercises."""
    minutes = sum(e.minutes for e in exercises)
    opening = f"""# Exercises: {title}

To [{name}](../{name}.ipynb), in about {minutes} minutes. Each cell below runs as it stands and says that nothing is answered yet.
Put your answer in place of `...`, run the cell again, and it says what is right, or what is wrong and which section to read
again. Solutions and common mistakes: [solutions](../solutions/{name}.ipynb)."""
    cells = [new_markdown_cell(opening), new_code_cell(setup)]
    for n, e in enumerate(exercises, 1):
        hints = "".join(f"\n\n<details><summary>Hint</summary>\n\n{hint}\n\n</details>" for hint in e.hints)
        cells += [
            new_markdown_cell(f"## Exercise {n}: {e.title}\n\n*{e.minutes} minutes.* {e.question}{hints}"),
            new_code_cell(checked(e.stub, e.check)),
        ]
    return numbered(cells, "exercise")


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
    return numbered(cells, "solution")


def numbered(cells, kind):
    """A notebook of these cells, each with an id that stays."""
    for n, cell in enumerate(cells):
        cell.id = f"{kind}-{n}"
    return new_notebook(cells=cells, metadata=METADATA)


def sources(notebook):
    """Kind and source of every cell: what tells one notebook from another, outputs aside."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def made(path):
    """The two notebooks that the source at `path` makes, by where they belong."""
    name, (setup, exercises) = path.stem, parse(path.read_text(encoding="utf-8"))
    course = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    title = course.cells[0].source.splitlines()[0].removeprefix("# ")
    return {
        NOTEBOOKS / "exercises" / f"{name}.ipynb": sheet(setup, exercises, name, title),
        NOTEBOOKS / "solutions" / f"{name}.ipynb": solutions(setup, exercises, name, title),
    }


def main():
    """Write what differs from its source, and say which notebooks must be run again."""
    for path in sorted(SOURCES.glob("*.md")):
        for target, notebook in made(path).items():
            target.parent.mkdir(exist_ok=True)
            if target.exists() and sources(nbformat.read(target, as_version=4)) == sources(notebook):
                continue
            write(notebook, target)
            print(f"{target.relative_to(NOTEBOOKS)} is new: run it with tools/run_notebooks.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
