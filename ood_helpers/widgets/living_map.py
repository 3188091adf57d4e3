"""The living map: a network with two inputs, drawn exactly by the page itself, that the reader can touch.

Only the weights travel, as float32, which loses nothing. `living_map.js` finds, row of pixels by row of pixels, the pieces on
which the network is affine, and draws each as it is: at any zoom, for any position of the controls, without the kernel.
Where a network is no chain of matrices the kernel finds the pieces, window by window (`slices.py`).
"""

import asyncio
import base64
import io
import itertools
import math
import threading
import time
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import matplotlib
import numpy as np
import traitlets
from IPython import get_ipython
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch
from PIL import Image
from torch import nn

from ood_helpers import plotting, polytopes
from ood_helpers.arrays import Numbers, float64, whole
from ood_helpers.polytopes.graph import Graph

from . import given
from .controls import pairs_of
from .page import show
from .slices import Slice

_SIZE = 440  # pixels of the map's side, where the page is wide enough
_AT_ONCE = 2_000_000  # bytes of networks that are in the page from the start; others come when they are first wanted
_AHEAD = 12  # sentences that are made ahead around a position, while the kernel is idle
_COLOURS = ("bands", "classes", "shades")
_SMOOTH = {nn.Sigmoid: ("sigmoid", 0.7310585786300049), nn.Tanh: ("tanh", 0.7615941559557649)}  # and the leak that stands for it
_BEND = {"sigmoid": lambda z: 0.5 * (1 + np.tanh(z / 2)), "tanh": np.tanh}
_BINS = 20  # of a histogram
_HINT = "Point at the map. Click: a ray to infinity. Drag, wheel, arrow keys, + and −: move and zoom. Double click: back."
_LEAST = 0.12  # colour that "shades" give where all classes are equally likely


class LivingMap(anywidget.AnyWidget):
    """A map of one network, or of a sweep of networks with a control for each of its axes.

    networks   one network of two inputs, or of d inputs with `axes`: an nn.Sequential of Linear and ReLU, LeakyReLU, Sigmoid or
               Tanh, or any module that `polytopes.read` takes, with convolutions, pools, skips; or a sweep: a function
               networks(**values) -> network, or a dict from the controls' values, in their order, as a tuple (or the value
               itself where there is one control) -> network. Every position must have one. The control `window` is no axis of it
    controls   name -> control (`slider`, `choice`), for a sweep
    world      its classes are outlined at 3 standard deviations, and counted
    classes    how many classes there are, if no world says it: a network with one output more has reject as its last one
    colours    "bands": the paper's three bands of confidence, what is rejected in grey · "classes": the winner, reject in pale
               grey · "shades": the winner, the paler the less sure
    window     half the width of the first picture, around the origin, from 1e-4 to 1e6; or the name of the control that says it
    points     (x [n, 2], y [n]): points to show, y = -1 for OOD; fewer than ten are large, with the number of their class
    sentence   sentence(**values) -> text below the map, a number or two; or (text, extras) with a dict of any of
               "star" a point [2] to mark · "bars" name -> confidences [n], two histograms beside the map · "points" as above ·
               "figure" a figure to show beside the map. It is computed in the kernel once per position, that of the reader first,
               then, while the kernel is idle, those around it, and kept; "…" stands there until then
    presets    name -> values of the controls, and perhaps "window": a half width; "Reset" is added
    axes, origin  for networks of d inputs: the plane origin + s₁·axes[0] + s₂·axes[1], axes [2, d], origin [d] (default: 0), or
               in the shape that one input has
    patience   seconds in which the kernel must be able to find the polytopes of a window, for a network that is no chain
    title      what the map shows, for those who cannot see it

    The wheel (after a click, or with Ctrl) or + and − zoom, a drag or the arrow keys move, a double click or Home goes back.
    Pointing shows the class, confidence and logits at a place; a click (or Enter) draws the ray to infinity through it, and says
    who wins there. The frame is the ring of directions, each in the colour of its k*, black where classes tie.

    Of a network that is no chain of matrices the kernel finds what is shown, window by window: all polytopes, if they are few
    enough for `patience`, which the page then draws exactly and moves and zooms within; else the logits at 220 × 220 points, say
    (55 to 440 a side). What it is stands below the map. Hatched is what is not computed yet. The frame is of 720 directions.
    ValueError names what is wrong: a position without a network, networks of other than two inputs, NaN weights, a preset that
    does not exist. Networks with sigmoids or tanh have no polytopes: they are drawn pixel by pixel, and it says so.
    """

    _esm = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")  # a Path would be watched, and keep every map alive
    spec = traitlets.Dict().tag(sync=True)
    weights = traitlets.Bytes().tag(sync=True)
    rings = traitlets.Dict().tag(sync=True)
    position = traitlets.List().tag(sync=True)
    window = traitlets.Dict().tag(sync=True)
    notes = traitlets.Dict().tag(sync=True)
    painted = traitlets.List().tag(sync=True)

    def __init__(
        self,
        networks: nn.Module | Mapping[Any, nn.Module] | Callable[..., nn.Module] | None,
        controls: Mapping[str, ipywidgets.Widget] | None = None,
        *,
        world: Any = None,
        classes: int | None = None,
        colours: str = "bands",
        window: float | str = 50.0,
        points: tuple[Numbers, Numbers] | None = None,
        sentence: Callable[..., str | tuple[str, dict]] | None = None,
        presets: Mapping[str, Mapping[str, Any]] | None = None,
        axes: Numbers | None = None,
        origin: Numbers | None = None,
        patience: float = 2.0,
        title: str = "A map of the network's answers",
    ) -> None:
        if colours not in _COLOURS:
            raise ValueError(f"colours must be one of {', '.join(_COLOURS)}; got {colours!r}")
        given.text("title", title)
        self.controls, presets = ({} if table is None else table for table in (controls, presets))
        given.table("controls", self.controls)
        if origin is not None and axes is None:
            raise ValueError("origin needs axes, the two directions of the plane through it")
        _check_world(world, 2 if axes is None else math.prod(float64(axes, "axes").shape[1:]))
        self.names, self.options, first, shapes = _controls(self.controls)
        if sentence is not None:
            given.function("sentence", sentence, "the controls' values, by name", **self._values(first))
        halves = [_half(half) for half in (self.options[window] if window in self.names else [window])]
        self._zoomed = self.names.index(window) if window in self.names else None
        half = halves[first[self._zoomed] if self._zoomed is not None else 0]
        if callable(networks) and not isinstance(networks, nn.Module):
            of = {name: value for name, value in self._values(first).items() if name != window}
            given.function("networks", networks, f"the controls {', '.join(of)}", **of)
        if isinstance(patience, bool) or not isinstance(patience, Real) or not 0 <= patience < math.inf:
            raise ValueError(f"patience must be a number of seconds, 0 or more; got {patience!r}")
        self._say, self._axes, self._origin, self._colours, self._patience = sentence, axes, origin, colours, patience
        self._classes = getattr(world, "n_classes", None) if classes is None else whole("classes", classes, 1)
        self._notes, self._wanted, self._ahead, self._working = {}, [], None, threading.Lock()
        fixed = {
            "controls": shapes,
            "presets": self._presets(presets, first, halves, half),
            "zoomed": self._zoomed,
            "halves": halves,
            "discs": _discs(world) if axes is None else [],
            "outlines": _outlines(world) if axes is None else [],
            "points": _points(points),
            "window": {"x": 0.0, "y": 0.0, "half": half},
            "axes": ["x₁", "x₂"] if axes is None else ["s₁", "s₂"],
            "size": _SIZE,
            "title": title,
            "hint": self._hint(),
            "speaks": sentence is not None,
            "paint": 0,
        }
        sweep = self._sweep(networks)
        super().__init__(position=first, window=fixed["window"], **self._drawn(sweep, first, fixed))
        self._loop = _running_loop()
        self.on_msg(self._asked)

    def _sweep(self, networks):
        return _sweep(networks, self.names, self.options, self._zoomed)

    def _drawn(self, sweep, first, fixed):
        """The state that shows other networks: place -> network."""
        self.networks = sweep
        self._distinct = list({id(network): network for network in sweep.values()}.values())
        self._index = {id(network): i for i, network in enumerate(self._distinct)}
        self._take()
        if self._classes is None and len(outputs := {read.n_classes for read in self._read}) > 1:
            raise ValueError(f"classes must say how many there are, where networks differ in their outputs: {sorted(outputs)}")
        rejects = [_rejects(read, self._classes) for read in self._read]
        classes = self._classes or max((read.n_classes for read in self._read), default=0)
        if any(k >= classes for *_, k in fixed["points"]):
            raise ValueError(f"points must be of the classes 0 to {classes - 1}, or -1 for OOD")
        at, double = self._at_once(first), any((own != own.astype("f4")).any() for own in self._numbers)
        self._type = "<f8" if double else "<f4"
        shapes = [
            {"at": at[i], "reject": int(rejects[i]), "outputs": read.n_classes, "slice": i in self._slices} | _shape(read)
            for i, read in enumerate(self._read)
        ]
        places = {_key(place): self._index[id(network)] for place, network in sweep.items()}
        look = _look(self._read, rejects, self._colours, self._classes or 0)
        spec = fixed | look | {"places": places, "networks": shapes, "double": double}
        weights, rings = self._packed([i for i in at if at[i] is not None])
        return {"spec": spec, "weights": weights, "rings": rings}

    def _take(self):
        """Read the networks' present weights."""
        self._read = [_plane(network, self._axes, self._origin) for network in self._distinct]
        self._numbers = [_numbers(read) for read in self._read]
        graphs = [i for i, read in enumerate(self._read) if isinstance(read, Graph)]
        self._slices, self._looking = {i: Slice(self._read[i], self._patience) for i in graphs}, None

    def _hint(self):
        return _HINT

    @property
    def box(self):
        """What is shown, for `page.show`."""
        return self

    @property
    def values(self) -> dict[str, Any]:
        """The controls' values by name."""
        return self._values(self.position)

    @property
    def network(self):
        """The network that is shown."""
        return self.networks.get(self._axes_of(self.position))

    def set(self, **values: Any) -> None:
        """Move controls. ValueError names a control, or a value, that does not exist."""
        self.position = self._place(values, self.position)

    def words(self) -> str:
        """The sentence of the present position, as plain text; it is computed now if need be."""
        if not self._say:
            return ""
        note = self._note(self.position)
        self.notes = {_key(self.position): note}  # the page need not ask for the first one
        return note["text"]

    def picture(self) -> bytes:
        """The bytes of a PNG of the present position, for readers without a kernel: the same numbers, in the first window."""
        i = self._number_of(self.position)
        image = None if i is None else self._image(i)
        return _png(self, image, self._note(self.position) if self._say else self.notes.get(_key(self.position), {}))

    def _image(self, i):
        """RGB of network i in the present window, [side, side, 3]."""
        reject, look = self.spec["networks"][i]["reject"], self.spec["look"]
        if i not in self._slices:
            return _colours(_as(self._type, self._read[i]), reject, look, self.window["half"])
        logits = self._slices[i].points({"x": 0.0, "y": 0.0, "half": self.window["half"]})
        return _shade(logits.reshape(-1, logits.shape[-1]), reject, look).reshape(*logits.shape[:2], 3)

    def still(self, places: list[tuple[int, ...]] | None = None) -> dict:
        """The state that `living_map.js` needs in a page without a kernel: a dict for JSON, its weights in base64.

        places  the positions that can be shown there, each a tuple of the controls' options' numbers; default: all
        """
        places = list(self._positions()) if places is None else places
        sent = sorted({self._number_of(place) for place in places} - {None})
        at = dict.fromkeys(range(len(self._read))) | self._offsets([i for i in sent if i not in self._slices])
        weights, rings = self._packed(sent)
        state = {
            "spec": self.spec | {"networks": [shape | {"at": at[i]} for i, shape in enumerate(self.spec["networks"])]},
            "weights": base64.b64encode(weights).decode(),
            "rings": rings,
            "notes": {_key(place): self._note(place) for place in places} if self._say else {},
            "painted": self.painted,
            "tiles": list(self._tiles(places)),
        }
        return state | {"position": self.position, "window": self.window}

    def _tiles(self, places):
        """What is known of slices at these positions, each in its first window, for JSON."""
        for i, half in sorted({(self._number_of(place), self._half_of(place)) for place in places} - {None}):
            if i in self._slices:
                *_, (tile, buffers) = filter(None, self._slices[i].tiles({"x": 0.0, "y": 0.0, "half": half}))
                yield {"of": i, "tile": tile, "buffers": [base64.b64encode(part).decode() for part in buffers]}

    def _half_of(self, place):
        """Half the width of the window that a position begins with."""
        return self.spec["halves"][0 if self._zoomed is None else place[self._zoomed]]

    def close(self):
        """Free what the page holds of it; a cell that is run again closes what it showed before."""
        if getattr(self, "_ahead", None):  # a map that was refused has none
            self._ahead.cancel()
        self._looking = None
        super().close()

    def _repr_mimebundle_(self, **kwargs):
        return super()._repr_mimebundle_(**kwargs)[0]

    def _ipython_display_(self):
        show(self, self.words() or self.spec["title"], self.picture())

    def _values(self, place):
        return {name: self.options[name][i] for name, i in zip(self.names, place, strict=True)}

    def _number_of(self, place):
        """The number of the network at a position, None where there is none."""
        return self._index.get(id(self.networks.get(self._axes_of(place))))

    def _axes_of(self, place):
        """The part of a position that says which network it is."""
        return tuple(i for j, i in enumerate(place) if j != self._zoomed)

    def _place(self, values, start):
        place = list(start)
        for name, value in values.items():
            if name not in self.names:
                raise ValueError(f"there is no control {name!r}; there are {', '.join(self.names) or 'none'}")
            found = [i for i, option in enumerate(self.options[name]) if given.same(value, option)]
            if not found:
                raise ValueError(f"{name} must be one of {self.options[name]}; got {value!r}")
            place[self.names.index(name)] = found[0]
        return place

    def _presets(self, presets, first, halves, half):
        def spot(values):
            free = {} if self._zoomed is not None else {"window": values.get("window", half)}
            place = self._place({key: value for key, value in values.items() if key not in free}, first)
            title = ", ".join(f"{key} = {value}" for key, value in values.items())
            return {"position": place, "window": _half(free["window"] if free else halves[place[self._zoomed]]), "title": title}

        spots = given.presets(presets, spot)
        reset = {"Reset": {"position": first, "window": half, "title": "as at first"}} if self.names or presets else {}
        return [{"name": name, **spot} for name, spot in (reset | spots).items()]

    # ---- what travels: networks ----

    def _at_once(self, first):
        """Where each network stands in `weights`: network -> offset in numbers, None for one that is sent when it is wanted."""
        start, size, sent = np.array(self._axes_of(first)), 0, []
        for place in sorted(self.networks, key=lambda place: np.abs(np.array(place) - start).sum()):
            i = self._index[id(self.networks[place])]
            if i in sent or i in self._slices:
                continue
            size += 4 * len(self._numbers[i])
            if sent and size > _AT_ONCE:
                break
            sent.append(i)
        return dict.fromkeys(range(len(self._read))) | self._offsets(sorted(sent))

    def _offsets(self, sent):
        ends = np.cumsum([0, *(len(self._numbers[i]) for i in sent)])
        return {i: int(end) for i, end in zip(sent, ends, strict=False)}

    def _packed(self, sent):
        parts = [self._numbers[i] for i in sent]
        rings = {str(i): self._ring(i) for i in sent}
        return np.concatenate([[], *parts]).astype(self._type).tobytes(), rings

    def _ring(self, i):
        return _merged(*self._slices[i].ring) if i in self._slices else _ring(self._distinct[i], self._read[i], self._axes)

    def refresh(self, **extras):
        """Send the networks' present weights: after a training step, say. ValueError if they are no longer finite numbers.

        extras  what is to stand upon the map now, as beside a sentence: points=(x, y), star=…
        """
        self._take()
        with self.hold_sync():
            self.weights, self.rings = self._packed(
                [i for i, shape in enumerate(self.spec["networks"]) if shape["at"] is not None]
            )
            if extras:
                self.notes = {_key(self.position): {"text": ""} | dict(map(_extra, extras, extras.values()))}
        if (i := self._number_of(self.position)) in self._slices:  # a first sight; for more the page asks once it has time
            tile, buffers = next(filter(None, self._slices[i].tiles(self.window)))
            self.send({"anew": True, "of": i, "tile": tile}, buffers)
        elif self._slices:
            self.send({"anew": True})

    # ---- what travels: sentences ----

    def _asked(self, _widget, content, _buffers):
        """The page wants a network, at once, or a sentence, a window of a slice or a ray, once the kernel is idle."""
        if (i := content.get("network")) is not None:
            self.send({"sent": i, "ring": self._ring(i)}, [self._numbers[i].astype(self._type).tobytes()])
        if look := content.get("look"):
            self._looking = self._seen(**look)
            self._later(self._show, self._looking) or self._show(self._looking)
        if ray := content.get("ray"):
            far = self._slices[ray["of"]].far(ray["point"])
            self.send({"of": ray["of"], "ray": ray["point"], "far": far})
        if (place := content.get("note")) is not None:
            self._wanted.append(tuple(map(int, filter(None, place.split(",")))))  # () where there is no control
            self._later(self._answer) or self._answer()

    def _later(self, act, *args):
        """Have the kernel's loop do it once no cell runs; False where there is no loop, in a script."""
        if self._loop is None or self._loop.is_closed():
            return False
        self._loop.call_soon_threadsafe(act, *args)  # the page may be served in a thread of its own
        return True

    def _seen(self, of, window):
        """What is told of a window of a slice: messages and their buffers, or None where there is more to come."""
        yield {"of": of, "ring": self._ring(of)}, []
        for found in self._slices[of].tiles(window):
            yield found and ({"of": of, "tile": found[0]}, found[1])

    def _show(self, seen):
        """Tell what is next, the rest once the kernel has done what came in between; nothing if the page now looks elsewhere."""
        if seen is not self._looking:
            return
        for message in seen:
            if message:
                self.send(*message)
            if self._later(self._show, seen):
                break

    def _answer(self):
        """Tell the sentence that was asked for last, then the others, then, one at a time, those around it."""
        if not self._wanted:
            return
        place = self._wanted.pop()
        self._tell(place)
        if self._wanted:
            self._loop.call_soon(self._answer) if self._loop else self._answer()
        elif self._loop:
            if self._ahead:
                self._ahead.cancel()
            self._ahead = self._loop.call_later(1.0, self._go_ahead, place, _AHEAD)

    def _go_ahead(self, place, more):
        around = sorted(self._positions(), key=lambda other: sum(abs(a - b) for a, b in zip(place, other, strict=True)))
        left = [other for other in around[: 4 * _AHEAD] if _key(other) not in self._notes]
        if left and more:
            if idle := _idle():
                self._tell(left[0])
            self._ahead = self._loop.call_later(0.2 if idle else 1.0, self._go_ahead, place, more - idle)

    def _tell(self, place):
        self.send({"place": _key(place), "note": self._note(place)})

    def _positions(self):
        return itertools.product(*(range(len(self.options[name])) for name in self.names))

    def _note(self, place):
        """What is said at a position: made once, then kept."""
        key = _key(place)
        with self._working:
            if key not in self._notes:
                self._notes[key] = self._made(place)
        return self._notes[key]

    def _made(self, place):
        try:
            said = self._say(**self._values(place))
            text, extras = (said, {}) if isinstance(said, str) else said
            return {"text": str(text)} | dict(_extra(name, value) for name, value in extras.items())
        except Exception as error:
            return {"text": f"This setting failed: {type(error).__name__}: {error}"}


def _key(place):
    return ",".join(map(str, place))


def _running_loop():
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # a script
        return None


_last_cell = None


def _idle():
    """Whether no cell has run for a second, so that Run All is not held up."""
    global _last_cell
    if _last_cell is None:
        _last_cell = time.monotonic()
        if shell := get_ipython():
            shell.events.register("post_run_cell", _cell_ended)
    return time.monotonic() - _last_cell > 1.0


def _cell_ended(_result):
    global _last_cell
    _last_cell = time.monotonic()


# ---- from what the notebook says to what the page is told ----


def _half(half):
    if isinstance(half, bool) or not isinstance(half, Real) or not 1e-4 <= half <= 1e6:
        raise ValueError(f"window must be a half width from 1e-4 to 1e6, or the name of the control that says it; got {half!r}")
    return float(half)


def _controls(controls):
    """Names, options by name, first places, and what the page needs to know of each control."""
    names, options, first, shapes = list(controls), {}, [], []
    for name, control in controls.items():
        if not isinstance(control, ipywidgets.SelectionSlider | ipywidgets.Dropdown):
            raise TypeError(f"control {name!r} must be made by `slider` or `choice`; got {type(control).__name__}")
        labels, options[name] = map(list, zip(*pairs_of(name, control.options), strict=True))
        if not given.among(control.value, options[name]):
            raise ValueError(f"{name} must be one of {options[name]}; got {control.value!r}")
        first.append(options[name].index(control.value))
        kind = "choice" if type(control).__name__ == "Dropdown" else "slider"
        shapes.append({"label": control.description, "tooltip": control.tooltip, "options": labels, "kind": kind})
    return names, options, first, shapes


def _sweep(networks, names, options, zoomed):
    """The networks by place, (i, j, …): the options' numbers, but for those of the window."""
    axes = [name for j, name in enumerate(names) if j != zoomed]
    if isinstance(networks, nn.Module):
        if axes:
            raise ValueError(f"networks must be a function or a dict of the controls {axes}, not one network")
        return {(): networks}
    if not isinstance(networks, dict) and not callable(networks):
        raise ValueError(f"networks must be a network, or a function or a dict that gives one; got {type(networks).__name__}")
    if not callable(networks):
        found = {key if isinstance(key, tuple) else (key,): network for key, network in networks.items()}
    sweep = {}
    for place in itertools.product(*(range(len(options[name])) for name in axes)):
        values = {name: options[name][i] for name, i in zip(axes, place, strict=True)}
        if callable(networks):
            try:
                sweep[place] = networks(**values)
            except LookupError as error:
                raise ValueError(f"networks must give one for {values}; it raised {type(error).__name__}: {error}") from error
        elif (key := tuple(values.values())) in found:
            sweep[place] = found[key]
        else:
            raise ValueError(f"networks must have one for every position of the controls {axes}; there is none for {key}")
    return sweep


def _plane(network, axes, origin):
    """The numbers of a network, as float64: of two inputs, or of the plane that axes and origin say."""
    if isinstance(network, nn.Sequential) and any(type(layer) in _SMOOTH for layer in network):
        # polytopes has no such layers: read the network with a leaky ReLU of an odd slope in the place of each
        kinks = (nn.LeakyReLU(_SMOOTH[type(layer)][1]) if type(layer) in _SMOOTH else layer for layer in network)
        network = nn.Sequential(*kinks)
    if not isinstance(network, nn.Module):
        raise ValueError(f"networks must be of torch.nn, each an nn.Sequential, say; got {network!r}")
    try:
        read = polytopes.read(network, polytopes.network.shape_of(axes, 1))
    except ValueError as error:
        hint = "a map needs axes [2, …]" if axes is None else f"axes are {list(np.shape(axes))}"
        raise ValueError(f"{error} (if it is the input's shape: {hint}, two directions in the shape of one input)") from error
    if axes is None and read.in_dim != 2:
        raise ValueError(f"a map needs networks with 2 inputs, or axes [2, d] and origin [d]; this one has {read.in_dim} inputs")
    if axes is not None:
        axes = polytopes.network.plane_of(axes, read)
        origin = np.zeros(read.in_dim) if origin is None else polytopes.network.vector(origin, "origin", read)
        read = polytopes.flat.restricted(read, origin, axes) if isinstance(read, Graph) else read.restricted(origin, axes)
    if isinstance(read, Graph):
        return read
    names = {leak: name for name, leak in _SMOOTH.values()}
    return polytopes.network.Network(read.weights, read.biases, [names.get(leak, leak) for leak in read.leaks])


def _as(dtype, read):
    """The same network with numbers of another type; float32 is several times faster where a network is wide."""
    weights, biases = ([part.astype(dtype) for part in parts] for parts in (read.weights, read.biases))
    return polytopes.network.Network(weights, biases, read.leaks)


def _answers(read, x):
    """Logits [n, K] of points x [n, 2], also of a network with smooth layers."""
    x = x.astype(read.weights[0].dtype)
    for weight, bias, leak in zip(read.weights, read.biases, [*read.leaks, 1.0], strict=True):
        z = x @ weight.T + bias
        x = _BEND[leak](z) if leak in _BEND else np.where(z > 0, z, leak * z)
    return x


def _is_smooth(read):
    return any(leak in _BEND for leak in read.leaks)


def _shape(read):
    """What the page needs to unpack the numbers of a chain; nothing of a graph."""
    return {} if isinstance(read, Graph) else {"sizes": [2, *map(len, read.biases)], "leaks": list(read.leaks)}


def _numbers(read):
    """W, b of one Linear after another, in one row; none of a graph."""
    if isinstance(read, Graph):
        return np.zeros(0)
    return np.concatenate([part.ravel() for pair in zip(read.weights, read.biases, strict=True) for part in pair])


def _rejects(read, classes):
    """Whether a network's last output is reject."""
    if classes is not None and read.n_classes not in (classes, classes + 1):
        raise ValueError(f"networks must have {classes} outputs, one a class, or one more, reject; one has {read.n_classes}")
    return classes is not None and read.n_classes > classes


def _ring(network, read, axes):
    """Where the winner of the directions changes: start [S] angles and who [S] wins from there on, -1 for a tie."""
    if _is_smooth(read):
        start, who = _smooth_ring(read)
    else:
        circle = polytopes.infinity(network, axes)
        start, who = circle.start, np.where(circle.tie, -1, circle.winner)
    return _merged(start, who)


def _merged(start, who):
    """The same ring, for the page, without sectors whose winner is that of the one before."""
    new = np.flatnonzero(who != np.roll(who, 1)) if len(set(who)) > 1 else np.array([0])
    return {"start": start[new].tolist(), "who": who[new].tolist()}


def _smooth_ring(read):
    """Far away sigmoids and tanh of the first layer saturate: between two of its neurons' normals the answer is constant."""
    normal = np.arctan2(read.weights[0][:, 1], read.weights[0][:, 0])
    start = np.sort(np.concatenate([normal + np.pi / 2, normal - np.pi / 2]) % (2 * np.pi))
    middle = (start + np.append(start[1:], start[0] + 2 * np.pi)) / 2
    far = 1e9 * np.stack([np.cos(middle), np.sin(middle)], axis=1)
    return start, _answers(read, far).argmax(axis=1)


def _look(read, rejects, colours, classes):
    """Colours, and what they mean; reject is the last of `pale` and `full`."""
    outputs = max([classes, *(r.n_classes - reject for r, reject in zip(read, rejects, strict=True))])
    cycle = [_class_look(k)[0] for k in range(outputs)]
    names, reject = [f"class {k}" for k in range(outputs)] + ["reject"] * any(rejects), matplotlib.colors.to_hex(plotting.REJECT)
    full = cycle + [reject] * any(rejects)
    pale = [matplotlib.colors.to_hex(0.4 + 0.6 * np.array(matplotlib.colors.to_rgb(color))) for color in cycle]
    pale += [matplotlib.colors.to_hex(plotting.REJECT_PALE)] * any(rejects)
    if colours == "bands":
        key = [*zip(plotting.BAND_COLORS, plotting.band_names(outputs), strict=True), *[(reject, "rejected")] * any(rejects)]
        key += [("", "frame, far away:"), *zip(full, names, strict=True), ("black", "tie")]
    else:
        key = [*zip(pale if colours == "classes" else full, names, strict=True), ("black", "tie (frame)")]
    look = {"kind": colours, "bands": plotting.BAND_COLORS, "limits": plotting.BANDS[1:3], "pale": pale, "full": full}
    markers = [_class_look(k)[0] for k in range(10)]
    return {
        "look": look | {"rejected": reject, "least": _LEAST, "accent": plotting.ACCENT, "markers": markers},
        "key": key,
    }


def _class_look(k):
    """Colour and marker of class k; ten classes differ in colour, four in marker."""
    colours = [color for color, _ in plotting.CLASSES] + plotting.MORE_CLASSES
    return colours[k % len(colours)], plotting.CLASSES[k % len(plotting.CLASSES)][1]


def _check_world(world, dim):
    if world is None:
        return
    if isinstance(world, type) or not isinstance(getattr(world, "n_classes", None), int):
        raise ValueError(f"world must be a world of `data`, such as data.TwoGaussians(); got {world!r}")
    if getattr(world, "dim", 2) != dim:
        raise ValueError(f"world has {world.dim} inputs, what the map shows has {dim}: they must be as many")


def _discs(world):
    """[x, y, radius] of each class."""
    means = getattr(world, "means", []) if getattr(world, "dim", 2) == 2 else []
    return [[*mean.tolist(), 3.0 * float(world.std)] for mean in means]


def _outlines(world):
    """Closed paths [[x, y], …] around the classes of a world of arcs, with the class of each."""
    paths = []
    for k, arc in enumerate(getattr(world, "arcs", [])):
        along = np.linspace(arc.start, arc.end, 181)
        sides = [(along, arc.radius + side * 3 * world.std) for side in (1, -1)]
        if not arc.closed:
            paths.append((k, _stadium(arc, along, 3 * world.std)))
            continue
        for angle, radius in sides:
            paths.append((k, (np.array(arc.centre) + radius * _unit(angle)).tolist()))
    return paths


def _stadium(arc, along, reach):
    """The outline at distance `reach` of an arc that is not closed: along its outside, around its end, back, around its start."""
    turn, centre = np.linspace(0, np.pi, 31), np.array(arc.centre)
    ends = [centre + arc.radius * _unit(angle) for angle in (arc.end, arc.start)]
    around = [ends[0] + reach * _unit(arc.end + turn), ends[1] + reach * _unit(arc.start + np.pi + turn)]
    sides = [centre + (arc.radius + reach) * _unit(along), centre + max(arc.radius - reach, 0) * _unit(along[::-1])]
    return np.concatenate([sides[0], around[0], sides[1], around[1]]).tolist()


def _unit(angle):
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _points(points):
    """[[x, y, class], …] of points (x [n, 2], y [n])."""
    if points is None:
        return []
    if not isinstance(points, tuple | list) or len(points) != 2:
        raise ValueError(f"points must be two things, x [n, 2] and their classes y [n]; got {points!r}")
    x, y = (float64(part, name) for part, name in zip(points, ("points' x", "points' y"), strict=True))
    if x.ndim != 2 or x.shape[1] != 2 or y.shape != (len(x),) or not np.isfinite(x).all():
        raise ValueError(f"points must be finite numbers x [n, 2] and classes y [n]; got {x.shape} and {y.shape}")
    if not ((y >= -1) & (y == np.floor(y))).all():
        raise ValueError("points' y must be classes 0, 1, …, or -1 for OOD")
    return [[round(a, 6), round(b, 6), int(k)] for (a, b), k in zip(x.tolist(), y, strict=True)]


def _star(point):
    point = float64(point, "star")
    if point.shape != (2,) or not np.isfinite(point).all():
        raise ValueError(f"star must be a point of two finite numbers; got {point.tolist()}")
    return point.tolist()


def _bars(confidences):
    """Shares of the points in each of _BINS bins; the first histogram is filled, the others are lines."""
    values = {name: float64(c, f"bars[{name!r}]") for name, c in confidences.items()}
    for name, c in values.items():
        if c.ndim != 1 or not len(c) or not ((c >= 0) & (c <= 1)).all():
            raise ValueError(f"bars must be confidences [n] from 0 to 1; those of {name!r} are not")
    low = 0.5 if min(c.min() for c in values.values()) >= 0.5 else 0.0
    series = []
    for i, (name, c) in enumerate(values.items()):
        counts, _ = np.histogram(c, np.linspace(low, 1, _BINS + 1))
        series.append([name, plotting.INSIDE if i == 0 else "black", (counts / len(c)).round(4).tolist()])
    return {"low": low, "series": series}


def _data_url(figure):
    given.figure(figure)
    return "data:image/png;base64," + base64.b64encode(_bytes(figure)).decode()


# what may stand beside a sentence: its name in the notebook -> its name on the page, and how it gets there
_EXTRAS = {"star": ("star", _star), "bars": ("bars", _bars), "points": ("points", _points), "figure": ("picture", _data_url)}


def _extra(name, value):
    if name not in _EXTRAS:
        raise ValueError(f"beside the text a sentence may return {', '.join(_EXTRAS)}; it returned {name!r}")
    page_name, prepare = _EXTRAS[name]
    return page_name, prepare(value)


# ---- the picture for readers without a kernel ----


def _png(living, image, note):
    """Bytes of a PNG of the map as it is at first: the same colours at the same pixel centres, axes, classes, star and key."""
    spec, half = living.spec, living.window["half"]
    beside = note.get("bars")
    fig, axes = plotting.figure(columns=2 if beside else 1, width=9.2 if beside else 5.4, height=4.9)
    ax = axes[0] if beside else axes
    plotting.plane_axes(ax, half)
    ax.set(xlabel=spec["axes"][0], ylabel=spec["axes"][1])
    if image is not None:
        ax.imshow(image, extent=(-half, half, -half, half), interpolation="nearest", zorder=0)
    for k, (x, y, radius) in enumerate(spec["discs"]):
        for color, width in [("white", 5), (spec["look"]["full"][k], 2.5)]:
            ax.add_patch(Circle((x, y), radius, fill=False, ec=color, lw=width))
    for k, path in spec["outlines"]:
        ax.plot(*np.array(path).T, color=spec["look"]["full"][k], lw=2.5)
    marked = np.array([*spec["points"], *note.get("points", []), *living.painted]).reshape(-1, 3)
    few = len(marked) < 10 and not spec["paint"]
    for k in np.unique(marked[:, 2]).astype(int):
        color, marker = _class_look(k) if k >= 0 else plotting.OOD
        ax.scatter(*marked[marked[:, 2] == k, :2].T, s=60 if few else 9, c=color, marker=marker)
    for x, y, k in marked[marked[:, 2] >= 0] if few else []:
        ax.annotate(f"{k:.0f}", (x, y), (8, 0), textcoords="offset points", va="center", bbox={"fc": "white", "pad": 1, "lw": 0})
    star = note.get("star")
    if star and max(map(abs, star)) <= half:
        ax.plot(*star, "*", ms=18, color=plotting.ACCENT, mec="white", clip_on=False)
    names = itertools.takewhile(lambda entry: "frame" not in entry[1], spec["key"])  # the picture has no frame
    handles = [Patch(fc=color, ec="0.4", label=name) for color, name in names]
    if star:
        handles.append(
            Line2D([], [], ls="", marker="*", ms=14, color=plotting.ACCENT, mec="white", label="most confident OOD point")
        )
    ax.legend(handles=handles, ncols=min(len(handles), 4), **plotting.BELOW | {"handlelength": 1.0})
    if beside:
        axes[1].set(xlim=(beside["low"], 1), xlabel="confidence", ylabel="share of the points", title="test points")
        edges = np.linspace(beside["low"], 1, _BINS + 1)
        for i, (name, color, shares) in enumerate(beside["series"]):
            axes[1].stairs(shares, edges, fill=i == 0, color=color, alpha=0.7 if i == 0 else 1, lw=2.5, label=name)
        axes[1].legend(**plotting.BELOW, ncols=2)
    parts = [_bytes(fig), *([base64.b64decode(note["picture"].split(",")[1])] if "picture" in note else [])]
    return parts[0] if len(parts) == 1 else _side_by_side(parts)


def _bytes(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _side_by_side(parts):
    """One PNG of several, from left to right."""
    images = [Image.open(io.BytesIO(part)) for part in parts]
    whole, left = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)), "white"), 0
    for image in images:
        whole.paste(image, (left, 0))
        left += image.width
    buffer = io.BytesIO()
    whole.save(buffer, "png")
    return buffer.getvalue()


def _colours(read, reject, look, half, side=_SIZE):
    """RGB [side, side, 3] at the window's pixel centres: a coarse grid, then, grid by finer grid, where neighbours differ."""
    centres = 2 * half / side * (np.arange(side) + 0.5) - half

    def colour(rows, columns, stride):
        points = np.stack([centres[stride * columns], -centres[stride * rows]], axis=1)
        parts = np.array_split(points, len(points) // 20_000 + 1)  # not too many points in the memory at once
        return np.concatenate([_shade(_answers(read, part), reject, look) for part in parts])

    stride = 8
    rows, columns = (part.ravel() for part in np.indices((side // stride, side // stride)))
    image = colour(rows, columns, stride).reshape(side // stride, side // stride, 3)
    while stride > 1:
        n, stride = len(image), stride // 2
        padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
        around = [padded[1 + i : 1 + i + n, 1 + j : 1 + j + n] for i in (-1, 0, 1) for j in (-1, 0, 1)]
        even = np.all([np.abs(near - image).max(axis=2) < 0.01 for near in around], axis=0)
        image, known = image.repeat(2, 0).repeat(2, 1), even.repeat(2, 0).repeat(2, 1)
        known[::2, ::2] = True
        rows, columns = np.nonzero(~known)
        image[rows, columns] = colour(rows, columns, stride)
    return image


def _shade(logits, reject, look):
    """RGB [n, 3] of logits [n, K], as `painter` in living_map.js has it."""
    rgb = matplotlib.colors.to_rgba_array
    winner, k = logits.argmax(axis=1), logits.shape[1]
    parts = np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
    place = np.where(reject & (winner == k - 1), -1, winner)
    if look["kind"] == "classes":
        return rgb(look["pale"])[place, :3]
    if look["kind"] == "shades":
        sure = (1 / parts - 1 / k) / (1 - 1 / k) if k > 1 else np.ones(len(logits))
        return 1 - (look["least"] + (1 - look["least"]) * sure[:, None]) * (1 - rgb(look["full"])[place, :3])
    band = (parts * look["limits"][0] < 1).astype(int) + (parts * look["limits"][1] < 1)
    return np.where((place < 0)[:, None], rgb([look["rejected"]])[:, :3], rgb(look["bands"])[band, :3])
