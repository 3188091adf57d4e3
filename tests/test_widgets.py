"""Demos: values in, picture and sentence out."""

import asyncio
import base64
import gc
import io
import re
import time
import types
import weakref

import ipywidgets
import numpy as np
import pytest
import run_notebooks
import torch
from ipywidgets.widgets.widget import _instances as instances
from matplotlib.figure import Figure
from PIL import Image

from ood_helpers import data, models, plotting, widgets


def make(update=None, **kwargs):
    """A demo with one bar whose height is a slider's value."""
    fig, ax = plotting.figure(width=3, height=2)
    (bar,) = ax.bar([0], [1], color="black")
    ax.set(ylim=(0, 10))

    def draw(height, zoom):
        if height == 13:
            raise RuntimeError("thirteen")
        bar.set_height(height)
        ax.set(ylim=(0, zoom))
        return f"The bar is {height} <high>."

    controls = {
        "height": widgets.slider("height", [1, 2, 5, 13], 1, "how high"),
        "zoom": widgets.choice("zoom", [10, 20], 10, "how far"),
    }
    return widgets.Demo(fig, update or draw, controls, presets={"Five": {"height": 5, "zoom": 20}}, **kwargs), fig


def pixels(demo):
    kind, data = bytes(demo.image.value).split(b",")
    assert kind == b"data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def dark(demo):
    return int((pixels(demo).sum(-1) < 30).sum())


def buttons(demo):
    found = [child for row in demo.box.children if isinstance(row, ipywidgets.HBox) for child in row.children]
    return {b.description: b for b in found if isinstance(b, ipywidgets.Button)}


def test_a_moved_control_changes_picture_and_sentence():
    demo, _ = make()
    before, area = demo.image.value, dark(demo)
    demo.controls["height"].value = 5
    assert demo.sentence == "The bar is 5 <high>." and "&lt;high&gt;" in demo.text.value
    assert demo.image.value != before and dark(demo) > 3 * area


def test_the_kept_background_gives_the_same_picture_as_drawing_everything():
    demo, fig = make()
    demo.set(height=5)
    demo.set(zoom=20)  # the axis changes, so the background must be drawn anew
    demo.set(height=2)
    for ax in fig.axes:
        for artist in ax.get_children():
            artist.set_animated(False)
    fig.canvas.draw()
    everything = np.asarray(fig.canvas.buffer_rgba())[..., :3]
    assert (np.abs(everything.astype(int) - pixels(demo)) > 8).mean() < 0.01


def test_presets_and_reset_move_everything_and_draw_once():
    demo, _ = make()
    drawn, update = [], demo.update
    demo.update = lambda **values: drawn.append(values) or update(**values)
    buttons(demo)["Five"].click()
    assert demo.values == {"height": 5, "zoom": 20} and len(drawn) == 1
    buttons(demo)["Reset"].click()
    assert demo.values == {"height": 1, "zoom": 10} and len(drawn) == 2


def test_an_error_is_shown_and_the_picture_stays():
    demo, _ = make()
    before = demo.image.value
    demo.controls["height"].value = 13
    assert "RuntimeError: thirteen" in demo.text.value and demo.image.value == before
    demo.controls["height"].value = 2
    assert "RuntimeError" not in demo.text.value


@pytest.fixture
def displayed(monkeypatch):
    """The bundles that a cell has displayed, as they come."""
    bundles = []
    monkeypatch.setattr("ood_helpers.widgets.page.display", lambda bundle, **_: bundles.append(bundle))
    return bundles


def test_a_reader_without_a_kernel_gets_picture_and_sentence(displayed):
    demo, _ = make()
    demo._ipython_display_()
    picture, words, widget = displayed  # an output each: JupyterLab does not fall back from one form to another
    assert set(picture) == {"image/png", "text/plain"} and picture["text/plain"] == demo.sentence
    assert re.fullmatch(run_notebooks.STANDS_FOR_A_WIDGET, words["text/markdown"], re.DOTALL)[1] == demo.sentence
    assert widget["application/vnd.jupyter.widget-view+json"]["model_id"] == demo.box.model_id


class Shell:
    """What IPython is to a cell: which cell and which run it is, and the memory of results."""

    def __init__(self):
        self.user_ns, self.user_ns_hidden = {}, {}
        self.history_manager = types.SimpleNamespace(output_hist={})
        self.displayhook = types.SimpleNamespace(_=None, __=None, ___=None)
        self.cell, self.run = None, 0

    def get_parent(self):
        return {"metadata": {"cellId": self.cell}, "header": {"msg_id": self.run}}

    def show(self, cell, *items):
        """Run a cell that ends in the last of `items`, as IPython does."""
        self.cell, self.run = cell, self.run + 1
        for item in items:
            item._ipython_display_()
        self.history_manager.output_hist[self.run] = self.user_ns[f"_{self.run}"] = items[-1]
        self.user_ns_hidden["_"] = self.displayhook._ = items[-1]


@pytest.fixture
def shell(monkeypatch, displayed):
    monkeypatch.setattr("ood_helpers.widgets.page._shown", {})
    shell = Shell()
    monkeypatch.setattr("ood_helpers.widgets.page.get_ipython", lambda: shell)
    return shell


def question():
    return widgets.Question("Which?", {"one": "No.", "two": "Yes."}, "two")


def training():
    figure, _ = plotting.figure()
    return widgets.Live(figure, lambda: iter(range(9)), lambda steps: f"{steps} steps.", stop=9)


def a_map():
    control = {"width": widgets.slider("width", [1], 1, "")}
    return widgets.LivingMap({1: models.mlp(width=2)}, control, sentence=lambda width: "One.")


def live_map():
    return widgets.Live(a_map(), lambda: iter(range(9)), lambda steps: f"{steps} steps.", stop=9)


KINDS = [lambda: make()[0], question, training, a_map, live_map, widgets.Painting, widgets.World]


@pytest.mark.parametrize("kind", KINDS, ids=["demo", "question", "training", "map", "training in a map", "painting", "world"])
def test_a_cell_that_is_run_again_closes_what_it_showed_before(shell, kind):
    shell.show("other", kept := kind())
    shell.show("cell", kind())
    alive = len(instances)
    old = [weakref.ref(shell.user_ns["_2"])]
    for _ in range(3):
        shell.show("cell", kind())
        old.append(weakref.ref(shell.displayhook._))
        assert len(instances) == alive
    gc.collect()
    assert [was() is None for was in old] == [True, True, True, False]
    assert kept.box.comm is not None


def test_one_run_may_show_two_demos_and_one_demo_twice(shell):
    (first, _), (second, _) = make(), make()
    shell.show("cell", first, second, first)
    shell.show("below", second)
    shell.show("cell", first)
    assert first.box.comm is not None and second.box.comm is not None
    shell.show("cell", make()[0])
    assert first.box.comm is None and second.box.comm is not None


def test_controls_of_another_cell_stay_alive_and_no_longer_move_the_demo_before(shell):
    controls = {"height": widgets.slider("height", [1, 2, 3], 1, "")}
    figure, _ = plotting.figure()
    moved = []
    for name in "ab":
        shell.show("cell", widgets.Demo(figure, lambda height, name=name: moved.append(name) or f"It is {height}.", controls))
    moved.clear()
    controls["height"].value = 2
    assert moved == ["b"] and controls["height"].comm is not None


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: widgets.slider("a label that is far too long", [1], 1, ""), "at most 20 characters"),
        (lambda: widgets.slider("x", [1, 2], 3, ""), r"one of the options \[1, 2\]; got 3"),
        (lambda: make()[0].set(width=3), "no control 'width'; there are height, zoom"),
        (lambda: make()[0].set(height=-1), "height must be one of"),
    ],
)
def test_bad_input_says_what_is_wrong(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize(
    ("presets", "says"),
    [
        ({"Odd": {"depth": 3}}, "preset 'Odd': there is no control 'depth'"),
        ({"Odd": {"height": 5.5}}, "preset 'Odd': height must be one of"),
        ({"Reset": {"height": 5}}, "may not be called 'Reset'"),
    ],
)
def test_a_preset_that_would_do_nothing_is_refused(presets, says):
    demo, figure = make()
    with pytest.raises(ValueError, match=says):
        widgets.Demo(figure, demo.update, demo.controls, presets)


def one_control(control, update=lambda **_: "fine", **kwargs):
    return widgets.Demo(plotting.figure(width=3, height=2)[0], update, {"n": control}, **kwargs)


def numbers(*options):
    return widgets.slider("n", options or (1, 2, 3), *(options or (1,))[:1], "how many")


NAN = float("nan")


@pytest.mark.parametrize(
    ("options", "value", "says"),
    [
        ([], 1, "options of 'x' are empty: give at least one value"),
        (iter([]), 1, "are empty"),
        ([np.zeros(2), np.ones(2)], 0, r"must be numbers, texts .* not array\(\[0., 0.\]\); take a name for each"),
        ([np.zeros(()), 1], 1, "must be numbers, texts"),
        ([torch.zeros(1), torch.ones(1)], 0, "must be numbers, texts"),
        ([[1, 2, 3], [4, 5, 6]], 1, "must be numbers, texts"),
        ([(1, 2, [3])], 1, "must be numbers, texts"),
        ([1.0, NAN], 1.0, "must be numbers, texts .* not nan"),
        ([1.0, (1, 2, NAN)], 1.0, "must be numbers, texts .* not nan"),
        ([("a", NAN), ("b", 2.0)], 2.0, "must be numbers, texts .* not nan"),
        ([None, 1], None, "must be numbers, texts .* not None"),
        ([(1, 2), (3, 4)], (1, 2), r"\(1, 2\) could be either. Give each option its text"),
        ([(1, 2), (3, 4)], 2, "could be either"),
        ([("a", 1), 2], 1, r"not both; \('a', 1\) could be either"),
        ([("a", 1), ("b", 2), (3, 4, 5)], 1, "could be either"),
        ([("a", 1), ("a", 2)], 1, "the texts of the options of 'x' must differ; 'a' is there 2 times"),
        ([1, "1"], 1, "the texts of the options"),
        ([("a", 1), ("b", 1)], 1, "the values of the options of 'x' must differ; 1 is there 2 times"),
        ([1, 1.0], 1, "the values of the options"),
        ([1, 2], NAN, "value must be one of"),
        ([1, 2], np.array([1, 2]), "value must be one of"),
        ("ab", "a", "must be a list of values"),
        ({"a": 1}, 1, "must be a list of values"),
        (3, 3, "must be a list of values"),
    ],
)
@pytest.mark.parametrize("make_control", [widgets.slider, widgets.choice])
def test_options_that_cannot_be_told_apart_are_refused(make_control, options, value, says):
    with pytest.raises((ValueError, TypeError), match=says):
        make_control("x", options, value, "")


@pytest.mark.parametrize("options", [iter([1, 2, 3]), range(1, 4), np.array([1, 2, 3]), (1, 2, 3), {1: 0, 2: 0, 3: 0}.keys()])
def test_options_may_be_anything_that_can_be_gone_through_once(options):
    demo = one_control(widgets.choice("n", options, 2, ""), presets={"Three": {"n": 3}})
    buttons(demo)["Three"].click()
    assert demo.values == {"n": 3} and demo.error is None


def test_tuples_can_be_values_and_texts_have_theirs():
    demo = one_control(widgets.slider("n", [("wide", (3, 4)), ("deep", (1, 9))], (1, 9), ""), presets={"Wide": {"n": (3, 4)}})
    buttons(demo)["Wide"].click()
    assert demo.values == {"n": (3, 4)}
    assert one_control(widgets.choice("n", [(1, 2, 3), (4, 5, 6)], (4, 5, 6), "")).values == {"n": (4, 5, 6)}


@pytest.mark.parametrize(
    ("make_demo", "says"),
    [
        (
            lambda: one_control(numbers(), lambda m: ""),
            "update must be a function of the controls n; it takes .*: missing a required argument: 'm'",
        ),
        (lambda: one_control(numbers(), lambda: ""), "update must be a function of the controls n"),
        (lambda: one_control(numbers(), lambda n, m: ""), "update must be a function .* missing a required argument: 'm'"),
        (lambda: one_control(numbers(), lambda n, /: ""), "update must be a function of the controls n"),
        (lambda: one_control(numbers(), None), "update must be a function of the controls n; got None"),
        (lambda: one_control(numbers(), "fine"), "update must be a function"),
        (lambda: one_control(ipywidgets.IntSlider(3)), "control 'n' must be made by `slider` or `choice`; got IntSlider"),
        (lambda: one_control(ipywidgets.Checkbox()), "control 'n' must be made by"),
        (lambda: one_control([1, 2]), "control 'n' must be made by"),
        (lambda: one_control(ipywidgets.SelectMultiple(options=[1, 2])), "n must be one of"),
        (lambda: one_control(ipywidgets.Dropdown(options=[1, NAN])), "the options of 'n' must be numbers"),
        (lambda: one_control(ipywidgets.Dropdown(options=[1, 2], value=None)), r"n must be one of \[1, 2\]; got None"),
        (lambda: one_control(ipywidgets.Dropdown(options=[])), "the options of 'n' are empty"),
        (lambda: one_control(numbers(), presets={"": {"n": 2}}), "each name in presets must not be empty"),
        (lambda: one_control(numbers(), presets={" ": {"n": 2}}), "each name in presets must not be empty"),
        (lambda: one_control(numbers(), presets={2: {"n": 2}}), "each name in presets must be a text; got 2"),
        (lambda: one_control(numbers(), presets={"Two": {}}), "preset 'Two' must set at least one control"),
        (lambda: one_control(numbers(), presets={"Two": 2}), "preset 'Two' must be a dict; got 2"),
        (lambda: one_control(numbers(), presets={"Two": None}), "preset 'Two' must be a dict"),
        (lambda: one_control(numbers(), presets=["Two"]), "presets must be a dict"),
        (lambda: one_control(numbers(), presets={"Odd": {"n": np.array([1, 2])}}), "preset 'Odd': n must be one of"),
        (lambda: one_control(numbers(), presets={"Odd": {"n": [1]}}), "preset 'Odd': n must be one of"),
        (lambda: one_control(numbers(), presets={"Odd": {"n": NAN}}), "preset 'Odd': n must be one of"),
        (lambda: widgets.Demo(plotting.figure(width=3, height=2), lambda n: "", {"n": numbers()}), "figure must be the figure"),
        (lambda: widgets.Demo(Figure(), lambda n: "", {"n": numbers()}), "figure must be the figure"),
        (lambda: widgets.Demo(plotting.figure()[0], lambda n: "", [numbers()]), "controls must be a dict"),
        (lambda: widgets.Demo(plotting.figure()[0], lambda **_: "", {1: numbers()}), "each name in controls must be a text"),
        (lambda: widgets.slider("", [1], 1, ""), "label must not be empty"),
        (lambda: widgets.slider(3, [1], 1, ""), "label must be a text"),
        (lambda: widgets.choice("n", [1], 1, None), "tooltip must be a text"),
    ],
)
def test_what_a_demo_cannot_use_is_refused_when_it_is_made(make_demo, says):
    with pytest.raises((ValueError, TypeError), match=says):
        make_demo()


def swept(control, sentence=lambda **_: "fine", **kwargs):
    return widgets.LivingMap(lambda n: models.mlp(width=2), {"n": control}, sentence=sentence, **kwargs)


def one_map(**kwargs):
    return widgets.LivingMap(models.mlp(width=2), **kwargs)


@pytest.mark.parametrize(
    ("make_map", "says"),
    [
        (lambda: swept(numbers(), lambda m: ""), "sentence must be a function of the controls' values.*missing.*'m'"),
        (lambda: swept(numbers(), lambda: ""), "sentence must be a function"),
        (lambda: swept(numbers(), lambda n, m: ""), "sentence must be a function .* missing a required argument: 'm'"),
        (lambda: swept(numbers(), lambda n, /: ""), "sentence must be a function"),
        (lambda: swept(numbers(), "fine"), "sentence must be a function"),
        (
            lambda: widgets.LivingMap(lambda m: models.mlp(width=2), {"n": numbers()}),
            "networks must be a function of the controls",
        ),
        (lambda: widgets.LivingMap(lambda: models.mlp(width=2), {"n": numbers()}), "networks must be a function of the controls"),
        (lambda: widgets.LivingMap(lambda n, /: models.mlp(width=2), {"n": numbers()}), "networks must be a function of"),
        (lambda: widgets.LivingMap(None, {"n": numbers()}), "networks must be a network, or a function or a dict"),
        (lambda: widgets.LivingMap("a network"), "networks must be a network, or a function or a dict"),
        (lambda: widgets.LivingMap(lambda n: None, {"n": numbers()}), "network"),
        (lambda: swept(ipywidgets.IntSlider(3)), "control 'n' must be made by `slider` or `choice`; got IntSlider"),
        (lambda: swept(ipywidgets.Checkbox()), "control 'n' must be made by"),
        (lambda: swept([1, 2]), "control 'n' must be made by"),
        (lambda: swept(ipywidgets.SelectMultiple(options=[1, 2])), "control 'n' must be made by"),
        (lambda: swept(ipywidgets.Dropdown(options=[1, NAN])), "the options of 'n' must be numbers"),
        (lambda: swept(ipywidgets.Dropdown(options=[1, 2], value=None)), r"n must be one of \[1, 2\]; got None"),
        (lambda: swept(ipywidgets.Dropdown(options=[])), "the options of 'n' are empty"),
        (lambda: swept(numbers(), presets={"": {"n": 2}}), "each name in presets must not be empty"),
        (lambda: swept(numbers(), presets={" ": {"n": 2}}), "each name in presets must not be empty"),
        (lambda: swept(numbers(), presets={2: {"n": 2}}), "each name in presets must be a text; got 2"),
        (lambda: swept(numbers(), presets={"Two": {}}), "preset 'Two' must set at least one control"),
        (lambda: swept(numbers(), presets={"Two": 2}), "preset 'Two' must be a dict; got 2"),
        (lambda: swept(numbers(), presets={"Two": None}), "preset 'Two' must be a dict"),
        (lambda: swept(numbers(), presets=["Two"]), "presets must be a dict"),
        (lambda: swept(numbers(), presets=[]), "presets must be a dict"),
        (lambda: swept(numbers(), presets={"Odd": {"n": np.array([1, 2])}}), "preset 'Odd': n must be one of"),
        (lambda: swept(numbers(), presets={"Odd": {"n": [1]}}), "preset 'Odd': n must be one of"),
        (lambda: swept(numbers(), presets={"Odd": {"n": NAN}}), "preset 'Odd': n must be one of"),
        (lambda: swept(numbers(), presets={"Odd": {"depth": 3}}), "preset 'Odd': there is no control 'depth'"),
        (lambda: swept(numbers(), presets={"Odd": {"window": NAN}}), "preset 'Odd': window must be a half width"),
        (lambda: swept(numbers(), presets={"Odd": {"window": "wide"}}), "preset 'Odd': window must be a half width"),
        (lambda: widgets.LivingMap(models.mlp(width=2), [numbers()]), "controls must be a dict"),
        (lambda: widgets.LivingMap(models.mlp(width=2), []), "controls must be a dict"),
        (lambda: widgets.LivingMap(lambda **_: models.mlp(width=2), {1: numbers()}), "each name in controls must be a text"),
        (lambda: widgets.LivingMap({}, {"n": numbers()}), "networks must have one for every position"),
        (lambda: widgets.LivingMap({1: None, 2: None, 3: None}, {"n": numbers()}), "network"),
        (lambda: swept(numbers("a", "b"), window="n"), "half width"),
        (lambda: one_map(window=True), "window must be a half width"),
        (lambda: one_map(window=None), "window must be a half width"),
        (lambda: one_map(window=NAN), "window must be a half width"),
        (lambda: one_map(window=["n"]), "window must be a half width"),
        (lambda: one_map(colours=None), "colours must be one of"),
        (lambda: one_map(colours=["bands"]), "colours must be one of"),
        (lambda: one_map(title=None), "title must be a text"),
        (lambda: one_map(title=" "), "title must not be empty"),
        (lambda: one_map(classes=2.5), "classes"),
        (lambda: one_map(classes=True), "classes"),
        (lambda: one_map(classes="two"), "classes"),
        (lambda: one_map(world=3), "world must be a world"),
        (lambda: one_map(world="gaussians"), "world must be a world"),
        (lambda: one_map(world=data.TwoGaussians), "world must be a world"),
        (lambda: one_map(world=data.TwoGaussians(dim=3)), "3 inputs"),
        (lambda: one_map(world=data.FourGaussians()), "4 outputs"),
        (lambda: one_map(points=3), "points"),
        (lambda: one_map(points=[]), "points"),
        (lambda: one_map(points=([[0.0, 0]],)), "points"),
        (lambda: one_map(points=([[0.0, 0]], [0], [1])), "points"),
        (lambda: one_map(points=([[0.0, NAN]], [0])), "points"),
        (lambda: one_map(points=([[0.0, 0]], [NAN])), "points' y"),
        (lambda: one_map(points=([[0.0, 0]], [0, 1])), "points"),
        (lambda: one_map(points=([[0.0, 0]], ["a"])), "points"),
        (lambda: one_map(points=([[0.0, 0]], [2])), "classes 0 to 1"),
        (lambda: one_map(points=({"x": 1}, [2])), "points"),
        (lambda: one_map(axes=[[1.0, 0]]), "axes"),
        (lambda: one_map(axes="xy"), "axes"),
        (lambda: one_map(axes=[[1.0, 0], [0, NAN]]), "axes"),
        (lambda: one_map(origin=[0.0, 0]), "origin needs axes"),
        (lambda: one_map(axes=[[1.0, 0], [0, 1]], origin=[0.0]), "origin"),
        (lambda: one_map(axes=[[1.0, 0], [0, 1]], origin=[0.0, NAN]), "origin"),
        (lambda: one_map(sentence=None, presets={"Odd": {"n": 1}}), "there is no control 'n'"),
    ],
)
def test_what_a_map_cannot_use_is_refused_when_it_is_made(make_map, says):
    with pytest.raises((ValueError, TypeError), match=says):
        make_map()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"n_classes": 0}, "n_classes must be"),
        ({"n_classes": 5}, "n_classes must be at most 4"),
        ({"n_classes": 2.5}, "n_classes must be"),
        ({"n_classes": True}, "n_classes must be"),
        ({"n_classes": "two"}, "n_classes must be"),
        ({"n_classes": None}, "n_classes must be"),
        ({"std": 0}, "std must be"),
        ({"std": -1.0}, "std must be"),
        ({"std": NAN}, "std must be"),
        ({"std": float("inf")}, "std must be"),
        ({"std": "wide"}, "std must be"),
        ({"std": None}, "std must be"),
        ({"std": [1.0]}, "std must be"),
        ({"std": True}, "std must be"),
        ({"points": 3}, "points"),
        ({"points": ([[0.0, 0]],)}, "points"),
        ({"points": ([[0.0, NAN]], [0])}, "points"),
        ({"points": ([[0.0, 0]], [2])}, "classes 0 to 1"),
        ({"points": ([[0.0, 0]], [-2])}, "points"),
        ({"points": ([[0.0, 0, 0]], [0])}, "points"),
        ({"window": 0}, "window must be a half width"),
        ({"window": NAN}, "window must be a half width"),
        ({"window": "n"}, "window must be a half width"),
        ({"colours": "rainbow"}, "colours must be one of"),
        ({"title": ""}, "title must not be empty"),
        ({"title": 3}, "title must be a text"),
    ],
)
def test_what_cannot_be_painted_on_is_refused_when_it_is_made(settings, says):
    with pytest.raises((ValueError, TypeError), match=says):
        widgets.Painting(**settings)


@pytest.mark.parametrize(
    ("start", "draw", "says"),
    [
        (None, str, "start must be a function of nothing; got None"),
        (lambda seed: iter(()), str, "start must be a function of nothing; it takes .*'seed'"),
        (lambda: None, str, "start must return an iterator .* it returned None"),
        (lambda: 3, str, "start must return an iterator"),
        (lambda: iter(()), None, "draw must be a function of the number of steps; got None"),
        (lambda: iter(()), lambda: "", "draw must be a function of the number of steps; it takes"),
        (lambda: iter(()), lambda a, b: "", "draw must be a function of the number of steps"),
        (lambda: iter(()), lambda steps: None, "must return the sentence"),
    ],
)
def test_what_a_training_cannot_use_is_refused_when_it_is_made(start, draw, says):
    figure, _ = plotting.figure(width=3, height=2)
    with pytest.raises(TypeError, match=says):
        widgets.Live(figure, start, draw)
    with pytest.raises(TypeError, match="figure must be the figure"):
        widgets.Live(None, lambda: iter(()), str)


def test_an_update_that_returns_no_sentence_is_told_so():
    with pytest.raises(TypeError, match="must return the sentence"):
        make(update=lambda **_: None)


def make_live(fail_at=None, length=1000, **kwargs):
    fig, ax = plotting.figure(width=3, height=2)
    (bar,) = ax.bar([0], [0], color="black")
    ax.set(ylim=(0, 100))
    log = {"started": 0, "closed": 0}

    def start():
        log["started"] += 1
        try:
            for step in range(length):
                if step == fail_at:
                    raise RuntimeError("no more")
                time.sleep(0.002)
                yield step
        finally:
            log["closed"] += 1

    def draw(steps):
        bar.set_height(steps)
        return f"{steps} steps"

    return widgets.Live(fig, start, draw, **kwargs), log


def test_a_training_takes_its_first_steps_single_steps_and_begins_anew():
    live, log = make_live(first=5, stop=8)
    assert live.sentence == "5 steps" and not live.running
    area = dark(live)
    buttons(live)["Step"].click()
    assert live.sentence == "6 steps" and dark(live) > area
    live.step(100)
    assert live.sentence == "8 steps"
    buttons(live)["Reset"].click()
    assert live.sentence == "5 steps" and log == {"started": 2, "closed": 1}


def test_a_training_lets_the_event_loop_have_its_turn_and_pauses():
    live, _ = make_live()

    async def scenario():
        pictures = []
        live.image.observe(lambda change: pictures.append(live.steps), "value")
        buttons(live)["Train"].click()
        assert live.running and buttons(live)["Pause"]
        await asyncio.sleep(0.4)  # other work: it is not kept waiting until the training ends
        assert len(pictures) >= 2 and 0 < live.steps < 1000
        buttons(live)["Pause"].click()
        reached = live.steps
        await asyncio.sleep(0.1)
        assert live.steps == reached and not live.running and live._task.done()
        buttons(live)["Train"].click()
        await asyncio.sleep(0.2)
        live.pause()
        assert live.steps > reached  # it goes on where it was

    asyncio.run(scenario())


def test_a_training_ends_at_its_last_step_or_when_its_iterator_does():
    for live in (make_live(stop=20)[0], make_live(length=20)[0]):
        asyncio.run(until_done(live))
        assert not live.running and buttons(live)["Train"] and live.sentence == "20 steps"


async def until_done(live):
    await live.train()


def test_only_one_training_runs_at_a_time():
    first, second = make_live()[0], make_live()[0]

    async def scenario():
        first.train()
        await asyncio.sleep(0.1)
        second.train()
        assert second.running and not first.running and buttons(first)["Train"]
        second.pause()

    asyncio.run(scenario())


def test_an_error_in_a_training_is_shown_and_the_picture_stays():
    live, _ = make_live(fail_at=5, first=5)  # in the first slice, before a new picture
    before = live.image.value
    asyncio.run(until_done(live))
    assert "RuntimeError: no more" in live.text.value and live.image.value == before and not live.running
    buttons(live)["Reset"].click()
    assert live.sentence == "5 steps" and "RuntimeError" not in live.text.value
    with pytest.raises(RuntimeError, match="no more"):
        make_live(fail_at=3, first=5)
    with pytest.raises(ValueError, match="0 <= first <= stop"):
        make_live(first=9, stop=8)


def test_a_training_can_be_begun_anew_from_another_thread():
    live, _ = make_live(first=5)

    def reset_soon():
        time.sleep(0.03)  # by now the event loop's thread is in a slice of training
        live.reset()

    async def scenario():
        task = live.train()
        for _ in range(10):
            await asyncio.to_thread(reset_soon)
            assert live.sentence == "5 steps" and not live.running
            task = live.train()
            await asyncio.sleep(0.02)
        live.pause()
        await task

    asyncio.run(scenario())
    assert "failed" not in live.text.value


ANSWERS = {"a <b>": "No `x`, that *was* wrong.", "two": "Because it is."}


def test_a_question_says_whether_a_choice_is_right_and_why():
    question = widgets.Question("Which?", ANSWERS, "two")
    assert question.text.value == "" and not any(button.icon for button in question.choices.values())
    question.choices["a <b>"].click()
    assert "✗" in question.text.value and "No <code>x</code>, that <em>was</em> wrong." in question.text.value
    question.choices["two"].click()
    assert [button.icon for button in question.choices.values()] == ["times", "check"]
    assert question.choices["a <b>"].style.text_color == "black"  # white on orange is hard to read
    assert "✓" in question.text.value and "Because it is." in question.text.value


def test_in_a_vote_hands_are_counted_and_the_answer_waits():
    question = widgets.Question("Which?", ANSWERS, "two")
    question.choices["a <b>"].click()
    question.voting.value = True
    assert question.text.value == "" and question.opening.layout.visibility == "visible"
    for choice in ("two", "a <b>", "two"):
        question.choices[choice].click()
    assert [button.description for button in question.choices.values()] == ["a <b> · 1", "two · 2"]
    assert question.text.value == "" and not any(button.icon for button in question.choices.values())
    question.opening.click()
    assert [button.description for button in question.choices.values()] == ["a <b> · 1", "two · 2"]
    assert "✓" in question.text.value and question.choices["two"].icon == "check" and not question.choices["a <b>"].icon
    assert not question.voting.value and question.opening.layout.visibility == "hidden"
    question.voting.value = True
    assert [button.description for button in question.choices.values()] == ["a <b>", "two"] and question.text.value == ""


def test_a_question_without_a_kernel_folds_its_answer(displayed):
    widgets.Question("Which?", ANSWERS, "two")._ipython_display_()
    words, widget = displayed
    asked, folded = words["text/markdown"].split("<details>")
    assert "application/vnd.jupyter.widget-view+json" in widget
    assert "Which?" in asked and "- two" in asked and "Because" not in asked
    assert folded.index("**two.** Because it is.") < folded.index("*a <b>?* No `x`") < folded.index("</details>")


@pytest.mark.parametrize("answers, right", [(ANSWERS, "three"), ({"two": "only one"}, "two")])
def test_a_question_needs_its_right_answer_among_two(answers, right):
    with pytest.raises(ValueError, match="right must be one of at least two answers"):
        widgets.Question("Which?", answers, right)


@pytest.mark.parametrize(
    ("question", "answers", "right", "says"),
    [
        ("", ANSWERS, "two", "question must not be empty"),
        (None, ANSWERS, "two", "question must be a text"),
        ("Which?", {"": "No.", "two": "Yes."}, "two", "each name in answers must not be empty"),
        ("Which?", {1: "No.", "two": "Yes."}, "two", "each name in answers must be a text; got 1"),
        ("Which?", {"one": "", "two": "Yes."}, "two", "what is said of 'one' must not be empty"),
        ("Which?", {"one": None, "two": "Yes."}, "two", "what is said of 'one' must be a text"),
        ("Which?", ["one", "two"], "two", "answers must be a dict"),
        ("Which?", ANSWERS, ["two"], "right must be a text"),
        ("Which?", ANSWERS, "", "right must not be empty"),
        ("Which?", {}, "two", "right must be one of at least two answers"),
    ],
)
def test_what_a_question_cannot_show_is_refused_when_it_is_made(question, answers, right, says):
    with pytest.raises((ValueError, TypeError), match=says):
        widgets.Question(question, answers, right)
