"""Slider latency in a real JupyterLab: from a key press to the changed picture on the page, for three ways to build one demo.

    python tools/bench_latency.py        needs a Chromium, as the browser tests do

Ours (`widgets.Demo`), the same demo with `interact` and `plt.show()`, and a slider that changes only a text. The three take
turns, move by move, so that whatever else the machine does meets all of them alike. Then a class on one server: ten notebooks
open, each with its kernel, of which one or three have their slider moved without a pause. Times differ between machines; look at
the ratios.
"""

import contextlib
import os
import statistics
import sys
import tempfile
from pathlib import Path

import nbformat
from bench_memory import CLASSROOM
from nbformat.v4 import new_code_cell, new_notebook

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import browser as harness

MOVES = 30
CLASS, MOVING = 10, 3  # notebooks open on one server, and how many of them are moved at the same time
# from the sixth of twelve positions to the last, to the first, and back
KEYS = ["ArrowRight"] * 6 + ["ArrowLeft"] * 11 + ["ArrowRight"] * 5

SETUP = """
import functools
import ipywidgets
import matplotlib.pyplot as plt
import torch
from ood_helpers import data, losses, models, plotting, scores, training, widgets

BETAS = [0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0]
world, points = data.TwoGaussians(), plotting.grid(50, 81)
networks = [models.mlp(width=100, generator=torch.Generator().manual_seed(0)) for _ in BETAS]
training.train(networks, world, functools.partial(losses.confidence_loss, beta=torch.tensor(BETAS)), steps=200, seed=0)

def confidence(beta):
    with torch.no_grad():
        return scores.max_softmax(networks[BETAS.index(beta)](points)).reshape(81, 81)

def draw(ax, values):
    plotting.plane_axes(ax, 50)
    plotting.class_discs(ax, world)
    plotting.band_legend(ax)
    return plotting.band_map(ax, values, 50)

def sentence(beta, values):
    return f"At beta {beta} the confidence is above 0.9 on {(values > 0.9).double().mean():.0%} of the box."

def slider():
    return widgets.slider("beta", BETAS, 1.0, "weight of the second term")
"""
DEMOS = {
    "ours": """
figure, ax = plotting.figure(width=6.4, height=4.2)
image = draw(ax, confidence(1.0))

def update(beta):
    values = confidence(beta)
    image.set_data(values)
    return sentence(beta, values)

widgets.Demo(figure, update, {"beta": slider()})
""",
    "interact": """
def show(beta):
    values = confidence(beta)
    figure, ax = plt.subplots(figsize=(6.4, 4.2), dpi=100)
    draw(ax, values)
    plt.show()
    print(sentence(beta, values))

interactive = ipywidgets.interactive(show, beta=slider())
interactive.add_class("ood-demo")
interactive
""",
    "text": """
beta, text = slider(), ipywidgets.HTML()
text.add_class("ood-sentence")

def say(change):
    text.value = f"beta is {change.new}"

beta.observe(say, "value")
box = ipywidgets.VBox([beta, text])
box.add_class("ood-demo")
box
""",
}

LIVE = """
live_figure, live_ax = plotting.figure(width=6.4, height=4.2)
live_image, learner = draw(live_ax, confidence(1.0)), models.mlp(width=100)

def start():
    return training.train_steps(learner, world, functools.partial(losses.confidence_loss, beta=1.0))

def follow(steps):
    with torch.no_grad():
        values = scores.max_softmax(learner(points)).reshape(81, 81)
    live_image.set_data(values)
    return f"after {steps} steps: above 0.9 on {(values > 0.9).double().mean():.0%} of the box"

widgets.Live(live_figure, start, follow, stop=1_000_000)
"""
# press Train, count the pictures of five seconds, press Pause, wait for the button to say Train again
WATCH = """async root => {
    const button = name => [...root.querySelectorAll('button')].find(b => b.textContent.trim() === name);
    let pictures = 0;
    new MutationObserver(() => pictures++).observe(root.querySelector('img'), {attributes: true, attributeFilter: ['src']});
    button('Train').click();
    await new Promise(done => setTimeout(done, 1000));
    const before = pictures;
    await new Promise(done => setTimeout(done, 5000));
    const rate = (pictures - before) / 5, start = performance.now();
    button('Pause').click();
    while (!button('Train')) await new Promise(requestAnimationFrame);
    return [rate, performance.now() - start];
}"""

# The clock starts when the page gets the key, and stops after the frame that shows the new picture (or text, where there is
# none): a message posted in a frame's callback arrives when that frame has been drawn.
START_CLOCK = """root => {
    const look = () => root.querySelector('img')?.src ?? root.querySelector('.ood-sentence')?.textContent;
    const before = look();
    let start;
    window.addEventListener('keydown', () => { start = performance.now(); }, {capture: true, once: true});
    window.latency = new Promise(done => {
        const observer = new MutationObserver(async () => {
            if (!look() || look() === before) return;
            observer.disconnect();
            await root.querySelector('img')?.decode();
            requestAnimationFrame(() => {
                const channel = new MessageChannel();
                channel.port1.onmessage = () => done(performance.now() - start);
                channel.port2.postMessage(null);
            });
        });
        observer.observe(root, {subtree: true, childList: true, attributes: true, characterData: true});
    });
}"""


def move(demo, key):
    """Press `key` on the demo's slider; returns milliseconds until the change is painted."""
    slider = demo.sliders()[0]
    slider.focus()
    demo.element.evaluate(START_CLOCK)
    slider.press(key)
    milliseconds = demo.notebook.page.evaluate("window.latency")
    demo.notebook.settle()
    return milliseconds


# moves the slider of the first demo to and fro, each move as soon as the one before is painted and its kernel idle again; a move
# that takes longer than a minute ends the measurement with an error
MOVE_ALONE = f"""moves => {{
    const demo = document.querySelector('.jp-OutputArea .ood-demo');
    const handle = demo.querySelector('.noUi-handle');
    const at = name => handle.getAttribute('aria-value' + name);
    const late = () => new Promise((_, fail) => setTimeout(() => fail(new Error('no picture within a minute')), 60000));
    window.moves = (async () => {{
        const taken = [];
        let key = 'ArrowRight';
        while (taken.length < moves) {{
            if (at('now') === at('max')) key = 'ArrowLeft';
            if (at('now') === at('min')) key = 'ArrowRight';
            ({START_CLOCK})(demo);
            handle.dispatchEvent(new KeyboardEvent('keydown', {{key, bubbles: true, cancelable: true}}));
            taken.push(await Promise.race([window.latency, late()]));
            await ({harness.SETTLE})();
        }}
        return taken;
    }})();
}}"""


def measure_class(moves=MOVES):
    """Milliseconds of the moves in a class: what was open and moved -> list of numbers.

    A server with one notebook is measured before and after the other nine are open, so that a machine that slows down on the way
    is not taken for an effect of the class.
    """

    def move_at_once(notebooks):
        for notebook in notebooks:
            notebook.page.evaluate(MOVE_ALONE, moves + 1)
        return [time for notebook in notebooks for time in notebook.page.evaluate("window.moves")[1:]]

    def open_notebook(number, stack):
        # a window of its own: a tab in the background is drawn only once a second
        window = browser.browser.new_context(viewport={"width": 1280, "height": 800})
        stack.callback(window.close)
        notebook = stack.enter_context(lab.open(window, f"class_{number}.ipynb"))
        notebook.run_all()
        if notebook.errors():
            raise RuntimeError(notebook.errors()[0])
        return notebook

    with tempfile.TemporaryDirectory() as folder, harness.chromium() as browser, harness.Lab(folder) as lab:
        for number in range(CLASS):
            store([SETUP, DEMOS["ours"]], Path(folder) / f"class_{number}.ipynb")
        with contextlib.ExitStack() as stack:
            first = open_notebook(0, stack)
            alone = move_at_once([first])
        with contextlib.ExitStack() as stack:
            notebooks = [open_notebook(number, stack) for number in range(CLASS)]
            idle, busy = move_at_once(notebooks[:1]), move_at_once(notebooks[:MOVING])
        with contextlib.ExitStack() as stack:
            alone += move_at_once([open_notebook(0, stack)])
    return {"1 open": alone, f"{CLASS} open, 1 moved": idle, f"{CLASS} open, {MOVING} moved": busy}


def store(sources, path):
    """Write a notebook of these code cells."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources], metadata=kernel), path)


def measure(moves=MOVES):
    """Milliseconds of each move: name of the demo -> list of `moves` numbers (one more round, the first, is not counted); and of
    a training to watch, how many pictures a second it shows and the milliseconds until Pause is seen to work."""
    with tempfile.TemporaryDirectory() as folder:
        store([SETUP, *DEMOS.values(), LIVE], Path(folder) / "latency.ipynb")
        with harness.chromium() as browser, harness.Lab(folder) as lab, lab.open(browser, "latency.ipynb") as notebook:
            notebook.run_all()
            if notebook.errors():
                raise RuntimeError(notebook.errors()[0])
            *sliders, live = notebook.demos()
            demos = dict(zip(DEMOS, sliders, strict=True))
            taken = {name: [] for name in demos}
            for number in range(moves + 1):
                for name, demo in demos.items():
                    taken[name].append(move(demo, KEYS[number % len(KEYS)]))
            return {name: times[1:] for name, times in taken.items()}, live.element.evaluate(WATCH)


def main():
    if what := harness.missing():
        sys.exit(what)
    taken, (rate, pause) = measure()
    median = {name: statistics.median(times) for name, times in taken.items()}
    print(f"slider to changed picture in JupyterLab, median of {MOVES} moves in turns")
    for name, times in taken.items():
        print(f"  {name:10s}{median[name]:6.0f} ms   (fastest {min(times):.0f}, slowest {max(times):.0f})")
    print(f"  ours / interact   {median['ours'] / median['interact']:.2f}   (reach: at most 0.33)")
    print(f"  ours / text       {median['ours'] / median['text']:.2f}   (reach: at most 2.5)")
    print(f"a training to watch: {rate:.1f} pictures a second (reach: at least 10), Pause works in {pause:.0f} ms (reach: 500)")
    os.environ |= CLASSROOM
    taken = measure_class()
    alone = statistics.median(taken["1 open"])
    print(f"a class on one server, {MOVES} moves without a pause in each notebook that is moved (milliseconds)")
    print(f"  {'notebooks':18s}{'median':>8s}{'p90':>8s}{'median / 1 open':>18s}")
    for name, times in taken.items():
        median, p90 = statistics.median(times), statistics.quantiles(times, n=10)[-1]
        print(f"  {name:18s}{median:8.0f}{p90:8.0f}{median / alone:18.2f}")


if __name__ == "__main__":
    main()
