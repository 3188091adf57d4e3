"""Make the reading edition: the course as web pages that need no kernel, no server and no network.

    python tools/make_site.py [--out FOLDER] [--no-demos] [notebook ...]      without arguments: the whole course, into site/

A page shows the outputs that the notebook stores. Formulas are MathML, links lead to other pages, quick questions answer, and the
sliders move: for each `widgets.Demo` the notebook is run once more, and the pictures of its positions are drawn beforehand
(tools/site/demo_pictures.py). `--no-demos` leaves the stored pictures instead and runs nothing.
"""

import argparse
import ast
import base64
import copy
import hashlib
import html
import json
import re
import shutil
import sys
import time
import unicodedata
from dataclasses import dataclass, field
from functools import cached_property
from os.path import relpath
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import jinja2
import nbformat
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat.v4 import new_code_cell, new_output
from pygments.formatters import HtmlFormatter
from run_notebooks import NOTEBOOKS, NotebookFailed, execute

HERE = Path(__file__).parent / "site"
SITE = NOTEBOOKS.parent / "site"
MARK = "application/x-demo-number"
LIVING_MAP = NOTEBOOKS.parent / "ood_helpers" / "widgets" / "living_map.js"
MATHML = "{http://www.w3.org/1998/Math/MathML}"
ElementTree.register_namespace("", MATHML[1:-1])
ASSETS = ("style.css", "page.js")
KINDS = {
    "": "Notebook",
    "further": "Further",
    "exercises": "Exercises",
    "solutions": "Solutions",
}  # folder -> what a link to its pages says


@dataclass
class Page:
    """One notebook and where its page goes.

    url  the page's address below the site's folder, such as "solutions/01_polytopes.html"; its folder is the page's `kind`
    """

    path: Path
    url: str
    headings: list = field(default_factory=list)  # (level, anchor, HTML) of each heading, filled by `dressed`

    @cached_property
    def notebook(self):
        return nbformat.v4.upgrade(nbformat.read(self.path, as_version=4))

    @property
    def name(self):
        return self.path.stem

    @property
    def title(self):
        return plain(re.search(r"^# +(.*)", self.notebook.cells[0].source).group(1))

    @property
    def kind(self):
        return self.url.rpartition("/")[0]


def pages_of(paths):
    """A page for each notebook; those in a folder of KINDS keep it. ValueError for a notebook without a title."""
    pages = []
    for path in paths:
        folder = f"{path.parent.name}/" if path.parent.name in KINDS else ""
        page = Page(path.resolve(), f"{folder}{path.stem}.html")
        if not re.match(r"# ", page.notebook.cells[0].source if page.notebook.cells else ""):
            raise ValueError(f"{path}: the first cell must open with a heading of level 1")
        pages.append(page)
    return pages


def course():
    """The notebooks of the course, then what goes further, exercises and solutions."""
    return [path for folder in KINDS for path in sorted((NOTEBOOKS / folder).glob("[0-9][0-9]_*.ipynb"))]


# --- text -----------------------------------------------------------------------------------------------------------------


def plain(text):
    """Markdown of one line without its marks."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"\\([*_])", r"\1", re.sub(r"(?<!\\)[*`]", "", text)).strip()


def anchor_of(text):
    """The anchor of a heading, or of a link to it: its words, joined by hyphens."""
    return "-".join(re.findall(r"\w+", unquote(text).lower()))


def formula(tex, display):
    """A formula as MathML, which browsers draw by themselves. ValueError names a formula that cannot be converted."""
    try:
        mathml = convert(tex.strip(), display=display)
    except Exception as error:
        raise ValueError(f"the formula {tex.strip()!r} cannot be converted: {error!r}") from error
    if "\\" in re.sub(r"<[^>]*>", "", mathml):
        raise ValueError(f"the formula {tex.strip()!r} has a command that cannot be converted: {mathml}")
    return mended(mathml, display, tex.strip())


def mended(mathml, display, tex):
    """MathML closer to what TeX draws: arrows are operators, bars stand close, log has a space, min and max have limits below."""
    root = ElementTree.fromstring(mathml)
    root.set("alttext", tex)
    for element in root.iter():
        tag = element.tag.removeprefix(MATHML)
        if tag == "mi" and element.text and unicodedata.category(element.text[0]) == "Sm":
            element.tag = f"{MATHML}mo"
        if tag == "mo" and element.text in ("|", "‖"):
            element.set("lspace", "0")
            element.set("rspace", "0")
        if display == "block" and tag == "msub" and element[0].text in ("min", "max"):
            element.tag = f"{MATHML}munder"
        for at in reversed([n for n, child in enumerate(element) if child.text == "log"]):
            element.insert(at + 1, ElementTree.Element(f"{MATHML}mspace", width="0.17em"))
    return ElementTree.tostring(root, encoding="unicode")


class Renderer(IPythonRenderer):
    """Markdown to HTML as JupyterLab shows it, with MathML, with headings noted, and with links led by `lead`.

    lead  address in the notebook -> address on the site, or None where there is no such page: then the words stay without a link
    """

    def __init__(self, lead):
        super().__init__(escape=False)
        self.lead, self.headings = lead, []

    def block_math(self, body):
        return formula(body, "block")

    def inline_math(self, body):
        return formula(body, "inline")

    def latex_environment(self, name, body):
        return formula(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")

    def heading(self, text, level, **attrs):
        anchor = anchor_of(html.unescape(re.sub(r"<[^>]*>", "", text)))
        self.headings.append((level, anchor, text))
        link = f'<a class="anchor" href="#{anchor}" aria-label="link to this section">#</a>'
        return f'<h{level} id="{anchor}">{text} {link}</h{level}>\n'

    def link(self, text, url, title=None):
        url = self.lead(url)
        return text if url is None else super().link(text, url, title)


class Text:
    """The markdown of one page: `html(source)` for whole cells, `inline(source)` for a few words."""

    def __init__(self, page, pages):
        self.page = page
        self.targets = {p.path: p.url for p in pages}
        self.renderer = Renderer(self.lead)
        self.markdown = MarkdownWithMath(renderer=self.renderer)

    def html(self, source):
        return self.markdown.render(source)

    def inline(self, source):
        return re.sub(r"^<p>(.*)</p>$", r"\1", self.html(source).strip(), flags=re.DOTALL)

    def lead(self, url):
        if re.match(r"[a-z]+:", url):
            return url
        path, _, anchor = url.partition("#")
        anchor = f"#{anchor_of(anchor)}" if anchor else ""
        if not path:
            return anchor
        target = self.targets.get((self.page.path.parent / unquote(path)).resolve())
        return None if target is None else relpath(target, Path(self.page.url).parent) + anchor


# --- a notebook, dressed for the page -------------------------------------------------------------------------------------


def dressed(page, pages, demos, pictures):
    """A copy of the page's notebook whose cells carry their HTML in metadata.page, ready for the template.

    demos     what `drawn_demos` found: id of a cell -> its demo
    pictures  pictures(name, bytes) stores a picture and returns its address, seen from the page
    """
    notebook, text = copy.deepcopy(page.notebook), Text(page, pages)
    caption = ""
    for number, cell in reversed(list(enumerate(notebook.cells))):
        cell.metadata.page = {}
        if cell.cell_type == "markdown":
            caption = caption_of(cell.source)
        elif cell.cell_type == "code":
            cell.outputs = [as_html(o, text, pictures, f"{page.name}-{number}-{n}", caption) for n, o in enumerate(cell.outputs)]
            dress_widget(cell, number, text, demos.get(cell.id))
    for cell in notebook.cells:  # from top to bottom, so that the headings come in order
        if cell.cell_type == "markdown":
            cell.metadata.page["html"] = text.html(cell.source)
    page.headings[:] = text.renderer.headings
    return notebook


def caption_of(source):
    """The words of the caption with which a markdown cell opens, in italics below a figure; an empty string if it has none."""
    found = re.match(r"\*(?!\*)(.*?[^*])\*(?!\*)", source, re.DOTALL)
    return plain(" ".join(found[1].split())) if found else ""


def as_html(output, text, pictures, name, caption):
    """An output with its markdown converted and its picture stored as a file; other kinds stay as they are."""
    data = output.get("data", {})
    if "image/png" in data:
        words = data.get("text/plain", "")
        words = caption if words.startswith("<") else words
        source = pictures(f"{name}.png", base64.b64decode(data["image/png"]))
        alt = html.escape(words or "A figure; the text around it says what it shows.")
        picture = f'<figure><img src="{source}" alt="{alt}"></figure>'
        return new_output("display_data", data={"text/html": picture})
    if "text/markdown" in data:
        return new_output("display_data", data={"text/html": text.html(data["text/markdown"])})
    return output


def dress_widget(cell, number, text, demo):
    """Put what the page can do itself in place of the outputs of a cell that shows a widget."""
    call = re.search(r"widgets\.(Demo|Live|Question|LivingMap|Painting|World)\(", cell.source)
    if call is None:
        return
    if call[1] == "Question" and (asked := question(cell.source)):
        cell.outputs = [new_output("display_data", data={"text/html": question_html(number, *asked, text, cell.outputs)})]
        cell.metadata.page["hide_code"] = True  # it holds the answers
    elif call[1] in ("Demo", "LivingMap") and demo:
        cell.outputs = [new_output("display_data", data={"text/html": demo_html(number, demo)})]
    elif cell.outputs:
        said = {"Live": "a training that runs while you watch", "Painting": "a map to paint in"}
        said["World"] = "a world to paint, and a training that runs while you watch"
        what = said.get(call[1], "live: its controls move this picture")
        note = f'<p class="note">In the notebook this is {what}.</p>'
        cell.outputs.append(new_output("display_data", data={"text/html": note}))


def question(source):
    """(question, answers, right) of a cell that makes a `widgets.Question` of literals; None if they are not literals."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "widgets.Question":
            try:
                given = [ast.literal_eval(a) for a in node.args] + [ast.literal_eval(k.value) for k in node.keywords]
            except ValueError:
                return None
            return given if len(given) == 3 else None
    return None


def question_html(number, asked, answers, right, text, stored):
    """A quick question as radio buttons, each with what is said to whoever chooses it."""
    marked = [(choice, "✓ Right." if choice == right else "✗ No.", text.inline(why)) for choice, why in answers.items()]
    fallback = "".join(output.data["text/html"] for output in stored if "text/html" in output.get("data", {}))
    return part("question", name=f"question-{number}", question=text.inline(asked), answers=marked, stored=fallback)


def demo_html(number, demo):
    """A demo as `demo_pictures` has drawn and described it, at its first position; or a living map, which the page draws."""
    if "map" in demo:
        return part("map", **demo)
    first = demo["presets"]["Reset"]
    controls = [control | {"at": at} for control, at in zip(demo["controls"], first, strict=True)]
    file, sentence = demo["positions"]["-".join(map(str, first))]
    return part("demo", **demo | {"name": f"demo-{number}", "controls": controls, "file": file, "sentence": sentence})


def part(template, /, **values):
    """A piece of HTML from a template in tools/site/parts."""
    folder = jinja2.FileSystemLoader(HERE / "parts")
    environment = jinja2.Environment(loader=folder, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(f"{template}.html.j2").render(values)


# --- the demos of a notebook ----------------------------------------------------------------------------------------------


def key_of(notebook):
    """A fingerprint of a notebook's code: demos drawn for other code are not shown."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


def draw_demos(page, folder):
    """Run the page's notebook in a kernel, and draw its demos into `folder`; nothing to do where the code shows none.

    Raises NotebookFailed when a cell fails, as `run_notebooks` does.
    """
    shutil.rmtree(folder, ignore_errors=True)
    if not any(re.search(r"widgets\.(Demo|LivingMap)\(", cell.source) for cell in page.notebook.cells):
        return
    notebook = copy.deepcopy(page.notebook)
    begin = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); import demo_pictures; sys.path.pop(0); demo_pictures.watch(); del sys"
    )
    end = f"__import__('demo_pictures').save({str(folder.resolve())!r})"
    notebook.cells = [new_code_cell(begin), *notebook.cells, new_code_cell(end)]
    execute(notebook, page.path.parent)
    drawn = json.loads((folder / "demos.json").read_text(encoding="utf-8"))
    by_cell = {
        cell.id: drawn[int(output.data[MARK])]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if MARK in output.get("data", {})
    }
    (folder / "demos.json").write_text(
        json.dumps({"key": key_of(page.notebook), "demos": by_cell}, ensure_ascii=False), encoding="utf-8"
    )


def drawn_demos(page, folder, seen_from):
    """id of a cell -> its demo as drawn into `folder` for this very code, with the folder's address seen from a page's folder."""
    file = folder / "demos.json"
    stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if stored.get("key") != key_of(page.notebook):
        return {}
    return {cell: demo | {"folder": relpath(folder, seen_from)} for cell, demo in stored["demos"].items()}


# --- the site -------------------------------------------------------------------------------------------------------------


def exporter(template, kind=HTMLExporter):
    """An exporter of nbconvert with one of our templates: no MathJax, no require.js, nothing that is fetched."""
    return kind(template_name=template, extra_template_basedirs=[str(HERE)])


def store(folder, seen_from):
    """A function that writes a picture into `folder` and returns its address, seen from the folder of a page."""

    def pictures(name, content):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        return relpath(folder / name, seen_from)

    return pictures


def beside(page, pages):
    """The page before and the page after, among those of the same kind; None at the ends."""
    row = [p for p in pages if p.kind == page.kind]
    at = row.index(page)
    return (row[at - 1] if at else None), (row[at + 1] if at + 1 < len(row) else None)


def navigation(page, pages):
    """(label, address, relation) of the links at the top and the bottom of a page."""
    here = Path(page.url).parent
    before, after = beside(page, pages)
    links = [("Contents", relpath("index.html", here), "up")]
    partners = [p for p in pages if p.name == page.name and p.kind != page.kind]
    links += [(KINDS[p.kind], relpath(p.url, here), "related") for p in partners]
    links += [(f"← {short(before)}", relpath(before.url, here), "prev")] if before else []
    links += [(f"{short(after)} →", relpath(after.url, here), "next")] if after else []
    return links


def short(page):
    """A page's number and the words of its title before the colon."""
    number = re.match(r"\d+", page.name)
    words = re.sub(r"^(Exercises|Solutions|Further): ", "", page.title).partition(":")[0]
    return f"{number[0]} {words}" if number else words


def write_page(page, pages, out):
    """Write one page and its stored pictures."""
    target = out / page.url
    target.parent.mkdir(parents=True, exist_ok=True)
    demos = drawn_demos(page, out / "demos" / page.name, target.parent) if not page.kind else {}
    folder = out / "pictures" / Path(page.url).with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    notebook = dressed(page, pages, demos, store(folder, target.parent))
    root = relpath(".", Path(page.url).parent)
    resources = {
        "page": {
            "title": page.title,
            "root": root,
            "navigation": navigation(page, pages),
            "contents": [h for h in page.headings if h[0] in (2, 3)],
            "file": page.path.name,
        }
    }
    target.write_text(exporter("page").from_notebook_node(notebook, resources)[0], encoding="utf-8")


def write_index(pages, out):
    """Write index.html: what the course is, and a table of its pages."""
    rows = []
    for page in pages:
        if page.kind:
            continue
        words, _, asks = page.title.partition(": ")
        opening = "\n\n".join(cell.source for cell in page.notebook.cells if cell.cell_type == "markdown")
        rows.append(
            {
                "number": (re.match(r"\d+", page.name) or [""])[0],
                "url": page.url,
                "words": words,
                "question": asks[:1].upper() + asks[1:],
                "minutes": found(r"\*\*Time:\*\* (\d+) minutes", opening),
                "paper": found(r"\*\*Paper:\*\* ([^*\n]*?)\.?(?: of \*.*)?$", opening),
                "more": [(KINDS[p.kind].lower(), p.url) for p in pages if p.name == page.name and p.kind],
                "slides": f"slides/{page.name}.html" if (out / "slides" / f"{page.name}.html").exists() else "",
            }
        )
    (out / "index.html").write_text(part("contents", rows=rows), encoding="utf-8")


def found(pattern, text):
    match = re.search(pattern, text, re.MULTILINE)
    return plain(match[1]) if match else ""


def write_assets(out):
    """Write the style and the script that all pages share."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ASSETS:
        shutil.copyfile(HERE / name, out / name)
    module = LIVING_MAP.read_text(encoding="utf-8").replace("export default {", "window.oodMap = {")  # a file may load no module
    (out / "living_map.js").write_text(f"(() => {{\n{module}\n}})();\n", encoding="utf-8")
    light, dark = (HtmlFormatter(style=style).get_style_defs(".highlight") for style in ("friendly", "github-dark"))
    (out / "code.css").write_text(f"{light}\n@media screen and (prefers-color-scheme: dark) {{\n{dark}\n}}\n", encoding="utf-8")


def size_of(folder):
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main(arguments=None):
    """Make the pages of the notebooks named in `arguments`; returns the exit code: 1 when a notebook failed."""
    parser = argparse.ArgumentParser(description="Make the reading edition of the course.")
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks; default: the whole course")
    parser.add_argument("--out", type=Path, default=SITE, help="the folder to write, default: site/")
    parser.add_argument("--no-demos", action="store_true", help="run nothing: demos show their stored picture")
    options = parser.parse_args(arguments)
    pages, out, failed = pages_of(options.paths or course()), options.out, 0
    write_assets(out)
    for page in pages:
        start, folder = time.perf_counter(), out / "demos" / page.name
        try:
            if options.no_demos:
                shutil.rmtree(folder, ignore_errors=True)
            elif not page.kind:
                draw_demos(page, folder)
            write_page(page, pages, out)
        except (NotebookFailed, ValueError) as error:
            failed += 1
            print(f"{page.name}: FAILED: {error}", file=sys.stderr)
            continue
        demos = f", demos {size_of(folder) / 1000:.0f} kB" if folder.exists() and not page.kind else ""
        print(
            f"{page.url}: {time.perf_counter() - start:.1f} s, {(out / page.url).stat().st_size / 1000:.0f} kB{demos}", flush=True
        )
    write_index(pages, out)
    print(f"{out / 'index.html'}: {len(pages) - failed} pages, {size_of(out) / 1e6:.1f} MB")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
