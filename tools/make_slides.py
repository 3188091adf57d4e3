"""Make a talk of every notebook: reveal.js slides of chosen cells and paragraphs, without network.

    python tools/make_slides.py [--out FOLDER] [notebook ...]     into site/slides/; without arguments: every talk
    python tools/make_slides.py --mark                            write the choice into the notebooks' cell metadata

tools/slides.toml says what is shown. A figure comes from the stored outputs, without its code; a demo moves where `make site` has
drawn it before. reveal.js is the copy in tools/site/reveal (its npm package 5.2.1, MIT). With the marks in the notebooks,
nbconvert's own `jupyter nbconvert --to slides --no-input NOTEBOOK` shows the same cells, whole, with reveal.js from the network.
"""

import argparse
import re
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import nbformat
from make_site import HERE, SITE, Page, course, drawn_demos, dressed, exporter, pages_of, store, write_assets, write_index
from nbconvert import SlidesExporter
from nbformat.v4 import new_markdown_cell, new_notebook
from run_notebooks import NOTEBOOKS, write

OUTLINES = Path(__file__).parent / "slides.toml"
KINDS = ("slide", "subslide", "fragment", "+")
ASSETS = ("talk.css", "talk.js", "reveal/reveal.js", "reveal/reveal.css", "reveal/LICENSE")


@dataclass
class Line:
    """One line of an outline: how it is shown, and what.

    kind    slide (a new one), subslide (below the one before), fragment (same slide, at the next key), + (same slide, at once)
    target  "@id" for the outputs of the code cell id, "@id code" with its code, or else the words with which a paragraph begins
    """

    kind: str
    target: str


def outlines():
    """name of a notebook -> its outline, a list of lines. ValueError names a line that cannot be read."""
    found = {}
    for name, text in tomllib.loads(OUTLINES.read_text(encoding="utf-8")).items():
        lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
        if bad := [line for line in lines if len(line) != 2 or line[0] not in KINDS]:
            raise ValueError(f"{name}: each line must be one of {', '.join(KINDS)} and what to show; got {' '.join(bad[0])!r}")
        found[name] = [Line(kind, target.strip()) for kind, target in lines]
    return found


def paragraphs(cell):
    """The paragraphs of a markdown cell: what stands between empty lines."""
    return [p.strip() for p in re.split(r"\n\s*\n", cell.source) if p.strip()] if cell.cell_type == "markdown" else []


def place(notebook, line):
    """(number of the cell, paragraph or None) that a line of an outline means. ValueError if there is none, or more than one."""
    name = line.target.removeprefix("@").split()[0]
    if line.target.startswith("@"):
        found = [(n, None) for n, cell in enumerate(notebook.cells) if cell.id == name and cell.cell_type == "code"]
    else:
        every = [(n, p) for n, cell in enumerate(notebook.cells) for p in paragraphs(cell)]
        found = [(n, p) for n, p in every if re.match(rf"{re.escape(line.target)}(?!\w)", p)]
    if len(found) != 1:
        raise ValueError(f"{line.target!r} should be in one place of the notebook; it is in {len(found)}")
    return found[0]


def talk(notebook, outline):
    """A notebook of the lines of an outline alone, each with nbconvert's slideshow metadata."""
    cells = []
    for line in outline:
        number, paragraph = place(notebook, line)
        cell = nbformat.from_dict(notebook.cells[number]) if paragraph is None else new_markdown_cell(paragraph)
        cell.metadata["slideshow"] = {"slide_type": "-" if line.kind == "+" else line.kind}
        cell.metadata["with_code"] = line.target.endswith(" code")
        cells.append(cell)
    return new_notebook(cells=cells)


def marks(notebook, outline):
    """The slide type of every cell: that of the first line that takes something from it, and skip where no line does."""
    types = ["skip"] * len(notebook.cells)
    for line in reversed(outline):
        types[place(notebook, line)[0]] = "-" if line.kind == "+" else line.kind
    return types


def mark(path):
    """Write the slide types into the cell metadata of the notebook at `path`; the rest of the file stays as it is."""
    notebook = nbformat.read(path, as_version=4)
    for cell, kind in zip(notebook.cells, marks(notebook, outlines()[path.stem]), strict=True):
        cell.metadata["slideshow"] = {"slide_type": kind}
    write(notebook, path)


def write_talk(page, outline, out, demos_of=None):
    """Write the slides of one notebook into the folder `out`; returns their number.

    demos_of  the folder in which `make_site` has drawn demos
    """
    demos = drawn_demos(page, demos_of, out) if demos_of else {}
    folder = out / "pictures" / page.name
    shutil.rmtree(folder, ignore_errors=True)
    told = Page(page.path, page.url)
    told.notebook = talk(page.notebook, outline)
    notebook = dressed(told, [], demos, store(folder, out))
    for cell in notebook.cells:
        cell.metadata.page["hide_code"] = not cell.metadata.with_code
    resources = {"page": {"title": page.title}}
    (out / page.url).write_text(exporter("talk", SlidesExporter).from_notebook_node(notebook, resources)[0], encoding="utf-8")
    return sum(line.kind in ("slide", "subslide") for line in outline)


def main(arguments=None):
    """Make the slides of the notebooks named in `arguments`, or mark them; returns the exit code: 1 when a talk failed."""
    parser = argparse.ArgumentParser(description="Make slides of the course.")
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks; default: all that tools/slides.toml has")
    parser.add_argument("--out", type=Path, default=SITE / "slides", help="the folder to write, default: site/slides/")
    parser.add_argument("--mark", action="store_true", help="write the slide types into the notebooks, make no slides")
    options = parser.parse_args(arguments)
    every = outlines()
    paths, out, failed = options.paths or [NOTEBOOKS / f"{name}.ipynb" for name in every], options.out, 0
    if not options.mark:
        write_assets(out)
        for name in ASSETS:
            shutil.copyfile(HERE / name, out / Path(name).name)
    for path in paths:
        try:
            if options.mark:
                mark(path)
                print(f"{path.name}: marked")
            else:
                (page,) = pages_of([path])
                count = write_talk(page, every[path.stem], out, out.parent / "demos" / page.name)
                print(f"{page.url}: {count} slides")
        except (ValueError, KeyError) as error:
            failed += 1
            print(f"{path.name}: FAILED: {error}", file=sys.stderr)
    if not options.mark and (out.parent / "index.html").exists():
        write_index([p for p in pages_of(course()) if (out.parent / p.url).exists()], out.parent)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
