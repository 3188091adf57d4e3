"""The living map in a real JupyterLab: keys, the kernel's part, a training that streams in, points that reach Python."""

from pathlib import Path

import browser as harness
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

pytestmark = pytest.mark.browser
CELLS = [
    """
    import functools, time
    import torch
    from ood_helpers import data, losses, models, polytopes, training, widgets
    from ood_helpers.widgets import living_map
    world, said = data.TwoGaussians(), []
    networks = {beta: models.mlp(width=8, generator=torch.Generator().manual_seed(k)) for k, beta in enumerate([0.0, 1.0, 2.0])}
    """,
    """
    def sentence(beta, box):
        said.append((beta, box))
        return f"said of {beta} and {box}"

    living_map._AT_ONCE = 250  # bytes: only the first network
    controls = {
        "beta": widgets.slider("beta", [0.0, 1.0, 2.0], 1.0, ""), "box": widgets.slider("box radius", [10, 50], 50, ""),
    }
    swept = widgets.LivingMap(networks, controls, world=world, window="box", sentence=sentence)
    swept
    """,
    """
    learner = models.mlp(width=8)
    loss = functools.partial(losses.confidence_loss, beta=1.0)
    start = functools.partial(training.train_steps, learner, world, loss)
    widgets.Live(widgets.LivingMap(learner, world=world), start, lambda steps: f"after {steps} steps", stop=10**6, first=10)
    """,
    """
    painting = widgets.Painting(2, points=([[0.0, 0]], [0]))
    painting
    """,
    """
    from torch import nn
    def cnn(seed):
        torch.manual_seed(seed)
        pooled = [nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        return nn.Sequential(*pooled, nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3)).eval()

    axes, seed = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0)), widgets.choice("seed", [0, 1], 0, "")
    sliced = widgets.LivingMap(cnn, {"seed": seed}, axes=axes, window=0.3, colours="shades", patience=20)
    sliced
    """,
]


@pytest.fixture(scope="module")
def notebook(lab, browser):
    cells = [new_code_cell("\n".join(line.removeprefix("    ") for line in cell.strip("\n").splitlines())) for cell in CELLS]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), Path(lab.folder) / "living.ipynb")
    with lab.open(browser, "living.ipynb") as notebook:
        broken = []
        notebook.page.on("pageerror", lambda error: broken.append(str(error)))
        notebook.run_all()
        assert notebook.errors() == []
        yield notebook
        assert notebook.errors() == broken == []


def a_map(notebook, number):
    """The root element of a map, once it is drawn and scrolled to."""
    root = notebook.page.locator(".ood-map").nth(number)
    root.locator("canvas[data-drawn]").wait_for(timeout=30_000)
    root.scroll_into_view_if_needed()
    return root


def ask(notebook, expression):
    """What the kernel says an expression is, as JSON."""
    return notebook.page.evaluate(
        f"""expression => new Promise(done => {{
        const code = "import json; print(json.dumps(" + expression + "))", future = {harness.KERNEL}.requestExecute({{code}});
        future.onIOPub = ({{content}}) => {{ if (content.text) done(JSON.parse(content.text)); }};
    }})""",
        expression,
    )


def pixels(root):
    return root.evaluate("root => root.oodView.pixels.reduce((sum, p) => (Math.imul(sum, 31) + p) | 0, 7)")


def finish(root):
    root.page.wait_for_function("r => r.oodView.done === r.oodView.job && !r.oodView.waiting", arg=root.element_handle())


def test_sliders_move_the_map_and_python_hears_of_it(notebook):
    root = a_map(notebook, 0)
    beta, box = root.locator("input[type=range]").all()
    before = pixels(root)
    assert root.locator(".said").inner_text() == "said of 1.0 and 50"
    beta.press("ArrowRight")  # JupyterLab would go to the next cell
    root.get_by_text("said of 2.0 and 50").wait_for()
    finish(root)  # with a network that had to be sent
    assert pixels(root) != before and beta.evaluate("field => field === document.activeElement")
    box.press("ArrowLeft")
    root.get_by_text("said of 2.0 and 10").wait_for()
    notebook.settle()
    assert ask(notebook, "[swept.values, swept.window]") == [{"beta": 2.0, "box": 10}, {"x": 0, "y": 0, "half": 10}]
    ask(notebook, "swept.set(beta=0.0, box=50)")
    root.get_by_text("said of 0.0 and 50").wait_for()
    assert beta.input_value() == "0" and root.evaluate("root => root.oodView.window.half") == 50
    assert ask(notebook, "len(said) == len(set(said))")  # each once


def test_a_window_the_kernel_echoes_late_does_not_undo_the_hand_s(notebook):
    root = a_map(notebook, 0)
    window = "root => root.oodView.window.half"
    canvas = root.locator("canvas")
    canvas.press("Home")
    home = root.evaluate(window)
    for _ in range(3):
        canvas.press("+")
        root.locator("input[type=range]").first.press("ArrowLeft")  # saves the position, and with it the window as it is now
        root.locator("input[type=range]").first.press("ArrowRight")
        canvas.press("Home")
        notebook.settle()
        assert root.evaluate(window) == home


def test_keys_on_the_map_are_not_jupyterlab_s(notebook):
    root = a_map(notebook, 0)
    cells = notebook.page.locator(".jp-Notebook .jp-Cell")
    count, selected = cells.count(), notebook.page.locator(".jp-Notebook .jp-mod-active").get_attribute("class")
    canvas = root.locator("canvas")
    canvas.press("Home")
    half = root.evaluate("root => root.oodView.window.half")
    for key in ("ArrowDown", "ArrowRight", "+", "a", "b", "d", "d", "x", "Enter"):
        canvas.press(key)
    assert cells.count() == count and canvas.evaluate("canvas => canvas === document.activeElement")
    assert notebook.page.locator(".jp-Notebook .jp-mod-active").get_attribute("class") == selected
    assert root.evaluate("root => root.oodView.window.half") == pytest.approx(half / 1.25)
    assert "at infinity" in root.locator(".here").inner_text()


def test_the_wheel_scrolls_the_page_until_the_map_is_chosen(notebook):
    root = a_map(notebook, 0)
    root.locator("canvas").press("Home")
    notebook.page.locator(".jp-Cell").first.locator(".jp-InputPrompt").click()
    root.locator("canvas").hover()
    half = "root => root.oodView.window.half"
    before = root.evaluate(half)
    notebook.page.mouse.wheel(0, 20)
    notebook.settle()
    assert root.evaluate(half) == before
    root.locator("canvas").focus()
    notebook.page.mouse.wheel(0, 20)
    notebook.page.wait_for_function(f"r => ({half})(r) > {before}", arg=root.element_handle())


def test_a_training_streams_into_its_map(notebook):
    root = a_map(notebook, 1)
    demo = notebook.page.locator(".ood-demo").first
    button = demo.locator("button.jupyter-button").first
    seen = {pixels(root)}
    button.click()
    for _ in range(200):
        notebook.settle()
        seen.add(pixels(root))
        if len(seen) > 3:
            break
    button.click()
    notebook.settle()
    assert len(seen) > 3 and button.inner_text() == "Train"
    finish(root)
    before = pixels(root)
    notebook.page.wait_for_timeout(300)
    assert pixels(root) == before


def test_painted_points_reach_python_and_its_network_the_page(notebook):
    root = a_map(notebook, 2)
    root.get_by_role("button", name="class 1").click()
    root.locator("canvas").click(position={"x": 300, "y": 150})
    notebook.settle()
    [_, [x, y, k]] = ask(notebook, "painting.painted")
    assert (x, y) == tuple(root.evaluate("root => root.oodView.painted[1].slice(0, 2)")) and k == 1
    assert ask(notebook, "painting.world.sample(9, generator=torch.Generator())[1].unique().tolist()") == [0, 1]
    ask(notebook, "painting.show(networks[0.0])")
    root = a_map(notebook, 2)
    finish(root)
    assert root.evaluate("root => new Set(root.oodView.pixels).size") > 1


def drawn_slice(root, says):
    """Wait until the window is all there, and drawn."""
    text = "root => root.getAttribute('aria-busy') === 'false' && root.querySelector('.state').textContent"
    root.page.wait_for_function(f"r => (({text})(r) || '').includes({says!r})", arg=root.element_handle())
    finish(root)


def test_a_slice_comes_window_by_window_from_the_kernel(notebook):
    root = a_map(notebook, 3)
    drawn_slice(root, "exactly, in the square of half side 0.3 around (0, 0)")
    hatched = "root => root.oodView.pixels.includes(0xffbbbbbb)"
    first = pixels(root)
    assert not root.evaluate(hatched)
    canvas = root.locator("canvas")
    for _ in range(2):
        canvas.press("-")
    finish(root)
    assert root.evaluate(hatched)  # what is there stays, the rest is to come
    drawn_slice(root, "exactly, in the square of half side 0.469 around (0, 0)")
    assert not root.evaluate(hatched)
    root.locator("select").select_option("1")
    drawn_slice(root, "exactly, in the square of half side 0.469")
    other = pixels(root)
    assert not root.evaluate(hatched)
    root.locator("select").select_option("0")
    canvas.press("Home")
    drawn_slice(root, "exactly")
    assert pixels(root) == first != other
    canvas.click(position={"x": 200, "y": 150})
    x, y = root.evaluate("root => root.oodView.ray")
    winner = ask(notebook, f"polytopes.ray(sliced.network, torch.zeros(1, 6, 6), {x} * axes[0] + {y} * axes[1]).winner")
    root.get_by_text(f"at infinity: k* = class {winner}, limit of the confidence 1.0000").wait_for()


def test_a_map_whose_kernel_has_gone_still_moves(notebook):
    root = a_map(notebook, 0)
    beta = root.locator("input[type=range]").first
    root.get_by_role("button", name="Reset").click()
    notebook.settle()
    finish(root)
    notebook.page.wait_for_function("r => r.oodView.notes['2,1']", arg=root.element_handle())  # prepared by the idle kernel
    before = pixels(root)
    notebook.page.evaluate(f"{harness.KERNEL}.restart()")
    notebook.page.wait_for_function(f"{harness.KERNEL}?.connectionStatus === 'connected' && {harness.KERNEL}.status === 'idle'")
    beta.press("ArrowRight")  # a network and a sentence that are in the page by now
    finish(root)
    assert pixels(root) != before
    assert "said of 2.0 and 50" in root.locator(".said").inner_text()
    root.locator("input[type=range]").nth(1).press("ArrowLeft")
    assert root.evaluate("root => root.oodView.window.half") == 10
