"""The living map: a network with two inputs, drawn exactly by the page itself, that the reader can touch.

Only the weights travel, as float32, which loses nothing. `living_map.js` finds, row of pixels by row of pixels, the pieces on
which the network is affine, and draws each as it is: at any zoom, for any position of the controls, without the kernel.
"""

import asyncio
import itertools
from pathlib import Path

import anywidget
import matplotlib
import numpy as np
import traitlets

from ood_helpers import plotting, polytopes

SIZE = 440  # pixels of the map's side, where the page is wide enough
MODES = ("bands", "classes")


class LivingMap(anywidget.AnyWidget):
    """A map of one network, or of a sweep of networks with a control for each of its axes.

    networks   one network of two inputs (nn.Sequential of Linear and ReLU or LeakyReLU); or a dict: values of the controls, in
               their order, as a tuple (or the value itself of a single control) -> network. Every position must have one
    controls   name -> control (`slider`, `choice`), for a dict of networks
    world      class discs are drawn around `world.means`, at 3 standard deviations
    colours    "bands": the paper's three bands of confidence · "classes": the winner
    reject     whether the last output is reject: it is drawn in grey, and never as unsure
    window     half the width of the first picture, around the origin, from 0.01 to 1e6
    points     (x [n, 2], y [n]): points to show, y = -1 for OOD
    sentence   sentence(**values) -> text below the map, a number or two; computed once per position, while the kernel is idle
    presets    name -> values of the controls, and perhaps "window": a half width; "Reset" is added
    title      what the map shows, for those who cannot see it

    The wheel (after a click) or + and − zoom, a drag or the arrow keys move, a double click or Home goes back. Pointing shows the
    class, confidence and logits at a place; a click (or Enter) draws the ray to infinity through it, and says who wins there. The
    frame is the ring of directions, each in the colour of its k*, black where classes tie.
    ValueError names what is wrong: a position without a network, networks of other than two inputs, NaN weights.
    """

    _esm = Path(__file__).with_suffix(".js")
    spec = traitlets.Dict().tag(sync=True)
    weights = traitlets.Bytes().tag(sync=True)
    position = traitlets.List().tag(sync=True)
    window = traitlets.Dict().tag(sync=True)
    sentences = traitlets.Dict().tag(sync=True)

    def __init__(
        self, networks, controls=None, *, world=None, colours="bands", reject=False, window=50.0, points=None, sentence=None,
        presets=None, title="A map of the network's answers",
    ):  # fmt: skip
        controls = controls or {}
        if colours not in MODES:
            raise ValueError(f"colours must be one of {', '.join(MODES)}; got {colours!r}")
        if not 0.01 <= window <= 1e6:
            raise ValueError(f"window must be a half width from 0.01 to 1e6; got {window}")
        self.names, self.options, first, shapes = _controls(controls)
        self.networks = _sweep(networks, self.names, self.options)
        distinct = list({id(network): network for network in self.networks.values()}.values())
        read = [_two_inputs(network) for network in distinct]
        outputs = {network.n_classes for network in read}
        if len(outputs) > 1:
            raise ValueError(f"networks must all have the same number of outputs; they have {sorted(outputs)}")
        self._say, self._first = sentence, first
        index = {id(network): i for i, network in enumerate(distinct)}
        k = outputs.pop()
        spec = _look(k, colours, reject) | {
            "controls": shapes,
            "presets": self._presets(presets or {}, first, window),
            "places": {",".join(map(str, place)): index[id(network)] for place, network in self.networks.items()},
            "rings": [_ring(network) for network in distinct],
            "discs": _discs(world),
            "points": _points(points),
            "window": {"x": 0.0, "y": 0.0, "half": float(window)},
            "size": SIZE,
            "title": title,
            "speaks": sentence is not None,
            "hint": "Point at the map. Click: a ray to infinity. Drag, wheel, arrow keys, + and −: move and zoom; Home: back.",
        }
        spec["networks"], weights = _packed(read)
        super().__init__(spec=spec, weights=weights, position=first, window=spec["window"])
        self._waiting = None
        self._speak()

    @property
    def values(self):
        """The controls' values by name."""
        return self._values(tuple(self.position))

    @property
    def network(self):
        """The network that is shown."""
        return self.networks[tuple(self.position)]

    def set(self, **values):
        """Move controls. ValueError names a control, or a value, that does not exist."""
        self.position = self._place(values, self.position)

    def still(self):
        """The state that `living_map.js` needs in a page without a kernel, but for the bytes `weights`: a dict for JSON."""
        return {name: getattr(self, name) for name in ("spec", "position", "window")} | {"sentences": self._all_sentences()}

    def _values(self, place):
        return {name: self.options[name][i] for name, i in zip(self.names, place, strict=True)}

    def _place(self, values, start):
        place = list(start)
        for name, value in values.items():
            if name not in self.names:
                raise ValueError(f"there is no control {name!r}; there are {', '.join(self.names) or 'none'}")
            if value not in self.options[name]:
                raise ValueError(f"{name} must be one of {self.options[name]}; got {value!r}")
            place[self.names.index(name)] = self.options[name].index(value)
        return place

    def _presets(self, presets, first, window):
        made = [{"name": "Reset", "position": first, "window": {"x": 0.0, "y": 0.0, "half": float(window)}}]
        for name, values in presets.items():
            half = values.get("window")
            position = self._place({key: value for key, value in values.items() if key != "window"}, first)
            made.append({"name": name, "position": position, "window": half and {"x": 0.0, "y": 0.0, "half": float(half)}})
        return made

    # ---- sentences: one per position, while the kernel is idle, the nearest positions first ----

    def _all_sentences(self):
        for place in self.networks:
            self._sentence(place)
        return self.sentences

    def _sentence(self, place):
        """Have the sentence of a position, at last."""
        key = ",".join(map(str, place))
        if self._say and key not in self.sentences:
            self.sentences = self.sentences | {key: self._said(place)}

    def _said(self, place):
        try:
            text = self._say(**self._values(place))
        except Exception as error:
            return f"This setting failed: {type(error).__name__}: {error}"
        if not isinstance(text, str):
            raise ValueError(f"sentence must return a text; it returned {type(text).__name__}")
        return text

    @traitlets.observe("position")
    def _speak(self, _change=None):
        """Say the position's sentence as soon as the kernel's event loop is free, then the others; at once without a loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._sentence(tuple(self.position))
            return
        if getattr(self, "_waiting", None):
            self._waiting.cancel()
        self._waiting = loop.call_later(0.05, self._next, loop)

    def _next(self, loop):
        here = np.array(self.position)
        left = [place for place in self.networks if ",".join(map(str, place)) not in self.sentences]
        if left and self._say and self.comm is not None:
            self._sentence(min(left, key=lambda place: np.abs(np.array(place) - here).sum()))
            self._waiting = loop.call_later(0.05, self._next, loop)


def _controls(controls):
    """Names, options by name, first places, and what the page needs to know of each control."""
    names, options, first, shapes = list(controls), {}, [], []
    for name, control in controls.items():
        labels = [option[0] if isinstance(option, tuple) else str(option) for option in control.options]
        options[name] = [option[1] if isinstance(option, tuple) else option for option in control.options]
        first.append(options[name].index(control.value))
        kind = "choice" if type(control).__name__ == "Dropdown" else "slider"
        shapes.append({"label": control.description, "tooltip": control.tooltip, "options": labels, "kind": kind})
    return names, options, first, shapes


def _sweep(networks, names, options):
    """The networks by place, (i, j, …): the options' numbers."""
    if not isinstance(networks, dict):
        if names:
            raise ValueError("networks must be a dict from the controls' values to networks where there are controls")
        return {(): networks}
    found = {key if isinstance(key, tuple) else (key,): network for key, network in networks.items()}
    sweep = {}
    for place in itertools.product(*(range(len(options[name])) for name in names)):
        values = tuple(options[name][i] for name, i in zip(names, place, strict=True))
        if values not in found:
            raise ValueError(f"networks must have one for every position of the controls {names}; there is none for {values}")
        sweep[place] = found[values]
    return sweep


def _two_inputs(network):
    read = polytopes.read(network)
    if read.in_dim != 2:
        raise ValueError(f"a map needs networks with 2 inputs; this one has {read.in_dim}")
    return read


def _packed(networks):
    """What the page must know to unpack the networks, and their numbers: W, b of one Linear after another, float32."""
    at, shapes, numbers = 0, [], []
    for network in networks:
        own = [part for pair in zip(network.weights, network.biases, strict=True) for part in pair]
        count = sum(part.size for part in own)
        sizes = [network.in_dim, *(len(bias) for bias in network.biases)]
        shapes.append({"sizes": sizes, "leaks": list(network.leaks), "at": at, "count": count})
        numbers += [part.ravel() for part in own]
        at += count
    return shapes, np.concatenate(numbers).astype("<f4").tobytes()


def _ring(network):
    """Where the winner of the directions changes: start [S] angles and who [S] wins from there on, -1 for a tie."""
    circle = polytopes.infinity(network)
    who = np.where(circle.tie, -1, circle.winner)
    new = np.flatnonzero(who != np.roll(who, 1)) if len(set(who)) > 1 else np.array([0])
    return {"start": circle.start[new].tolist(), "who": who[new].tolist()}


def _look(outputs, colours, reject):
    """Colours and names; reject is grey in both kinds of map."""
    classes = outputs - reject
    names = [f"class {k}" for k in range(classes)] + ["reject"] * reject
    cycle = [plotting.CLASSES[k % len(plotting.CLASSES)][0] for k in range(classes)]
    full = cycle + [matplotlib.colors.to_hex(plotting.REJECT)] * reject
    pale = [matplotlib.colors.to_hex(0.4 + 0.6 * np.array(matplotlib.colors.to_rgb(color))) for color in cycle]
    pale += [matplotlib.colors.to_hex("0.93")] * reject
    if colours == "classes":
        key = list(zip(pale, names, strict=True))
    else:
        key = list(zip(plotting.BAND_COLORS, plotting.BAND_NAMES, strict=True)) + [[pale[-1], "rejected"]] * reject
    look = {"kind": colours, "bands": plotting.BAND_COLORS, "limits": plotting.BANDS[1:3], "classes": pale, "full": full}
    return {"look": look | {"reject": bool(reject)}, "names": names, "key": [*key, ["black", "tie (frame)"]]}


def _discs(world):
    if world is None:
        return []
    return [{"x": float(x), "y": float(y), "r": 3.0 * float(world.std)} for x, y in world.means]


def _points(points):
    if points is None:
        return []
    x, y = (np.asarray(part, dtype=float) for part in points)
    return [{"x": float(a), "y": float(b), "k": int(k)} for (a, b), k in zip(x, y, strict=True)]
