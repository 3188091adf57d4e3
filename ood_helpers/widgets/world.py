"""A world of one's own: paint points, choose a classifier, watch it learn them, keep them in a file."""

import copy
import json
import math
from collections.abc import Sequence
from numbers import Real
from pathlib import Path

import ipywidgets
import torch

from ood_helpers import data, files, horizon, losses, models, plotting, polytopes, training, worlds
from ood_helpers.arrays import Numbers, float64

from . import page
from .controls import choice, slider
from .live import Live
from .painting import Painting

_KINDS = ["plain", "confident", "reject", "closed"]
_WIDTHS, _BETAS = [4, 8, 16, 32, 64, 100], [0.0, 0.1, 0.3, 1.0, 3.0, 10.0]
_CLASSES = 4
_FORMAT = "a painted world, version 1"
_BOX = 50.0  # half the side of the box that the sentence is about


def _arcs(world):
    """Points [n, 2] along the arcs of a world, about 2 deviations apart, and their classes [n]."""
    angles = [torch.linspace(a.start, a.end, round((a.end - a.start) * a.radius / 2) + 1)[a.closed :] for a in world.arcs]
    x = [arc.at(angle) for arc, angle in zip(world.arcs, angles, strict=True)]
    return torch.cat(x), [k for k, part in enumerate(x) for _ in part]


_PRESETS = {  # a point stands for a Gaussian cloud around it: two points are the paper's world
    "two Gaussians": (data.TwoGaussians().means, [0, 1]),
    "four Gaussians": (data.FourGaussians().means, [0, 1, 2, 3]),
    "two moons": _arcs(worlds.TwoMoons()),
    "rings": _arcs(worlds.Rings()),
}


class _Incomplete(ValueError):
    """There is not yet enough painted to train on."""


class World(Live):
    """Paint points of up to four classes and OOD points, press Train, and watch a classifier learn them.

    points  where to begin: the name of a preset ("two Gaussians", "four Gaussians", "two moons", "rings"), a file that was saved,
            or (x [n, 2], y [n]), y = -1 for OOD
    kind    "plain": cross-entropy · "confident": and doubt on the OOD points, weighed by β, Equation (1) · "reject": one more
            output, for the OOD points · "closed": confident, and constant far away by construction, see `models.closed_mlp`
    width   of the two hidden layers · beta  of confident and closed. These three are the controls' first values
    first   steps taken at once, so that there is something to see
    std     of the Gaussian cloud that each point stands for. Where no OOD point is painted, shells of 3 to 3.5 deviations around
            the points take their place, see `worlds.Painted`
    file    the name that the field beside Save and Load begins with

    Points and β may change while it trains; a preset, a file, another kind, width or number of classes begins a new network. A
    cell that is run again keeps what is painted and chosen. `world.world` is what is painted, as a world for `training.train`,
    `world.network` the network, `world.painting` the map. ValueError says what is wrong with an argument or a file.
    """

    BUTTONS = (
        ("Train", "3,000 steps, or until Pause"),
        ("Step", "one training step"),
        ("Begin anew", "a new network; the points stay"),
    )
    STEPS = 3000  # of one press of Train

    def __init__(
        self,
        points: str | Path | tuple[Numbers, Numbers] = "two Gaussians",
        *,
        kind: str = "plain",
        width: int = 32,
        beta: float = 1.0,
        first: int = 0,
        std: float = 1.0,
        file: str = "my_world.json",
    ) -> None:
        points, std = _begin(points, std)
        if before := page.earlier(World):  # the cell is run again
            points, std, file = before.painting.painted, before.painting.std, before.file.value
            kind, width, beta = (control.value for control in before.controls.values())
        self.controls = {
            "kind": choice("classifier", _KINDS, kind, "what is trained, and with which loss"),
            "width": slider("hidden width", _WIDTHS, width, "neurons in each of the two hidden layers"),
            "beta": slider("β", _BETAS, beta, "weight of the doubt on OOD points: confident and closed"),
        }
        self.file = ipywidgets.Text(file, description="file", tooltip="where Save writes and Load reads")
        self.painting = Painting(_CLASSES, std=std, window=30.0, colours="shades", title="A plane to paint a world on")
        self.painting.painted = points
        self.network = self._drawn = self._made_for = self._steps = None
        self._seed, self._box = -1, plotting.grid(_BOX, 61)
        self._use_beta()
        super().__init__(self.painting, self._anew, self._said, stop=max(first, self.STEPS), first=first)
        self.first = 0  # a network that is begun anew is seen from its start
        buttons, shown = self.box.children
        self.box.children = [self._arranged(buttons, *shown.children)]
        for replaced in (shown.layout, shown):
            replaced.close()
        self.painting.observe(self._changed, "painted")
        for control in self.controls.values():
            control.observe(self._changed, "value")

    def _arranged(self, buttons, painting, text):
        """The painting, and beside it, or below where the page is narrow, all else."""
        presets = [_button(name, "begin with these points; undo brings yours back", self.preset) for name in _PRESETS]
        files = [_button("Save", "write the points to the file", self._save), _button("Load", "read them", self._load)]
        wrap, self.file.layout.width = ipywidgets.Layout(flex_flow="row wrap"), "14em"
        for part in (*buttons.children, *self.controls.values()):
            part.layout.width, part.layout.max_width = "auto" if part in buttons.children else "20em", "100%"
        boxes = [ipywidgets.HBox(row, layout=wrap) for row in (presets, [*self.controls.values()], [self.file, *files])]
        text.layout.flex = None
        side = ipywidgets.VBox([*boxes[:2], buttons, text, boxes[2]], layout={"flex": "1 1 20em", "min_width": "0"})
        return ipywidgets.HBox([painting, side], layout=wrap)

    # ---- what is painted ----

    @property
    def world(self):
        """What is painted, as a `worlds.Painted`. ValueError says what is missing."""
        points = float64(self.painting.painted or torch.empty(0, 3), "points")
        classes = sorted(set(points[:, 2].astype(int)) - {-1})
        if not classes:
            only = "There are OOD points only" if len(points) else "Nothing is painted yet"
            raise _Incomplete(f"{only}: place points of class 0 and of class 1.")
        if missing := set(range(classes[-1])) - set(classes):
            raise _Incomplete(
                f"Class {min(missing)} has no point yet, but class {classes[-1]} has: place one, or use lower classes."
            )
        if len(classes) == 1 and self.controls["kind"].value != "reject":
            raise _Incomplete("One class leaves nothing to tell apart: place points of class 1 as well, or choose reject.")
        x, y = torch.tensor(points[:, :2]).float(), torch.tensor(points[:, 2]).long()
        return worlds.Painted(x[y >= 0], y[y >= 0], x[y < 0], std=self.painting.std)

    def preset(self, name):
        """Begin with the points of a preset."""
        self._take(_listed(*_PRESETS[name]))

    def _take(self, points):
        with self._lock:
            self._made_for = None  # a new network
            self.painting.painted = points

    def save(self, path=None):
        """Write what is painted to a file, whole or not at all; by default that of the field. Returns its path.

        ValueError for a file that is there and holds something else: it stays as it is.
        """
        path = _path(self.file.value if path is None else path)
        if path.exists():
            try:
                read(path)
            except ValueError as error:
                raise ValueError(f"{error} Take another name: nothing is written over it.") from None
        write(path, self.painting.painted, self.painting.std)
        return path

    def load(self, path=None):
        """Take the points of a file that was saved. ValueError says what is wrong with it; the painting then stays as it is."""
        points, self.painting.std = read(_path(self.file.value if path is None else path))
        self._take(points)

    def _save(self, _name):
        self._report(lambda: f"Saved: {self.painting.words().removeprefix('Painted: ')} File: {self.save()}.")

    def _load(self, _name):
        self._report(lambda: self.load() or f"Loaded: {self.painting.words().removeprefix('Painted: ')}")

    def _report(self, act):
        """Do it, and say what came of it in place of the sentence."""
        try:
            said = act()
        except (ValueError, OSError) as error:
            said = f"{error} What is painted stays as it is."
        self._show(said)

    # ---- what is trained ----

    def train(self):
        self.stop = self.steps + self.STEPS
        return super().train()

    def step(self, steps=1):
        self.stop = max(self.stop, self.steps + steps)
        super().step(steps)

    def _changed(self, change):
        """Points or controls are not what they were: train on with them, or show them."""
        with self._lock:
            self._drop_steps()
            self._use_beta()
            if not self.running:
                self._guarded(lambda: self._show(self._said(self.steps)))

    def _use_beta(self):
        self.controls["beta"].disabled = self.controls["kind"].value in ("plain", "reject")

    def _drop_steps(self):
        if self._steps:
            self._steps.close()
        self._steps = None

    def _anew(self):
        """`start` of `Live`: another random start, and steps without end."""
        self._drop_steps()
        self._made_for = None
        self._seed += 1
        return iter(self._one_step, object())

    def _one_step(self):
        """The loss before a step, and the step. _Incomplete if there is nothing to train on; the network then stays."""
        world = self._ready()
        if self._steps is None:
            how = {"penalty": horizon.radius_loss, "penalty_weight": 0.1} if self._made_for[0] == "closed" else {}
            self._steps = training.train_steps(self.network, world, self._loss, lr=2e-3, seed=self.steps, **how)
        try:
            return next(self._steps)
        except Exception:
            self._steps = None
            raise

    def _ready(self):
        """The world, once there is a network, and a map of it, for what is painted and chosen."""
        world = self.world
        kind, width, _ = (control.value for control in self.controls.values())
        if self._made_for != (kind, width, world.n_classes):
            self._drop_steps()
            self.network, self.steps = _network(kind, width, world, torch.Generator().manual_seed(self._seed)), 0
            self._drawn = self.network.plain() if kind == "closed" else self.network
            self.painting.show(self._drawn, world.n_classes)
            self._made_for = kind, width, world.n_classes
        return world

    def _loss(self, logits_in, y, logits_out):
        kind, _, beta = (control.value for control in self.controls.values())
        if kind == "reject":
            return losses.reject_loss(logits_in, y, logits_out)
        return losses.confidence_loss(logits_in, y, logits_out, 0.0 if kind == "plain" else beta)

    def _said(self, _steps):
        """`draw` of `Live`: the map's network is the present one; what it does, in words."""
        try:
            world = self._ready()
        except _Incomplete as missing:
            self._forget_network()
            return f"{missing} {self.painting.words()}"
        kind, width, beta = (control.value for control in self.controls.values())
        if kind == "closed":
            self._drawn.load_state_dict(self.network.plain().state_dict())
        name = f"{kind.capitalize()}, width {width}{'' if kind in ('plain', 'reject') else f', β = {beta:g}'}"
        right, sure = self._shares(world)
        text = (
            f"{name}, {self.steps:,} steps: {right:.0%} of the painted points right, a class above 0.9 on {sure:.0%} of box 50."
        )
        return f"{text} {_winners(self._drawn, world.n_classes)}{_ball(kind, self._drawn)}.{_remark(kind, world)}"

    @torch.no_grad()
    def _shares(self, world):
        """Share of the painted points, OOD points left out, that are right; of the box in which a class is above 0.9."""
        right = (self._drawn(world.x).argmax(1) == world.y).double().mean().item()
        sure = self._drawn(self._box).softmax(1)[:, : world.n_classes].amax(1) > 0.9
        return right, sure.double().mean().item()

    def _forget_network(self):
        self._drop_steps()
        if self._made_for:
            self.painting.show(None)
        self._made_for = None

    def _failed(self, error, what):
        if isinstance(error, _Incomplete):
            self._show(self._said(self.steps))
        else:
            super()._failed(error, what)

    def close(self):
        self._drop_steps()
        super().close()


def _button(name, tooltip, act):
    made = ipywidgets.Button(description=name, tooltip=tooltip, layout={"width": "auto"})
    made.on_click(lambda button: act(button.description))
    return made


def _network(kind, width, world, generator):
    if kind == "closed":
        points, _ = world.sample(1000, generator=copy.copy(generator))
        return models.closed_mlp(2, width, world.n_classes, points=points, spread=True, generator=generator)
    return models.mlp(width=width, n_classes=world.n_classes + (kind == "reject"), generator=generator)


def _winners(network, classes):
    """Who wins in which share of all directions, in words."""
    circle = polytopes.infinity(network)
    names = [*(f"class {k}" for k in range(classes)), "reject"]
    shares = [(circle.width[(circle.winner == k) & ~circle.tie].sum(), names[k]) for k in range(len(circle.slopes[0]))]
    shares += [(circle.width[circle.tie].sum(), "a tie of classes")]
    said = [f"{name} {share / (2 * math.pi):.0%}" for share, name in sorted(shares, reverse=True) if share > 0.005 * 2 * math.pi]
    return f"Far away, of all directions: {', '.join(said)}"


def _ball(kind, network):
    """For a closed network, from where on its answer is proved constant: a distance Σ|xₖ − cₖ|."""
    try:
        return f"; proved constant beyond distance {polytopes.horizon_radius(network).radius:.0f}" if kind == "closed" else ""
    except ArithmeticError:  # not proved, as where a network dies in training
        return ""


def _remark(kind, world):
    """What a reader may not know of this world."""
    places = torch.cat([world.x, world.y[:, None]], 1).unique(dim=0)[:, :2]
    if len(places.unique(dim=0)) < len(places):
        return " Points of two classes stand in one place: no classifier can tell them apart."
    if kind != "plain" and not len(world.out):
        return " No OOD point is painted: a thin shell around the points takes their place."
    return " A plain classifier sees no OOD points." if kind == "plain" and len(world.out) else ""


# ---- points, and their files ----


def _listed(x, y):
    return [[float(a), float(b), int(k)] for (a, b), k in zip(x, y, strict=True)]


def _begin(points, std):
    """(points [[x, y, class], …], std) of what `World` is given to begin with."""
    if isinstance(points, str) and points in _PRESETS:
        return _listed(*_PRESETS[points]), std
    if isinstance(points, str | Path):
        return read(_path(points))
    x, y = (float64(part, name) for part, name in zip(points, ("points' x", "points' y"), strict=True))
    listed = [[*map(float, row), k] for row, k in zip(x.tolist(), y.tolist(), strict=True)]
    return _checked({"format": _FORMAT, "std": std, "points": listed}, "points")


def _path(name):
    """A path with a suffix: .json where none is given."""
    if not str(name).strip():
        raise ValueError("Give the file a name, such as my_world.json.")
    path = Path(str(name).strip()).expanduser()
    return path if path.suffix else path.with_suffix(".json")


def write(path: Path, points: Sequence, std: float) -> None:
    """Write points [[x, y, class or -1], …] to a file, a point a line."""
    lines = ",\n".join(f"  {json.dumps(point)}" for point in points)
    head = f'{{\n "format": {json.dumps(_FORMAT)},\n "note": "points are [x, y, class], class -1 is OOD",\n "std": {std}'
    files.write_whole(path, f'{head},\n "points": [\n{lines}\n ]\n}}\n'.encode())


def read(path: Path) -> tuple[list, float]:
    """(points [[x, y, class or -1], …], std) of a file. ValueError says what is wrong with it."""
    try:
        found = json.loads(path.read_bytes().decode())
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path} holds no painted world: it is not JSON.") from None
    return _checked(found, path)


def _checked(found, name):
    """The points and std of what a file holds; ValueError that names the point that is wrong."""
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise ValueError(f'{name} holds no painted world: it must say "format": "{_FORMAT}".')
    std, points = found.get("std"), found.get("points")
    if not _number(std) or not 0.01 <= std <= 1000:
        raise ValueError(f"{name}: std must be a number from 0.01 to 1000; it is {std!r}.")
    if not isinstance(points, list):
        raise ValueError(f"{name}: points must be a list of [x, y, class].")
    for n, point in enumerate(points, 1):
        if not (isinstance(point, list) and len(point) == 3 and all(map(_number, point))):
            raise ValueError(f"{name}: point {n} must be [x, y, class], three numbers; it is {point!r:.80}.")
        if max(abs(point[0]), abs(point[1])) > 1e6 or point[2] not in range(-1, _CLASSES):
            raise ValueError(
                f"{name}: point {n} must lie within ±1e6, its class be 0 to {_CLASSES - 1}, or -1 for OOD; it is {point}."
            )
    return [[float(x), float(y), int(k)] for x, y, k in points], float(std)


def _number(value):
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
