"""Every notebook in a real JupyterLab: Run All without an error, and every slider moves picture and sentence.

The pictures kept in tests/artifacts show each notebook and each of its demos.
"""

import re
from pathlib import Path

import browser as harness
import nbformat
import pytest
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

pytestmark = pytest.mark.browser
COURSE = sorted((Path(__file__).parents[1] / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def complaints(demo):
    """What is wrong with a demo, in words, after its sliders, presets and Reset were used by keyboard; empty when all is well."""
    start = (demo.values(), demo.picture(), demo.sentence())
    found, pictures, sentences = [], {demo.picture()}, {demo.sentence()}
    for slider in demo.sliders():
        before = demo.picture(), demo.sentence()
        demo.step(slider)
        if (demo.picture(), demo.sentence()) == before:
            found.append(f"slider {demo.label(slider)!r} changes neither picture nor sentence")
        pictures.add(demo.picture())
        sentences.add(demo.sentence())
    if demo.sliders() and len(pictures) == 1:
        found.append("no slider changes the picture")
    chosen = demo.element.locator("select").count()  # a choice may change the sentence, and the slider only the window
    if demo.sliders() and len(sentences) == 1 and not chosen:
        found.append("no slider changes the sentence")
    training = complaints_of_training(demo) if demo.button("Train").count() else []
    return found + training + complaints_of_buttons(demo, start)


def complaints_of_buttons(demo, start):
    """What is wrong with the presets and Reset of a demo whose state was `start`: values, picture and sentence."""
    if not demo.button("Reset").count():  # a map of one network has nothing to reset but its window
        return []
    found, seen = [], set()
    for preset in demo.presets():
        demo.click("Reset")
        demo.click(preset)
        seen.add((demo.picture(), demo.sentence()))
    if seen == {start[1:]}:
        found.append("no preset changes picture or sentence")
    demo.click("Reset")
    end = demo.values(), demo.picture(), demo.sentence()
    if end != start:
        picture = "" if end[1] == start[1] else f" with the picture {end[1]} in place of {start[1]}"
        found.append(f"Reset leads to {end[0]}, {end[2]!r}, not back to {start[0]}, {start[2]!r}{picture}")
    return found


def complaints_of_training(demo):
    """What is wrong with a training to watch: it must move while the kernel answers other questions, and stand still on Pause."""
    demo.click("Train")
    seen = set()
    for _ in range(200):  # each round is a question to the kernel and its answer
        demo.notebook.settle()
        seen.add(demo.sentence())  # the picture may change while one looks at it
        if len(seen) > 3:
            break
    else:
        return [f"only {len(seen)} sentences during Train"]
    demo.click("Pause")
    reached = demo.sentence()
    demo.notebook.page.wait_for_timeout(300)
    return [] if demo.sentence() == reached else ["goes on after Pause"]


def complaints_of_question(question):
    """What is wrong with a quick question: each choice needs its own reason, and exactly one is right."""
    said = question.answers()
    right = sum(text.startswith("✓") for text in said)
    return [] if right == 1 and len(set(said)) == len(said) else [f"{right} right answers: {said}"]


@pytest.mark.parametrize("path", COURSE, ids=lambda path: path.stem)
def test_notebook_runs_and_its_demos_answer(lab, browser, path):
    found = []
    with lab.open(browser, path.name) as notebook:
        notebook.run_all(timeout=300)
        notebook.screenshot(path.stem)
        assert notebook.errors() == []
        demos = notebook.demos()
        for number, demo in enumerate(demos, 1):
            found += [f"demo {number}: {complaint}" for complaint in complaints(demo)]
            demo.screenshot(f"{path.stem}-demo-{number}")
        questions = notebook.questions()
        for number, question in enumerate(questions, 1):
            found += [f"question {number}: {complaint}" for complaint in complaints_of_question(question)]
        assert len(questions) >= 3
        assert notebook.errors() == []
    assert not found, "\n".join([path.name, *found])
    made = re.search(r"widgets\.(Demo|LivingMap)\(", path.read_text(encoding="utf-8"))
    assert demos or not made, "the notebook makes a demo, but shows none"


# --- the harness itself, shown to notice what it is for -----------------------------------------------------------------------

DEMO = """
import io
import ipywidgets
from PIL import Image

def picture(shade):
    buffer = io.BytesIO()
    Image.new("RGB", (200, 100), (shade, 90, 200)).save(buffer, "png")
    return buffer.getvalue()

def make():
    slider = ipywidgets.IntSlider(value=9, max=9, description="shade")
    image, sentence = ipywidgets.Image(value=picture(9)), ipywidgets.HTML("The shade is 9.")
    sentence.add_class("ood-sentence")

    def move(_):
        {move}

    slider.observe(move, "value")
    reset, preset = ipywidgets.Button(description="Reset"), ipywidgets.Button(description="Dark")
    reset.on_click(lambda _: {reset})
    preset.on_click(lambda _: setattr(slider, "value", 1))
    box = ipywidgets.VBox([slider, reset, preset, ipywidgets.ToggleButtons(options=["a", "b"]), image, sentence])
    box.add_class("ood-demo")
    return box

make()
"""
PICTURE, SENTENCE = "image.value = picture(slider.value)", 'sentence.value = f"The shade is {slider.value}."'
RESET = 'setattr(slider, "value", 9)'


@pytest.fixture
def opened(lab, browser, request):
    """A notebook of the given code cells, open in the lab."""

    def write(*sources):
        path = lab.folder / f"{request.node.name.partition('[')[0]}.ipynb"
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        cells = [new_markdown_cell("# T"), *map(new_code_cell, sources)]
        nbformat.write(new_notebook(cells=cells, metadata=kernel), path)
        return lab.open(browser, path.name)

    return write


def test_a_cell_whose_code_is_folded_away_is_waited_for(lab, opened):
    with opened("import time", "time.sleep(1)", "done = True") as notebook:
        for cell in notebook.page.locator(".jp-CodeCell .jp-InputCollapser").all()[1:]:
            cell.click()
        notebook.run_all()
        assert notebook.page.evaluate(harness.PROMPTS) == ["[1]:", "[2]:", "[3]:"]
        assert notebook.page.locator(".jp-InputPlaceholder").count() == 2


def test_a_cell_that_raises_or_warns_is_noticed(opened):
    with opened("x = 1", "import sys\nprint('careful', file=sys.stderr)", "raise ValueError('no beta')", "x = 2") as notebook:
        notebook.run_all()
        warning, error = notebook.errors()
        assert warning == "careful"
        assert error.endswith("ValueError: no beta")


def test_a_notebook_that_takes_too_long_is_noticed(opened):
    with opened("import time", "time.sleep(60)") as notebook, pytest.raises(TimeoutError, match=r"\[1\]:.*\[\*\]:"):
        notebook.run_all(timeout=3)


def test_old_outputs_do_not_pass_for_new_ones(opened):
    with opened("n = 0", "n += 1\nprint('run', n)") as notebook:
        notebook.run_all()
        notebook.run_all()
        assert notebook.errors() == []
        assert notebook.page.locator(".jp-OutputArea-output").all_inner_texts() == ["run 1\n"]
        assert notebook.page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts() == ["[3]:", "[4]:"]


def test_a_demo_that_does_nothing_is_noticed(opened):
    dead = [
        "slider 'shade' changes neither picture nor sentence",
        "no slider changes the picture",
        "no slider changes the sentence",
    ]
    cases = [
        (f"{PICTURE}; {SENTENCE}", RESET, []),
        (PICTURE, RESET, ["no slider changes the sentence"]),
        (SENTENCE, RESET, ["no slider changes the picture"]),
        ("pass", RESET, [*dead, "no preset changes picture or sentence"]),
        (f"{PICTURE}; {SENTENCE}", "None", ["Reset leads to [1.0], 'The shade is 1.', not back to [9.0], 'The shade is 9.'"]),
    ]
    with opened(*[DEMO.format(move=move, reset=reset) for move, reset, _ in cases]) as notebook:
        notebook.run_all()
        found = [[text.split(" with the picture")[0] for text in complaints(demo)] for demo in notebook.demos()]
        assert found == [expected for _, _, expected in cases]
        assert notebook.demos()[0].presets() == ["Dark"]
        assert notebook.errors() == []


QUESTION = """
from ood_helpers import widgets
answers = {"one": "Too few.", "two": "Just so.", "three": "Too few."}
widgets.Question("How many?", answers if {bad} else {"two": "Just so.", "one": "Too few."}, "two")
"""


def test_a_question_is_answered_by_keyboard(opened):
    with opened(*[QUESTION.replace("{bad}", bad) for bad in ("False", "True")]) as notebook:
        notebook.run_all()
        good, repeated = notebook.questions()
        assert good.answers() == ["✓ Right. Just so.", "✗ No. Too few."]
        assert complaints_of_question(good) == [] and complaints_of_question(repeated) != []
        assert notebook.errors() == []


LIVE = """
from ood_helpers import plotting, widgets
figure, ax = plotting.figure(width=3, height=2)
ax.set(ylim=(0, 1000))
(bar,) = ax.bar([0], [0])

def start():
    {steps}

def draw(steps):
    bar.set_height(steps)
    return f"{{steps}} steps"

live = widgets.Live(figure, start, draw, stop=100_000)
live.pause = live.pause if {pausing} else lambda: None
live
"""


def test_a_training_that_stands_still_or_cannot_be_paused_is_noticed(opened):
    sleepy = "import itertools, time; return (time.sleep(0.001) for _ in itertools.count())"
    cases = [(sleepy, True), ("return iter(())", True), (sleepy, False)]
    with opened(*[LIVE.format(steps=steps, pausing=pausing) for steps, pausing in cases]) as notebook:
        notebook.run_all()
        good, still, endless = notebook.demos()
        assert complaints_of_training(good) == []
        assert complaints_of_training(still)[0].startswith("only ")
        assert complaints_of_training(endless) == ["goes on after Pause"]


def test_an_error_in_a_callback_is_noticed(opened):
    with opened(DEMO.format(move="raise ValueError('lost')", reset=RESET)) as notebook:
        notebook.run_all()
        (demo,) = notebook.demos()
        assert notebook.errors() == []
        demo.step(demo.sliders()[0])
        assert notebook.errors() == ["ValueError: lost"]


# --- what a student saves -----------------------------------------------------------------------------------------------------

SAVED = [
    """
from ood_helpers import plotting, widgets
from ood_helpers.progress import progress
import time

for _ in progress(range(4), 4, "waiting"):
    time.sleep(0.6)
print("waited")
""",
    """
print("before")
figure, ax = plotting.figure(width=5, height=2.5)
(line,) = ax.plot([0, 1], [0, 1])

def update(slope):
    line.set_ydata([0, slope])
    return f"The slope is {slope}."

widgets.Demo(figure, update, {"slope": widgets.slider("slope", [1, 2, 3], 1, "how steep")})
""",
    'widgets.Question("Which?", {"one": "It is not.", "two": "It is."}, "two")',
    """
trained, ax = plotting.figure(width=5, height=2.5)
widgets.Live(trained, lambda: iter(range(9)), lambda steps: f"{steps} steps.", stop=9)
""",
    "print('after')",
]


def seen(page):
    """What a reader sees of each code cell's outputs: texts, and 'picture' for each picture."""
    return page.evaluate("""() => [...document.querySelectorAll('.jp-CodeCell')].map(cell => [...cell.querySelectorAll(
        '.jp-OutputArea-child')].filter(child => child.offsetHeight > 0).flatMap(child => [
            ...[...child.querySelectorAll('img')].filter(img => img.offsetHeight > 99).map(() => 'picture'),
            ...child.innerText.split('\\n').map(line => line.trim()).filter(Boolean)]))""")


LIVING = [
    ["waited"],
    ["before", "slope", "1", "Reset", "picture", "The slope is 1."],
    ["Question. Which?", "one", "two", "Vote"],
    ["Train", "Step", "Reset", "picture", "0 steps."],
    ["after"],
]
LEFT = [
    ["waited"],
    ["before", "picture", "The slope is 1."],
    ["Question. Which?", "one", "two", "Answer"],
    ["picture", "0 steps."],
    ["after"],
]


def ordered(cells):
    return [sorted(cell) for cell in cells]


def test_a_saved_notebook_keeps_pictures_and_words_without_its_kernel(lab, opened, browser):
    with opened(*SAVED) as notebook:
        page = notebook.page
        notebook.run_all()
        assert ordered(seen(page)) == ordered(LIVING)  # and nothing twice
        for _ in range(3):  # a cell run again closes what it showed before
            page.evaluate("""async () => {
                jupyterapp.shell.currentWidget.content.activeCellIndex = 2;
                await jupyterapp.commands.execute('notebook:run-cell');
            }""")
            notebook.settle()
        assert ordered(seen(page)) == ordered(LIVING)
        page.evaluate("jupyterapp.commands.execute('docmanager:save')")
        page.wait_for_function("!jupyterapp.shell.currentWidget.context.model.dirty")
        name = page.evaluate("jupyterapp.shell.currentWidget.context.path")
        page.reload()  # the kernel lives on: everything comes back to life
        notebook = harness.Notebook(page)
        page.wait_for_function("document.querySelectorAll('.ood-live').length === 3")
        assert ordered(seen(page)) == ordered(LIVING)
        assert notebook.errors() == []
    with lab.open(browser, name) as notebook:  # a new kernel, which knows no widget
        notebook.page.wait_for_selector(".ood-static")
        notebook.page.wait_for_timeout(1000)  # for what the page may still have to say about dead widgets
        assert ordered(seen(notebook.page)) == ordered(LEFT)
        notebook.screenshot("saved-and-reopened")
    stored = nbformat.read(lab.folder / name, as_version=4)
    stored.cells[1].source += " "  # somebody else's, whom this Jupyter does not trust
    nbformat.write(stored, lab.folder / f"copied-{name}")
    with lab.open(browser, f"copied-{name}") as notebook:
        notebook.page.wait_for_selector(".ood-static")
        assert ordered(seen(notebook.page)) == ordered(LEFT)
    page = browser.new_page()
    page.set_content(HTMLExporter(exclude_input=True).from_notebook_node(stored)[0])
    assert page.locator("img:visible").count() == 2
    assert sorted(filter(None, page.locator("body").inner_text().split())) == sorted(
        "T waited before The slope is 1. Question. Which? one two Answer 0 steps. after".split()
    )
    page.close()
