"""Demos: values in, picture and sentence out."""

import base64
import io

import ipywidgets
import numpy as np
import pytest
from PIL import Image

from ood_helpers import plotting, widgets


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


def test_a_reader_without_a_kernel_gets_picture_and_sentence(monkeypatch):
    shown = []
    monkeypatch.setattr(widgets, "display", lambda bundle, raw: shown.append((bundle, raw)))
    demo, _ = make()
    demo._ipython_display_()
    ((bundle, raw),) = shown
    assert raw and {"application/vnd.jupyter.widget-view+json", "image/png", "text/markdown", "text/plain"} <= set(bundle)
    assert bundle["text/markdown"] == demo.sentence


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: widgets.slider("a label that is far too long", [1], 1, ""), "at most 20 characters"),
        (lambda: widgets.slider("x", [1, 2], 3, ""), r"one of the options \[1, 2\]; got 3"),
        (lambda: make()[0].set(width=3), "no control 'width'; there are height, zoom"),
    ],
)
def test_bad_input_says_what_is_wrong(call, says):
    with pytest.raises(ValueError, match=says):
        call()
