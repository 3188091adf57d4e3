"""From sliders to pictures: the one pattern behind every live demo.

A figure is made once. When a control moves (`Demo`) or a training goes on (`Live`), the figure's artists are changed, the figure
is drawn by Agg, and the bytes go to one image widget. Nothing is stacked, nothing flickers, and a move costs one drawing.
"""

import base64
import html
import io
import threading
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from PIL import Image

from . import given
from .controls import pairs_of
from .living_map import LivingMap
from .page import close, show


class Picture:
    """A figure, or a living map, with a sentence, and as a static picture for readers without a kernel."""

    def __init__(self, figure, rows):
        self._maps = isinstance(figure, LivingMap)
        if not self._maps:
            given.figure(figure)
        self.figure, self._sentence, self.error = figure, "", None
        self.image = figure if self._maps else self._image(figure)
        self.text = ipywidgets.HTML()
        self.text.add_class("ood-sentence")
        self.box = ipywidgets.VBox([*map(_row, rows), *self._picture()])
        self.box.add_class("ood-demo")
        self._frame, self._background = None, None
        self._lock = threading.RLock()  # the kernel may serve a widget and a cell, or two widgets, in different threads

    def _picture(self):
        """The figure and, below it, its sentence; beside a map, where there is room, so that both are in sight."""
        if not self._maps:
            return [self.image, self.text]
        map_, text = self.image.layout, self.text.layout
        map_.flex, map_.min_width, map_.max_width, text.flex, text.min_width = (
            "1 1 340px",
            "min(100%, 340px)",
            "540px",
            "1 1 15em",
            "0",
        )
        return [_row([self.image, self.text])]

    def _image(self, figure):
        # shown pixel for pixel, smaller only where the page, less 4 px of margins, is narrower; otherwise the page stretches it
        layout = {"width": f"{figure.bbox.width:.0f}px", "max_width": "calc(100% - 4px)", "align_self": "flex-start"}
        return ipywidgets.Image(format="url", layout=layout)

    @property
    def sentence(self) -> str:
        """The sentence below the picture, as plain text."""
        return self._sentence

    def _show(self, sentence, extras=None):
        """Draw the figure as it is now, with this sentence; `extras` are for a map."""
        if not isinstance(sentence, str):
            raise TypeError(f"update, or draw, must return the sentence below the picture, a text; it returned {sentence!r}")
        self._sentence, self.error = sentence, None
        if self._maps:
            self.figure.refresh(**(extras or {}))
        else:
            self._draw()
            # a data address spares the page a fetch, and a JPEG of this quality takes a third of the time of a PNG
            jpeg = self._encoded("jpeg", quality=92, subsampling=0)
            self.image.value = b"data:image/jpeg;base64," + base64.b64encode(jpeg)
        self.text.value = (
            f'<p role="status" style="font-size:115%;line-height:1.4;max-width:56em">{html.escape(self._sentence)}</p>'
        )

    def _failed(self, error, what):
        self.error = error
        self.text.value = f"<b>{what} failed: {html.escape(f'{type(error).__name__}: {error}')}</b>"

    def _draw(self):
        """Draw the figure. Axes, titles and legends cost most and seldom change: a background keeps them."""
        canvas = self.figure.canvas
        contents = [artist for ax in self.figure.axes for artist in _contents(ax)]
        frame = [(ax.get_xlim(), ax.get_ylim(), ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) for ax in self.figure.axes]
        if frame != self._frame:
            for artist in contents:
                artist.set_animated(True)  # left out of the background
            canvas.draw()
            self.figure.set_layout_engine("none")  # the layout is found once
            self._frame, self._background = frame, canvas.copy_from_bbox(self.figure.bbox)
        canvas.restore_region(self._background)
        for artist in contents:
            self.figure.draw_artist(artist)

    def _encoded(self, format, **options):
        """The drawn figure as bytes of a picture."""
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(self.figure.canvas.buffer_rgba())[..., :3]).save(buffer, format, **options)
        return buffer.getvalue()

    def close(self):
        """Free what the page holds of it; a cell that is run again closes what it showed before."""
        close(self)

    def _ipython_display_(self):
        show(self, self._sentence, self.figure.picture() if self._maps else self._encoded("png"))


def _row(widgets):
    """Widgets side by side, in further rows where the page is narrow."""
    return ipywidgets.HBox(widgets, layout=ipywidgets.Layout(flex_flow="row wrap"))


class Demo(Picture):
    """A live figure: controls above it, a sentence with its numbers below it.

    figure    a figure from `plotting.figure`, with all its artists
    update    update(**values) changes the artists and returns the sentence; values are those of the controls, by name
    controls  name -> control (`slider`, `choice`)
    presets   name -> values, one button each; "Reset" is added and goes back to the controls' first values

    A cell that ends in a demo shows it. A notebook read without a kernel shows the first picture and sentence instead.
    An error in `update` appears in place of the sentence, and the picture stays. All that is given is checked first: ValueError
    or TypeError names an `update` that does not take the controls' names, and a preset with a control, or a value of a control,
    that does not exist.
    """

    def __init__(
        self,
        figure: Figure,
        update: Callable[..., str],
        controls: Mapping[str, ipywidgets.Widget],
        presets: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        given.table("controls", controls)
        given.function("update", update, f"the controls {', '.join(controls)}", **controls)
        self.update, self.controls = update, controls
        for name, control in controls.items():
            if not (hasattr(control, "options") and hasattr(control, "value")):
                raise TypeError(f"control {name!r} must be made by `slider` or `choice`; got {type(control).__name__}")
            self._check({name: control.value})
        presets = {} if presets is None else presets
        given.presets(presets, self._check)
        first = {name: control.value for name, control in controls.items()}
        buttons = [self._preset(name, values) for name, values in {"Reset": first, **presets}.items()]
        super().__init__(figure, [list(controls.values()), buttons])
        for control in controls.values():
            control.observe(self._moved, "value")
        self._frozen = False
        self.refresh()

    @property
    def values(self) -> dict[str, Any]:
        """The controls' values by name."""
        return {name: control.value for name, control in self.controls.items()}

    def set(self, **values: Any) -> None:
        """Move several controls at once, drawing once. ValueError names a control, or a value, that does not exist."""
        self._check(values)
        self._frozen = True
        try:
            for name, value in values.items():
                self.controls[name].value = value
        finally:
            self._frozen = False
        self._moved()

    def _check(self, values):
        for name, value in values.items():
            if name not in self.controls:
                raise ValueError(f"there is no control {name!r}; there are {', '.join(self.controls)}")
            options = [option for _, option in pairs_of(name, self.controls[name].options)]
            if not given.among(value, options):
                raise ValueError(f"{name} must be one of {options}; got {value!r}")

    def close(self):
        for control in self.controls.values():
            control.unobserve(self._moved, "value")  # another demo may use it
        super().close()

    def refresh(self) -> None:
        """Draw the picture for the present values."""
        with self._lock:
            self._show(self.update(**self.values))

    def _moved(self, _change=None):
        if self._frozen:
            return
        try:
            self.refresh()
        except Exception as error:
            self._failed(error, "This setting")

    def _preset(self, name, values):
        button = ipywidgets.Button(description=name, tooltip=", ".join(f"{k} = {v}" for k, v in values.items()))
        button.layout.width = "auto"
        button.on_click(lambda _: self.set(**values))
        return button


def _contents(ax):
    """The artists of `ax` from bottom to top, without its background, ticks, titles and legend."""
    frame = (ax.patch, ax.title, ax._left_title, ax._right_title)
    inside = [a for a in ax.get_children() if a not in frame and not isinstance(a, Axis | Legend)]
    return sorted(inside, key=lambda artist: artist.get_zorder())
