"""The living map in a real JupyterLab: from a key press on its slider to the changed frame, and how smoothly it pans and zooms.

    python tools/bench_map.py        needs a Chromium, as the browser tests do

Living maps of four widths take turns, move by move, with the picture demo that they replace (81 × 81 blocks, exact areas in its
sentence), the same with `interact`, and a slider that changes only a text. Thirty positions are visited for the first time, then
once more. Then frames a second while a map is panned and zoomed, the time from a cell's end to its map's first frame, and a class
of ten notebooks on one server. Times differ between machines; look at the ratios.
"""

import contextlib
import os
import statistics
import sys
import tempfile
from pathlib import Path

import bench_latency
from bench_latency import CLASS, MOVING, harness, store
from bench_memory import CLASSROOM

VISITS, WIDTHS = 30, (8, 32, 100, 500)
SETUP = """
import copy
import functools
import ipywidgets
import matplotlib.pyplot as plt
import torch
from ood_helpers import data, losses, models, plotting, polytopes, scores, training, widgets
from ood_helpers.polytopes import measures

world, points, POSITIONS = data.TwoGaussians(), plotting.grid(50, 81), list(range(31))

def near(network, k):
    "A network like a trained one: its weights changed a little, differently at each position."
    other, generator = copy.deepcopy(network), torch.Generator().manual_seed(k)
    for parameter in other.parameters():
        parameter.data *= 1 + 0.02 * torch.randn(parameter.shape, generator=generator)
    return other

sweeps = {}
for width in (8, 32, 100, 500):
    trained = models.mlp(width=width, generator=torch.Generator().manual_seed(0))
    training.train(trained, world, functools.partial(losses.confidence_loss, beta=1.0), steps=200, seed=0)
    sweeps[width] = [near(trained, k) for k in POSITIONS]
networks, areas = sweeps[100], {}

def slider():
    return widgets.slider("position", POSITIONS, 0, "one of many networks")

def confidence(k):
    with torch.no_grad():
        return scores.max_softmax(networks[k](points)).reshape(81, 81)

def draw(ax, values):
    plotting.plane_axes(ax, 50)
    plotting.class_discs(ax, world)
    plotting.band_legend(ax)
    return plotting.band_map(ax, values, 50)

def sentence(k):
    if k not in areas:
        areas[k] = measures.confident_area(polytopes.plane(networks[k]), 0.9).low / 100**2
    return f"At position {k} the confidence is above 0.9 on {areas[k]:.1%} of the box."
"""
MAP = """
widgets.LivingMap(lambda k: sweeps[{0}][k], {{"k": slider()}}, world=world, sentence=lambda k: f"width {0}, position {{k}}")
"""
DEMOS = {f"map, width {width}": MAP.format(width) for width in WIDTHS} | {
    "picture demo": """
figure, ax = plotting.figure(width=6.4, height=4.2)
image = draw(ax, confidence(0))

def update(k):
    image.set_data(confidence(k))
    return sentence(k)

widgets.Demo(figure, update, {"k": slider()})
""",
    "interact": """
def show(k):
    figure, ax = plt.subplots(figsize=(6.4, 4.2), dpi=100)
    draw(ax, confidence(k))
    plt.show()
    print(f"position {k}")

interactive = ipywidgets.interactive(show, k=slider())
interactive.add_class("ood-demo")
interactive
""",
    "text": """
position, text = slider(), ipywidgets.HTML()
text.add_class("ood-sentence")
position.observe(lambda change: setattr(text, "value", f"position {change.new}"), "value")
box = ipywidgets.VBox([position, text])
box.add_class("ood-demo")
box
""",
}
LIVE = """
learner = models.mlp(width={0})
start = functools.partial(training.train_steps, learner, world, functools.partial(losses.confidence_loss, beta=1.0))
widgets.Live(widgets.LivingMap(learner, world=world), start, lambda steps: f"after {{steps}} steps", stop=1_000_000)
"""
LIVE_WIDTHS = (32, 100)

# Like bench_latency.START_CLOCK, for a map: the first frame of the other network (every eighth row at least), and all of it
START_CLOCK = """root => {
    const view = root.oodView, before = view.network, decorate = view.decorate, finish = view.finish;
    const painted = () => new Promise(done => { // a map draws in a frame's callback
        const channel = new MessageChannel();
        channel.port1.onmessage = () => done(performance.now() - start);
        channel.port2.postMessage(null);
    });
    let start, first;
    window.addEventListener('keydown', () => { start = performance.now(); }, {capture: true, once: true});
    window.latency = new Promise(done => {
        view.decorate = function () {
            decorate.call(this);
            if (this.network !== before && this.job !== job) first ??= painted();
        };
        view.finish = function (job) {
            finish.call(this, job);
            if (this.network === before) return;
            Object.assign(this, {decorate, finish});
            Promise.all([first ?? painted(), painted()]).then(done);
        };
    });
    const job = view.job;
}"""
# frames a second, and how many milliseconds the slowest frame took, while something moves with every frame
FRAMES = """async ([root, move]) => {
    const view = root.oodView, act = {pan: () => view.pan(view.window.half / 50, 0), zoom: () => view.zoom(0.985)}[move];
    const frame = () => new Promise(requestAnimationFrame), taken = [];
    for (let i = 0; i < 10; i++) { act(); await frame(); }
    let before = performance.now();
    for (let i = 0; i < 90; i++) {
        act();
        const now = await frame();
        taken.push(now - before);
        before = now;
    }
    view.move({x: 0, y: 0, half: 50});
    return [1000 * taken.length / taken.reduce((a, b) => a + b), Math.max(...taken)];
}"""
# pictures a second that the page draws during a training, and the milliseconds until Pause works
WATCH = bench_latency.WATCH.replace("img", "canvas").replace("'src'", "'data-drawn'")
# the time from a cell's end (the kernel is idle again) to the first frame of its map
FIRST_FRAME = f"""async cell => {{
    const notebook = jupyterapp.shell.currentWidget.content;
    document.querySelectorAll('.ood-map').forEach(root => {{ root.dataset.old = ''; }});
    notebook.activeCellIndex = cell;
    let idle;
    await jupyterapp.commands.execute('notebook:run-cell');
    idle = performance.now();
    while (!document.querySelector('.ood-map:not([data-old]) canvas[data-drawn]')) await new Promise(requestAnimationFrame);
    await ({harness.SETTLE})();
    return performance.now() - idle;
}}"""


def maps(notebook):
    return notebook.page.locator(".jp-OutputArea .ood-map").all()


def move_map(notebook, root, key):
    """Press `key` on a map's slider; milliseconds until the first frame, and until the whole picture is painted."""
    slider = root.locator("input[type=range]")
    slider.focus()
    root.evaluate(START_CLOCK)
    slider.press(key)
    taken = notebook.page.evaluate("window.latency")
    notebook.settle()
    return taken


def measure():
    """Per demo, first and second visits: lists of milliseconds. And pan and zoom, first frames, and live trainings, by width."""
    with tempfile.TemporaryDirectory() as folder:
        live = [LIVE.format(width) for width in LIVE_WIDTHS]
        store([SETUP, *DEMOS.values(), *live], Path(folder) / "map.ipynb")
        with harness.chromium() as browser, harness.Lab(folder) as lab, lab.open(browser, "map.ipynb") as notebook:
            notebook.run_all(timeout=300)
            if notebook.errors():
                raise RuntimeError(notebook.errors()[0])
            roots = dict(zip(WIDTHS, maps(notebook), strict=False))
            demos = [demo for demo in notebook.demos() if not isinstance(demo, harness.Map)]
            figures = dict(zip([name for name in DEMOS if "map" not in name], demos, strict=False))
            visits = {}
            for turn, key in [("first", "ArrowRight"), ("second", "ArrowLeft")]:
                for _ in range(VISITS):
                    for width, root in roots.items():
                        root.scroll_into_view_if_needed()
                        frame, whole = move_map(notebook, root, key)
                        visits.setdefault((f"map, width {width}", turn), []).append(frame)
                        visits.setdefault((f"  whole picture, {width}", turn), []).append(whole)
                    for name, demo in figures.items():
                        demo.element.scroll_into_view_if_needed()
                        visits.setdefault((name, turn), []).append(bench_latency.move(demo, key))
            frames = {}
            for width, root in roots.items():
                root.scroll_into_view_if_needed()
                frames[width] = [notebook.page.evaluate(FRAMES, [root.element_handle(), move]) for move in ("pan", "zoom")]
            first = {width: notebook.page.evaluate(FIRST_FRAME, 1 + i) for i, width in enumerate(WIDTHS)}
            trainings = dict(zip(LIVE_WIDTHS, demos[len(figures) :], strict=True))
            for demo in trainings.values():
                demo.element.scroll_into_view_if_needed()
            return visits, frames, first, {width: demo.element.evaluate(WATCH) for width, demo in trainings.items()}


def measure_class():
    """Milliseconds to the first frame of the maps of width 100 in a class: see `bench_latency.measure_class`."""
    open_ = {"1 open": (1, 1), f"{CLASS} open, 1 moved": (CLASS, 1), f"{CLASS} open, {MOVING} moved in turns": (CLASS, MOVING)}
    taken = {}
    with tempfile.TemporaryDirectory() as folder, harness.chromium() as browser, harness.Lab(folder) as lab:
        for number in range(CLASS):
            store([SETUP.replace("(8, 32, 100, 500)", "(100,)"), MAP.format(100)], Path(folder) / f"class_{number}.ipynb")
        for name, (count, moved) in open_.items():
            with contextlib.ExitStack() as stack:
                notebooks = []
                for number in range(count):
                    window = browser.browser.new_context(viewport={"width": 1280, "height": 800})
                    stack.callback(window.close)
                    notebooks.append(stack.enter_context(lab.open(window, f"class_{number}.ipynb")))
                    notebooks[-1].run_all(timeout=300)
                taken[name] = [
                    move_map(notebook, maps(notebook)[0], "ArrowRight")[0]
                    for _ in range(VISITS // moved)
                    for notebook in notebooks[:moved]
                ]
    return taken


def main():
    if what := harness.missing():
        sys.exit(what)
    visits, frames, first, live = measure()
    median = {name: statistics.median(times) for name, times in visits.items()}
    print(f"slider to changed frame in JupyterLab, medians of {VISITS} first and {VISITS} second visits in turns (milliseconds)")
    print(f"  {'':22s}{'first':>8s}{'second':>8s}{'first / text':>14s}{'first / interact':>18s}")
    for name in dict.fromkeys(name for name, _ in visits):
        a, b = median[name, "first"], median[name, "second"]
        print(f"  {name:22s}{a:8.0f}{b:8.0f}{a / median['text', 'first']:14.2f}{a / median['interact', 'first']:18.2f}")
    print("  reach: maps up to width 100 at most 1 of text, width 500 at most 1 of interact")
    print("frames a second while it moves, and its slowest frame (reach: 30 up to width 100)")
    for width, (pan, zoom) in frames.items():
        print(f"  width {width:3d}    pan {pan[0]:4.0f} ({pan[1]:.0f} ms)    zoom {zoom[0]:4.0f} ({zoom[1]:.0f} ms)")
    print("from a cell's end to its map's picture (reach: 600 ms)")
    print("  " + "    ".join(f"width {width}: {time:.0f} ms" for width, time in first.items()))
    for width, (rate, pause) in live.items():
        pictures = f"{rate:.1f} pictures a second (reach: {15 if width == 32 else 10})"
        print(f"training seen through a map of width {width}: {pictures}, Pause works in {pause:.0f} ms")
    os.environ |= CLASSROOM
    taken = measure_class()
    alone = statistics.median(taken["1 open"])
    print("a class on one server, first visits at width 100 (milliseconds)")
    for name, times in taken.items():
        print(f"  {name:30s}{statistics.median(times):6.0f}{statistics.median(times) / alone:8.2f} of 1 open")


if __name__ == "__main__":
    main()
