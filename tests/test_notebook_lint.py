"""The rules that every stored notebook keeps. A rule is a small function: notebook in, list of complaints out.

The first tests hold the course's notebooks to the rules; those below show on bad notebooks that each rule notices what it is for.
"""

import ast
import re
from functools import partial
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
STORED = sorted(path for path in NOTEBOOKS.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
COURSE = [path for path in STORED if path.parent == NOTEBOOKS and re.match(r"\d\d_", path.name)]

# what every notebook of the course says somewhere, in any case
PHRASES = ("Objectives", "Prerequisites", "minutes", "Paper:", "Summary", "Where this differs from the paper", "References")
MAX_CODE_LINES = 15
MAX_BYTES = 1_000_000
MAX_PRINTED = 84  # characters that fit in a line at 150 %; longer ones wrap
NETWORK_MODULES = {"urllib", "urllib3", "requests", "http", "httpx", "aiohttp", "socket", "ftplib"}
LOCAL_PATH = re.compile(r"/(?:home|root|tmp|Users)/|[A-Z]:\\\\?Users")


def code_cells(notebook):
    """(number counted from 1, cell) of each code cell that is not empty."""
    return [(n, c) for n, c in enumerate(notebook.cells, 1) if c.cell_type == "code" and c.source.strip()]


def outputs(notebook):
    """(number of the cell counted from 1, output) of each stored output."""
    return [(n, out) for n, c in enumerate(notebook.cells, 1) for out in c.get("outputs", [])]


def markdown(notebook):
    """The markdown cells as one text, without blocks of code, in which # means something else."""
    text = "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def prose(notebook):
    """The markdown without code and formulas, in which brackets are no links."""
    return re.sub(r"\$\$.*?\$\$|`[^`\n]*`|\$[^$\n]*\$", "", markdown(notebook), flags=re.DOTALL)


def headings(notebook):
    """(level, text) of each heading."""
    found = re.findall(r"^(#{1,6}) +(.*)$", markdown(notebook), flags=re.MULTILINE)
    return [(len(marks), text.strip()) for marks, text in found]


def check_run_order(notebook):
    """Execution counts are 1, 2, 3 …: the stored outputs are those of one run from a clean start."""
    counts = [cell.execution_count for _, cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        return [f"execution counts are {counts}, not 1 … {len(counts)}: run it with `make notebooks`"]
    return []


def check_no_errors(notebook):
    """No stored traceback, and nothing on stderr."""
    bad = {"error": "a stored error", "stderr": "a stored stderr"}
    kinds = [(n, out.name if out.output_type == "stream" else out.output_type) for n, out in outputs(notebook)]
    return [f"cell {n} has {bad[kind]}" for n, kind in kinds if kind in bad]


def check_no_widget_state(notebook):
    """No widget that is dead without its kernel."""
    found = ["metadata.widgets is stored"] if "widgets" in notebook.metadata else []
    views = [n for n, out in outputs(notebook) if any("widget-view" in mime for mime in out.get("data", {}))]
    return found + [f"cell {n} holds a widget view" for n in views]


def check_kernel(notebook):
    """The kernel is called python3, which every installation has."""
    name = notebook.metadata.get("kernelspec", {}).get("name")
    return [] if name == "python3" else [f"kernel is {name!r}, not 'python3'"]


def check_headings(notebook):
    """The first cell opens with the only h1; no heading skips a level on the way down."""
    levels = [level for level, _ in headings(notebook)]
    first = notebook.cells[0] if notebook.cells else None
    found = []
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        found.append("the first cell does not open with a heading of level 1")
    if levels.count(1) != 1:
        found.append(f"{levels.count(1)} headings of level 1, not 1")
    for (before, _), (level, text) in pairwise(headings(notebook)):
        if level > before + 1:
            found.append(f"heading {text!r} skips a level")
    return found


def check_cell_length(notebook):
    """Code cells can be read at a glance."""
    lengths = [(n, len(cell.source.strip("\n").splitlines())) for n, cell in code_cells(notebook)]
    return [f"cell {n} has {length} lines, at most {MAX_CODE_LINES}" for n, length in lengths if length > MAX_CODE_LINES]


def check_links(notebook, folder):
    """Every relative link or picture leads to a file, seen from `folder`, and every #anchor to a heading of this notebook."""
    text = prose(notebook)
    targets = re.findall(r"\]\(\s*<?([^)\s>]+)", text) + re.findall(r"""(?:src|href)=["']([^"']+)""", text)
    anchors = {re.sub(r"[*_`]", "", heading).replace(" ", "-").lower() for _, heading in headings(notebook)}
    found = []
    for target in targets:
        path, _, anchor = unquote(target).partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        if path and not (folder / path).exists():
            found.append(f"link to {target}: there is no such file")
        if not path and anchor.lower() not in anchors:
            found.append(f"link to {target}: there is no such heading")
    return found


def check_no_network(notebook):
    """Code reads no address, imports nothing that could, and installs nothing."""
    found = []
    for n, cell in code_cells(notebook):
        if re.search(r"\b(?:https?|ftp)://", cell.source):
            found.append(f"cell {n} holds a network address")
        if re.search(r"\b(?:pip3?|conda|mamba)\s+install\b|^\s*[!%](?:pip|conda|mamba)\b", cell.source, flags=re.MULTILINE):
            found.append(f"cell {n} installs a package")
        found += [f"cell {n} imports {name}" for name in sorted(imported(cell.source) & NETWORK_MODULES)]
    return found


def imported(source):
    """The top-level names of the modules that `source` imports; lines for the notebook itself (! and %) are left out."""
    plain = re.sub(r"^(\s*)[!%].*$", r"\1pass", source, flags=re.MULTILINE)
    names = set()
    for node in ast.walk(ast.parse(plain)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


# what of each widget is called later on: its name as a keyword, and its place among the arguments
CALLED_LATER = {"Demo": [("update", 1)], "Live": [("start", 1), ("draw", 2)], "LivingMap": [("sentence", None)]}


def check_live_names(notebook):
    """What a widget's function reads is not given another meaning by a later cell: after Run All the widget must still work."""
    trees = [(n, ast.parse(re.sub(r"^\s*[!%].*$", "pass", cell.source, flags=re.MULTILINE))) for n, cell in code_cells(notebook)]
    functions, later_calls = {}, []
    for n, tree in trees:
        functions |= {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        later_calls += [(n, name, names_read(node, functions)) for name, node in live_functions(tree, functions)]
    return [
        f"cell {later} gives a new meaning to {name}, which {function} of the demo in cell {n} reads"
        for n, function, names in later_calls
        for later, tree in trees
        for name in sorted(names & names_made(tree))
        if later > n
    ]


def live_functions(tree, functions):
    """(name, its definition) of each function in a cell that a widget calls later on; an argument, or in a dict **look."""
    dicts = {
        target.id: {key.value: value for key, value in zip(node.value.keys, node.value.values, strict=True) if key}
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = []
    for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
        for keyword in call.keywords:
            given |= dicts.get(getattr(keyword.value, "id", ""), {}) if keyword.arg is None else {}
        for name, place in CALLED_LATER.get(getattr(call.func, "attr", ""), []):
            value = call.args[place] if place is not None and place < len(call.args) else given.get(name)
            if isinstance(value, ast.Lambda):
                found.append((name, value))
            elif isinstance(value, ast.Name) and value.id in functions:
                found.append((value.id, functions[value.id]))
    return found


def names_read(function, functions):
    """The global names that a function (its definition) reads, itself or through the functions it calls."""
    read, waiting = set(), [function]
    while waiting:
        nodes = list(ast.walk(waiting.pop()))
        own = {node.arg for node in nodes if isinstance(node, ast.arg)}
        own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        new = {node.id for node in nodes if isinstance(node, ast.Name)} - own - read
        read |= new
        waiting += [functions[name] for name in new & functions.keys()]
    return read


def names_made(tree):
    """The names that a cell gives a meaning to, outside functions and comprehensions; `table |= more` only adds to one."""
    inner = (ast.FunctionDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    made, waiting = set(), list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.BitOr):
            waiting.append(node.value)
            continue
        if isinstance(node, ast.FunctionDef):
            made.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            made.add(node.id)
        if not isinstance(node, inner):
            waiting += ast.iter_child_nodes(node)
    return made


def check_no_local_paths(notebook):
    """No output tells where it was made."""
    found = []
    for n, out in outputs(notebook):
        texts = [out.get("text", "")] + [str(value) for mime, value in out.get("data", {}).items() if not is_picture(mime)]
        found += [f"cell {n} shows a local path: {hit.group()}…" for hit in map(LOCAL_PATH.search, texts) if hit]
    return found


def is_picture(mime):
    """Whether `mime` is stored as base64, in which any letters may stand side by side."""
    return mime.startswith("image/") and mime != "image/svg+xml"


def check_phrases(notebook):
    """The opening and the closing sections are there."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown").lower()
    text = re.sub(r"[*_]", "", text)
    return [f"nowhere says {phrase!r}" for phrase in PHRASES if phrase.lower() not in text]


def check_neighbours(notebook, name, course):
    """The notebook links to the ones before and after it; `course` holds all names in order."""
    place = course.index(name)
    neighbours = course[max(place - 1, 0) : place] + course[place + 1 : place + 2]
    return [f"no link to its neighbour {other}" for other in neighbours if f"]({other}" not in prose(notebook)]


def check_captions(notebook):
    """The next text after a picture has a paragraph in italics: the sentence that says what it shows."""
    found = []
    for n, out in outputs(notebook):
        text = next((cell.source for cell in notebook.cells[n:] if cell.cell_type == "markdown"), "")
        if "image/png" in out.get("data", {}) and not re.search(r"(?:^|\n\n)\*[^*]", text):
            found.append(f"no sentence in italics below the picture of cell {n}")
    return found


def check_questions(notebook):
    """At least three quick questions, each with its code folded away: there stands the answer."""
    asked = [(n, cell) for n, cell in code_cells(notebook) if cell.source.startswith("widgets.Question(")]
    open_ = [n for n, cell in asked if not cell.metadata.get("jupyter", {}).get("source_hidden")]
    few = [f"{len(asked)} quick questions, at least 3"] if len(asked) < 3 else []
    return few + [f"cell {n} shows the answer of its question: fold its code (jupyter.source_hidden)" for n in open_]


def check_size(path):
    """The file is small enough to open fast and to keep in version control."""
    size = path.stat().st_size
    return [f"{size} bytes, at most {MAX_BYTES}"] if size > MAX_BYTES else []


def check_printed_lines(notebook):
    """What is printed does not wrap on a projector; wider tables are shown by `plotting.table`."""
    lines = [(n, len(line.rstrip())) for n, out in outputs(notebook) for line in out.get("text", "").splitlines()]
    return [
        f"cell {n} prints a line of {length} characters, at most {MAX_PRINTED}" for n, length in lines if length > MAX_PRINTED
    ]


RULES = (
    check_captions,
    check_run_order,
    check_no_errors,
    check_no_widget_state,
    check_kernel,
    check_headings,
    check_cell_length,
    check_no_network,
    check_live_names,
    check_no_local_paths,
    check_printed_lines,
)


def short(path):
    return str(path.relative_to(NOTEBOOKS))


@pytest.mark.parametrize("path", STORED, ids=short)
def test_stored_notebook_keeps_the_rules(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    found = [complaint for rule in (*RULES, partial(check_links, folder=path.parent)) for complaint in rule(notebook)]
    found += check_size(path)
    assert not found, "\n".join([short(path), *found])


@pytest.mark.parametrize("path", COURSE, ids=short)
def test_course_notebook_has_its_parts(path):
    notebook = nbformat.read(path, as_version=4)
    found = check_phrases(notebook) + check_questions(notebook)
    found += check_neighbours(notebook, path.name, [other.name for other in COURSE])
    assert not found, "\n".join([short(path), *found])


# --- each rule, shown to notice what it is for -------------------------------------------------------------------------------


def code(source="x = 1", count=1, outputs=()):
    return new_code_cell(source, execution_count=count, outputs=list(outputs))


def notebook_of(*cells, title="# Title", **metadata):
    """A notebook that keeps every rule, and then the given cells (a string is markdown)."""
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}} | metadata
    made = [new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in (title, *cells)]
    return new_notebook(cells=made, metadata=metadata)


def stream(name, text):
    return new_output("stream", name=name, text=text)


def shown(**data):
    return new_output("display_data", data={key.replace("_", "/", 1): value for key, value in data.items()})


DEMO = """
def helper(x):
    return model(x)
def update(beta):
    local = helper(beta)
    ax.plot(local)
widgets.Demo(figure, update, {})
"""
GOOD = notebook_of(
    "## A `part`\n\n[a part](#A-part), $f[x](y)$, [the web](https://example.org)\n\n```\n# no heading\n```\n\n### Deeper",
    code("\n".join(["x = 1"] * 15), 1, [stream("stdout", "fine"), shown(image_png="abc/tmp/def", text_plain="1")]),
    new_code_cell(""),
    "**Try.** Move it.\n\n*What the picture shows.*\n\n## Next",
    code(DEMO, 2),
    code("figure, local = 1, [ax for ax in range(3)]\ndef later(ax):\n    model = ax", 3),
    code("import torch\n%matplotlib inline\nurl = 'a://b'", 4),
)

BAD = [
    (check_run_order, notebook_of(code(count=2)), "not 1 … 1"),
    (check_run_order, notebook_of(code(count=1), code(count=3)), "[1, 3]"),
    (check_run_order, notebook_of(code(count=None)), "[None]"),
    (check_no_errors, notebook_of(code(outputs=[stream("stderr", "careful")])), "cell 2 has a stored stderr"),
    (check_no_errors, notebook_of(code(outputs=[new_output("error", ename="E", evalue="", traceback=[])])), "a stored error"),
    (check_no_widget_state, notebook_of(widgets={}), "metadata.widgets"),
    (
        check_no_widget_state,
        notebook_of(code(outputs=[new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}})])),
        "cell 2 holds a widget view",
    ),
    (check_kernel, notebook_of(kernelspec={"name": "my-env", "display_name": "Mine"}), "'my-env'"),
    (check_kernel, new_notebook(), "None"),
    (check_headings, new_notebook(), "does not open"),
    (check_headings, notebook_of(title="Words\n\n# Title"), "does not open"),
    (check_headings, new_notebook(cells=[code(), new_markdown_cell("# Title")]), "does not open"),
    (check_headings, notebook_of("# Another"), "2 headings of level 1"),
    (check_headings, notebook_of("### Deep"), "'Deep' skips a level"),
    (check_headings, notebook_of("## A", "#### B"), "'B' skips a level"),
    (check_cell_length, notebook_of(code("x = 1\n" * 16)), "cell 2 has 16 lines"),
    (check_no_network, notebook_of(code("read('https://example.org/a.csv')")), "network address"),
    (check_no_network, notebook_of(code("def f():\n    from urllib.request import urlopen")), "imports urllib"),
    (check_no_network, notebook_of(code("import numpy, requests")), "imports requests"),
    (check_no_network, notebook_of(code("%pip install torch")), "installs"),
    (check_no_network, notebook_of(code("!conda install torch")), "installs"),
    (check_no_network, notebook_of(code("run('pip install torch')")), "installs"),
    (check_live_names, notebook_of(code(DEMO), code("figure, (a, ax) = 1, (2, 3)", 2)), "cell 3 gives a new meaning to ax"),
    (check_live_names, notebook_of(code(DEMO), code("for _, model in []:\n    pass", 2)), "meaning to model, which update"),
    *[
        (check_live_names, notebook_of(code(source), code("model = 2", 2)), f"meaning to model, which {name}")
        for source, name in [
            ("def said(k):\n    return f'{model}'\nwidgets.LivingMap(nets, controls, sentence=said)", "said"),
            ("def said(k):\n    return f'{model}'\nlook = {'sentence': said}\nwidgets.LivingMap(nets, **look)", "said"),
            ("widgets.LivingMap(nets, sentence=lambda k: f'{model}')", "sentence"),
            ("def start():\n    return steps(model)\nwidgets.Live(figure, start, draw)", "start"),
            ("def draw(n):\n    return f'{model}'\nwidgets.Live(widgets.LivingMap(learner), start, draw, stop=9)", "draw"),
            ("def draw(n):\n    return f'{model}'\nwidgets.Live(figure, start, draw=draw)", "draw"),
        ]
    ],
    (check_live_names, notebook_of(code(DEMO), code("model += 1", 2)), "meaning to model, which update"),
    (check_no_local_paths, notebook_of(code(outputs=[stream("stdout", "at /home/ada/x")])), "cell 2 shows a local path: /home/"),
    (
        check_printed_lines,
        notebook_of(code(outputs=[stream("stdout", "1\n" + 85 * "x")])),
        "cell 2 prints a line of 85 characters",
    ),
    (check_no_local_paths, notebook_of(code(outputs=[shown(text_plain="/Users/ada")])), "/Users/"),
    (check_no_local_paths, notebook_of(code(outputs=[shown(text_html="<a>/tmp/x</a>")])), "/tmp/"),
    (check_no_local_paths, notebook_of(code(outputs=[shown(text_plain="C:\\Users\\ada")])), "Users"),
    (check_captions, notebook_of(code(outputs=[shown(image_png="abc")])), "picture of cell 2"),
    (check_captions, notebook_of(code(outputs=[shown(image_png="abc")]), "**Why.** Because."), "picture of cell 2"),
    (check_questions, notebook_of(code("widgets.Question('a')")), "1 quick questions, at least 3"),
    (check_questions, notebook_of(code("widgets.Question('a')")), "cell 2 shows the answer"),
    (check_phrases, notebook_of("Objectives, prerequisites"), "'References'"),
]


@pytest.mark.parametrize("rule, notebook, complaint", BAD, ids=[f"{rule.__name__}-{n}" for n, (rule, _, _) in enumerate(BAD)])
def test_rule_notices(rule, notebook, complaint):
    assert any(complaint in found for found in rule(notebook)), rule(notebook)


def test_a_table_that_grows_keeps_its_meaning():
    assert check_live_names(notebook_of(code(DEMO), code("model |= {1: 2}", 2))) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_accepts_a_good_notebook(rule):
    assert rule(GOOD) == []


def test_every_rule_is_shown_to_notice_something():
    assert {rule for rule, _, _ in BAD} == {*RULES, check_phrases, check_questions}


def test_links_are_followed(tmp_path):
    (tmp_path / "there is.png").touch()
    (tmp_path / "other.ipynb").touch()
    good = notebook_of("[a](other.ipynb#Part) ![b](there%20is.png) [c](#Title) [d](https://example.org) <img src='other.ipynb'>")
    assert check_links(good, tmp_path) == check_links(GOOD, tmp_path) == []
    for link in ("[a](none.ipynb)", "![a](none.png)", "<img src='none.png'>", '<a href="none.ipynb">a</a>', "[a](#Nowhere)"):
        assert check_links(notebook_of(link), tmp_path), link


def test_size_is_limited(tmp_path):
    path = tmp_path / "lesson.ipynb"
    path.write_bytes(bytes(MAX_BYTES))
    assert check_size(path) == []
    path.write_bytes(bytes(MAX_BYTES + 1))
    assert check_size(path) == ["1000001 bytes, at most 1000000"]


def test_phrases_are_found_in_any_case_and_emphasis():
    text = "**objectives** prerequisites. 20 *minutes*. **Paper:** §1. Summary. where this differs from the paper. references"
    assert check_phrases(notebook_of(text)) == []


def test_neighbours_are_asked_for():
    course = ["00_a.ipynb", "01_b.ipynb", "02_c.ipynb"]
    both = notebook_of("[before](00_a.ipynb) [after](02_c.ipynb)")
    assert check_neighbours(both, "01_b.ipynb", course) == []
    assert check_neighbours(both, "00_a.ipynb", course) == ["no link to its neighbour 01_b.ipynb"]
    assert check_neighbours(notebook_of(), "01_b.ipynb", course) == [
        "no link to its neighbour 00_a.ipynb",
        "no link to its neighbour 02_c.ipynb",
    ]
