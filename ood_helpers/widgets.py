"""From sliders to pictures: the one pattern behind every live demo.

A figure is made once. When a control moves (`Demo`) or a training goes on (`Live`), the figure's artists are changed, the figure
is drawn by Agg, and the bytes go to one image widget. Nothing is stacked, nothing flickers, and a move costs one drawing.
"""

import asyncio
import base64
import html
import io
import re
import threading
import time

import ipywidgets
import numpy as np
from IPython.display import display
from matplotlib.axis import Axis
from matplotlib.legend import Legend
from PIL import Image

LABEL = {"description_width": "9em"}
LAYOUT = {"width": "26em"}


def slider(label, options, value, tooltip):
    """A slider over `options` (a list of values, or of (text, value) pairs). The label has at most 20 characters."""
    return _labelled(ipywidgets.SelectionSlider, label, tooltip, options=options, value=value)


def choice(label, options, value, tooltip):
    """A drop-down choice among `options`."""
    return _labelled(ipywidgets.Dropdown, label, tooltip, options=options, value=value)


def _labelled(kind, label, tooltip, **kwargs):
    if len(label) > 20:
        raise ValueError(f"label must have at most 20 characters, or it is cut on the page; {label!r} has {len(label)}")
    values = [o[1] if isinstance(o, tuple) else o for o in kwargs["options"]]
    if kwargs["value"] not in values:
        raise ValueError(f"value must be one of the options {values}; got {kwargs['value']!r}")
    return kind(description=label, tooltip=tooltip, style=LABEL, layout=LAYOUT, **kwargs)


class _Picture:
    """A figure as an image widget with a sentence below it, and as a static picture for readers without a kernel."""

    def __init__(self, figure, rows):
        self.figure, self._sentence, self.error = figure, "", None
        # shown pixel for pixel, smaller only where the page, less 4 px of margins, is narrower; otherwise the page stretches it
        layout = {"width": f"{figure.bbox.width:.0f}px", "max_width": "calc(100% - 4px)", "align_self": "flex-start"}
        self.image = ipywidgets.Image(format="url", layout=layout)
        self.text = ipywidgets.HTML()
        self.text.add_class("ood-sentence")
        wrap = ipywidgets.Layout(flex_flow="row wrap")
        self.box = ipywidgets.VBox([*(ipywidgets.HBox(row, layout=wrap) for row in rows), self.image, self.text])
        self.box.add_class("ood-demo")
        self._frame, self._background = None, None
        self._lock = threading.RLock()  # the kernel may serve a widget and a cell, or two widgets, in different threads

    @property
    def sentence(self):
        """The sentence below the picture, as plain text."""
        return self._sentence

    def _show(self, sentence):
        """Draw the figure as it is now, with this sentence."""
        self._sentence, self.error = sentence, None
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

    def _ipython_display_(self):
        png = base64.b64encode(self._encoded("png")).decode()
        static = {"image/png": png, "text/markdown": self._sentence, "text/plain": self._sentence}
        display(self.box._repr_mimebundle_() | static, raw=True)


class Demo(_Picture):
    """A live figure: controls above it, a sentence with its numbers below it.

    figure    a figure from `plotting.figure`, with all its artists
    update    update(**values) changes the artists and returns the sentence; values are those of the controls, by name
    controls  name -> control (`slider`, `choice`)
    presets   name -> values, one button each; "Reset" is added and goes back to the controls' first values

    A cell that ends in a demo shows it. A notebook read without a kernel shows the first picture and sentence instead.
    An error in `update` appears in place of the sentence, and the picture stays.
    """

    def __init__(self, figure, update, controls, presets=None):
        self.update, self.controls = update, controls
        first = {name: control.value for name, control in controls.items()}
        buttons = [self._preset(name, values) for name, values in {"Reset": first, **(presets or {})}.items()]
        super().__init__(figure, [list(controls.values()), buttons])
        for control in controls.values():
            control.observe(self._moved, "value")
        self._frozen = False
        self.refresh()

    @property
    def values(self):
        """The controls' values by name."""
        return {name: control.value for name, control in self.controls.items()}

    def set(self, **values):
        """Move several controls at once, drawing once. ValueError names a control that does not exist."""
        for name in values:
            if name not in self.controls:
                raise ValueError(f"there is no control {name!r}; there are {', '.join(self.controls)}")
        self._frozen = True
        try:
            for name, value in values.items():
                self.controls[name].value = value
        finally:
            self._frozen = False
        self._moved()

    def refresh(self):
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


class Live(_Picture):
    """A training to watch: Train and Pause, one Step, Reset; the picture follows the training about ten times a second.

    figure  a figure from `plotting.figure`, with all its artists
    start   start() begins anew and returns an iterator that takes one training step each time it is asked (`train_steps`)
    draw    draw(steps) changes the artists to what the training has reached after so many steps, and returns the sentence
    stop    the number of steps after which the training pauses for good
    first   steps taken at once, so that there is something to see

    Training is a task of the kernel's own event loop that lets others have their turn between two pictures: other cells can be
    run meanwhile, and Pause works at once. Only one training runs at a time; starting another pauses it. An error appears in
    place of the sentence, and the picture stays.
    """

    SLICE = 0.05  # seconds of training between two pictures
    _running = None

    def __init__(self, figure, start, draw, stop=3000, first=0):
        if not (isinstance(stop, int) and isinstance(first, int) and 0 <= first <= stop):
            raise ValueError(f"stop and first must be whole numbers, 0 <= first <= stop; got stop {stop}, first {first}")
        self.start, self.draw, self.stop, self.first = start, draw, stop, first
        names = {"Train": "let it train, or pause it", "Step": "one training step", "Reset": "begin anew"}
        self._train, step, reset = (ipywidgets.Button(description=name, tooltip=tip) for name, tip in names.items())
        super().__init__(figure, [[self._train, step, reset]])
        self._train.on_click(lambda _: self.pause() if self.running else self.train())
        step.on_click(lambda _: self.step())
        reset.on_click(lambda _: self.reset())
        self._begin()
        self._advance(first, np.inf)  # an error here is the notebook's: it is raised

    @property
    def running(self):
        return Live._running is self

    def reset(self):
        """Begin anew, with the `first` steps."""
        self.pause()
        with self._lock:
            if hasattr(self.training, "close"):
                self.training.close()
            self._begin()
            self._guarded(lambda: self._advance(self.first, np.inf))

    def step(self, steps=1):
        """Take some steps and draw."""
        self.pause()
        self._guarded(lambda: self._advance(steps, np.inf))

    def train(self):
        """Go on until `pause` or the last step. Needs a running event loop, as in Jupyter. Returns the task."""
        if Live._running:
            Live._running.pause()
        Live._running, self._train.description = self, "Pause"
        self._task = asyncio.get_running_loop().create_task(self._run())  # kept: a task that nobody holds may be collected
        return self._task

    def pause(self):
        """Stop after the present slice of training; `train` goes on from there."""
        if self.running:
            Live._running = None
        self._train.description = "Train"

    async def _run(self):
        task = self._task
        while self.running and task is self._task:
            self._guarded(self._slice)
            await asyncio.sleep(0.01)  # the event loop's turn: buttons, other cells

    def _begin(self):
        self.training, self.steps = iter(self.start()), 0

    def _slice(self):
        if self.running:  # still, now that nothing else can happen
            self._advance(self.stop, self.SLICE)

    def _guarded(self, act):
        try:
            with self._lock:
                act()
        except Exception as error:
            self.pause()
            self._failed(error, "The training")

    def _advance(self, steps, seconds):
        """Up to so many steps, in up to so many seconds, then a picture."""
        end = time.perf_counter() + seconds
        for _ in range(min(steps, self.stop - self.steps)):
            if next(self.training, self) is self:  # the iterator has come to its end
                self.pause()
                break
            self.steps += 1
            if time.perf_counter() > end:
                break
        if self.steps >= self.stop:
            self.pause()
        self._show(self.draw(self.steps))


class Question:
    """A quick question: choose an answer, and read at once whether it is right, and why.

    question  one or two sentences
    answers   choice -> what to say to whoever chose it, at least two
    right     the right choice

    A cell that ends in a question shows it. A notebook read without a kernel shows the choices, and the answer folded away.
    """

    def __init__(self, question, answers, right):
        if right not in answers or len(answers) < 2:
            raise ValueError(f"right must be one of at least two answers {list(answers)}; got {right!r}")
        self.question, self.answers, self.right = question, answers, right
        # not radio buttons: JupyterLab takes the arrow keys for its cells
        self.choices = {choice: ipywidgets.Button(description=choice, layout={"width": "auto"}) for choice in answers}
        for choice, button in self.choices.items():
            button.on_click(lambda _, choice=choice: self.choose(choice))
        self.text = ipywidgets.HTML()
        asked = ipywidgets.HTML(f'<p style="font-size:115%;line-height:1.4"><b>Question.</b> {_inline(question)}</p>')
        self.box = ipywidgets.VBox([asked, *self.choices.values(), self.text], layout={"align_items": "flex-start"})
        self.box.add_class("ood-question")

    def choose(self, choice):
        """Mark a choice as right or wrong and show the reason."""
        right = choice == self.right
        button = self.choices[choice]
        button.icon, button.button_style = ("check", "success") if right else ("times", "warning")
        button.style.text_color = "white" if right else "black"  # on green, on orange
        verdict, reason = "✓ Right." if right else "✗ No.", _inline(self.answers[choice])
        style = "font-size:115%;line-height:1.4;max-width:56em"
        self.text.value = f'<p role="status" style="{style}"><b>{verdict}</b> {reason}</p>'

    def _ipython_display_(self):
        choices = "\n".join(f"- {choice}" for choice in self.answers)
        others = " ".join(f"*{choice}?* {why}" for choice, why in self.answers.items() if choice != self.right)
        answer = f"**{self.right}.** {self.answers[self.right]} {others}"
        markdown = f"**Question.** {self.question}\n\n{choices}\n\n<details><summary>Answer</summary>\n\n{answer}\n\n</details>"
        display(self.box._repr_mimebundle_() | {"text/markdown": markdown, "text/plain": self.question}, raw=True)


def _inline(text):
    """Plain text as HTML, with `code` and *emphasis*."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
    return re.sub(r"\*([^*]+)\*", r"<em>\1</em>", text)


def _contents(ax):
    """The artists of `ax` from bottom to top, without its background, ticks, titles and legend."""
    frame = (ax.patch, ax.title, ax._left_title, ax._right_title)
    inside = [a for a in ax.get_children() if a not in frame and not isinstance(a, Axis | Legend)]
    return sorted(inside, key=lambda artist: artist.get_zorder())
