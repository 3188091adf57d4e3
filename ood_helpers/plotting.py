"""One look for every figure and table: colours with markers, confidence maps, class maps.

Figures are plain matplotlib figures drawn by Agg, without pyplot; a notebook cell that ends in one shows it.
"""

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import torch
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure as _Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Patch, StepPatch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from torch import Tensor

from ood_helpers.arrays import Numbers
from ood_helpers.data import Gaussians

if TYPE_CHECKING:  # which stand on a higher floor
    from ood_helpers.polytopes.infinity import Infinity
    from ood_helpers.polytopes.plane import Plane

# one meaning, one colour, told apart with any colour vision. Okabe and Ito's palette; each class has a marker of its own, too
CLASSES = [("#0072B2", "o"), ("#E69F00", "s"), ("#009E73", "^"), ("#CC79A7", "D")]
MORE_CLASSES = ["#4B0082", "#8CD63F", "#E6194B", "#7B4A12", "#AAFFC3", "#2F4F4F"]  # of a map of ten: far from each other, too
OOD = ("#000000", "x")
REJECT, REJECT_PALE = "0.6", "0.93"  # the reject class and what it wins, greys
ACCENT = "#D55E00"  # what a figure points at
INSIDE, INSIDE_PALE = "#8C564B", "#CDA294"  # in-distribution points of any class, and what is taken for them
# curves that are no class, from Paul Tol's muted scheme
SERIES = [("#882255", "o"), ("#44AA99", "s"), ("#999933", "^")]
# the bands of the paper's Figures 3b and 4b: the more confident, the darker
BANDS, BAND_COLORS = [0.5, 0.6, 0.9, 1.0], ["#fff3c4", "#c2a5cf", "#40004b"]
BAND_NAMES = ["0.5–0.6 unsure", "0.6–0.9", "0.9–1 sure"]

# legends stand below the axes, where they cover nothing
BELOW: dict[str, Any] = {
    "loc": "upper center",
    "bbox_to_anchor": (0.5, -0.16),
    "frameon": False,
    "handletextpad": 0.3,
    "columnspacing": 1.0,
}

STYLE = {
    "font.size": 12,
    "axes.titlesize": 13,
    "legend.fontsize": 11,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": matplotlib.cycler(color=[color for color, _ in SERIES]),
    "lines.linewidth": 2,
}


class Figure(_Figure):
    """A matplotlib figure that Jupyter shows as a picture."""

    def _repr_png_(self):
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def figure(columns: int = 1, width: float = 8.4, height: float = 4.2, rows: int = 1) -> tuple[Figure, Any]:
    """A figure of `width` × `height` inches and its axes (one, or an array of them), in the course's style."""
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(width, height), dpi=100, layout="compressed")
        fig.get_layout_engine().set(h_pad=0.1, w_pad=0.12)  # tick labels at the corners need room
        FigureCanvasAgg(fig)
        return fig, fig.subplots(rows, columns)


def table(header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Show a table: `header` and each of `rows` hold as many words or numbers as there are columns.

    The first column stands on the left, all others on the right. Where the page is narrow a line breaks in the header, in the
    first column, and before a bracket, not within a range.
    """

    def whole(cell):
        return re.sub(r" (?![(\[])", "\N{NO-BREAK SPACE}", str(cell))

    lines = [header, [":--", *["--:"] * (len(header) - 1)], *([str(first), *map(whole, row)] for first, *row in rows)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    display({"text/markdown": text, "text/plain": text}, raw=True)


def strips(ax: Axes, groups: Mapping[str, ArrayLike], labels: Sequence[str], title: str = "", xlabel: str = "") -> None:
    """A small mark for every value and a large one for their mean, such as one per seed: columns `labels`, side by side.

    groups  name -> values [columns, n]; up to three, each in its colour and with its marker
    """
    for i, ((name, values), (color, marker)) in enumerate(zip(groups.items(), SERIES, strict=False)):
        values = np.asarray(values, dtype=float)
        x = np.arange(len(values)) + (i - (len(groups) - 1) / 2) * 0.3
        ax.plot(x[:, None] + np.linspace(-0.1, 0.1, values.shape[1]), values, marker, ms=3, color=color, alpha=0.5)
        ax.plot(x, values.mean(1), marker, ms=10, color=color, mec="black", label=name)
    ax.set(ylim=(-0.03, 1.03), xlabel=xlabel, title=title)
    ax.set_xticks(range(len(labels)), labels)
    ax.legend(ncols=len(groups), **BELOW | {"bbox_to_anchor": (0.5, -0.24)})


def spread(values: Iterable, form: str = ".2f") -> str:
    """The smallest and the largest of some values, in words, or one number if they look the same; `form` as in an f-string."""
    least, most = f"{min(values):{form}}", f"{max(values):{form}}"
    return least if least == most else f"{least} … {most}"


def plane_axes(ax: Axes, half_width: float, title: str = "") -> None:
    """Set up `ax` as a square window [-half_width, half_width]² on the input plane."""
    ax.set(
        xlim=(-half_width, half_width),
        ylim=(-half_width, half_width),
        aspect="equal",
        xlabel="$x_1$",
        ylabel="$x_2$",
        title=title,
    )
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))  # few enough labels for any window


def points(ax: Axes, x: Tensor, y: Tensor, size: float = 14) -> None:
    """Points x [n, 2] of classes y [n], each class in its colour and marker."""
    for k in range(int(y.max()) + 1):
        color, marker = CLASSES[k]
        ax.scatter(*x[y == k].T, s=size, c=color, marker=marker, linewidths=0)


def ood_points(ax: Axes, x: Tensor, size: float = 14) -> None:
    """OOD points x [n, 2] as black crosses."""
    ax.scatter(*x.T, s=size, c=OOD[0], marker=OOD[1], linewidths=0.9)


def class_discs(ax: Axes, world: Gaussians, radius: float = 3.0) -> None:
    """Circles of `radius` standard deviations around the class means: what the paper calls in-distribution.

    More than two classes are also numbered: their pale colours cannot be told apart by everybody.
    """
    for k, mean in enumerate(world.means):
        for color, line_width in [("white", 5), (CLASSES[k][0], 2.5)]:
            ax.add_patch(Circle(mean.tolist(), radius * world.std, fill=False, ec=color, lw=line_width))
        if len(world.means) > 2:
            outwards = mean / mean.norm()
            edge, aside = mean + radius * world.std * outwards, 9 * outwards
            centred = {"ha": "center", "va": "center", "weight": "bold"}
            ax.annotate(str(k), edge.tolist(), aside.tolist(), textcoords="offset points", **centred)


def grid(half_width: float, n: int = 81) -> Tensor:
    """n² points [n², 2] on a square grid over [-half_width, half_width]², row by row from below, as `imshow` wants them."""
    axis = torch.linspace(-half_width, half_width, n)
    return torch.cartesian_prod(axis, axis).flip(1)


def band_map(ax: Axes, confidence: ArrayLike, half_width: float) -> AxesImage:
    """An image of confidences [n, n] over the square window in the paper's three bands; returns it for `set_data`.

    NaN is drawn as rejected: where reject wins a network is sure, of reject, though no class has a high probability.
    """
    return _image(ax, confidence, half_width, ListedColormap(BAND_COLORS).with_extremes(bad=REJECT), BoundaryNorm(BANDS, 3))


def class_map(ax: Axes, winner: ArrayLike, half_width: float, n_classes: int, reject: bool = False) -> AxesImage:
    """An image of winning classes [n, n] over the square window, the classes in pale colours and reject in light grey."""
    return _image(
        ax,
        winner,
        half_width,
        ListedColormap(_pale(n_classes - reject, reject)),
        BoundaryNorm([k - 0.5 for k in range(n_classes + 1)], n_classes),
    )


def _image(ax, values, half_width, cmap, norm):
    extent = (-half_width, half_width, -half_width, half_width)
    return ax.imshow(np.asarray(values), origin="lower", extent=extent, cmap=cmap, norm=norm, interpolation="nearest", zorder=0)


def band_legend(ax: Axes, reject: bool = False) -> None:
    """A legend of the three confidence bands, and of what is rejected."""
    looks = [*zip(BAND_COLORS, BAND_NAMES, strict=True), *[(REJECT, "rejected")] * reject]
    handles = [Patch(fc=color, ec="0.4", label=name) for color, name in looks]
    ax.legend(handles=handles, ncols=2 if reject else 3, **BELOW | {"handlelength": 1.0})


def class_legend(ax: Axes, n_classes: int, ood: bool = False) -> None:
    """A legend of points: the classes' markers, and OOD."""
    handles = [Line2D([], [], ls="", marker=m, color=c, label=f"class {k}") for k, (c, m) in enumerate(CLASSES[:n_classes])]
    if ood:
        handles.append(Line2D([], [], ls="", marker=OOD[1], color=OOD[0], label="OOD"))
    ax.legend(handles=handles, ncols=len(handles), **BELOW)


def region_legend(ax: Axes, n_classes: int, reject: bool = False, full: bool = False) -> None:
    """A legend of regions: the pale colours of `class_map`, or, with `full`, those of `class_colors` where it is sure."""
    names = [f"class {k}" for k in range(n_classes)] + ["reject"] * reject
    colors = _full(n_classes, reject) if full else _pale(n_classes, reject)
    handles = [Patch(fc=color, ec="0.4", label=name) for color, name in zip(colors, names, strict=True)]
    ax.legend(handles=handles, ncols=len(handles), **BELOW | {"handlelength": 1.0})


def _full(n_classes, reject):
    """The colours [K, 3] of the classes and of reject."""
    return np.array([matplotlib.colors.to_rgb(color) for color in [c for c, _ in CLASSES[:n_classes]] + [REJECT] * reject])


def _pale(n_classes, reject):
    """Paler colours [K, 3]; reject is palest, so that a thin arm of a class shows on it."""
    colors = 0.4 + 0.6 * _full(n_classes, reject)
    colors[n_classes:] = matplotlib.colors.to_rgb(REJECT_PALE)
    return colors


def window(ax: Axes, image: AxesImage, values: ArrayLike, half_width: float) -> None:
    """Show other values [n, n] in a map made before, over the square window [-half_width, half_width]²."""
    image.set_data(np.asarray(values))
    image.set_extent((-half_width, half_width, -half_width, half_width))
    ax.set(xlim=(-half_width, half_width), ylim=(-half_width, half_width))


def band_points(ax: Axes, x: Tensor, confidence: Tensor, size: float = 9) -> None:
    """Points x [n, 2] in the colour of their confidence band, each band with its own marker."""
    for (low, high), color, marker in zip(pairwise(BANDS), BAND_COLORS, "vso", strict=True):
        inside = (confidence > low) & (confidence <= high) if low > BANDS[0] else confidence <= high
        ax.scatter(*x[inside].T, s=size, c=color, marker=marker, edgecolors="0.5", linewidths=0.2)


def confidence_bars(ax: Axes, bins: int = 20, low: float = 0.5) -> tuple[StepPatch, StepPatch]:
    """Two empty histograms of confidences over [low, 1], in-distribution and OOD, for `set_bars`; returns both."""
    ax.set(xlim=(low, 1), ylim=(0, 1), xlabel="confidence", ylabel="share of the points", title="test points")
    edges = np.linspace(low, 1, bins + 1)
    kept = ax.stairs(np.zeros(bins), edges, fill=True, color=INSIDE, alpha=0.7, label="in-distribution")
    other = ax.stairs(np.zeros(bins), edges, color=OOD[0], lw=2.5, label="OOD")
    ax.legend(**BELOW, ncols=2)
    return kept, other


def set_bars(bars: StepPatch, confidence: Tensor) -> None:
    """Set the heights of one histogram from confidences [n]: the share of the points in each bin."""
    _, edges, _ = bars.get_data()
    counts, _ = np.histogram(confidence, edges)
    bars.set_data(counts / len(confidence))


def class_colors(logits: Numbers, reject: bool = False) -> np.ndarray:
    """A colour [n, 3] for each of n logits [n, K]: that of the winning class, the paler the less sure; reject is grey."""
    logits = torch.as_tensor(logits).double()
    winner, n_classes = logits.argmax(-1).numpy(), logits.shape[-1]
    full = _full(n_classes - reject, reject)[winner]
    sure = (logits.softmax(-1).amax(-1).numpy()[:, None] - 1 / n_classes) / (1 - 1 / n_classes)
    return 1 - (0.12 + 0.88 * sure) * (1 - full)  # a hint of the class even where nothing is sure


def polytope_map(ax: Axes, polytopes: "Plane", colors: np.ndarray) -> PolyCollection:
    """The polytopes of `polytopes.plane`, one colour [M, 3] each, with white edges; returns it for `set_polytopes`."""
    artist = PolyCollection([], edgecolors="white", zorder=0)
    ax.add_collection(artist, autolim=False)
    set_polytopes(artist, polytopes, colors)
    return artist


def set_polytopes(artist: PolyCollection, polytopes: "Plane", colors: Any) -> None:
    """Show other polytopes in a `polytope_map`."""
    artist.set_verts(np.split(polytopes.corners, polytopes.starts[1:-1]))
    artist.set_facecolor(colors)
    artist.set_linewidth(min(0.3, 300 / len(polytopes)))  # thousands of edges would paint the map white


def direction_ring(ax: Axes, infinity: "Infinity", reject: bool = False, title: str = "all directions") -> tuple:
    """The circle of directions, each in the colour and with the marker of its k*, black where classes tie, on axes `ax`.

    infinity  from `polytopes.infinity`
    reject    whether the last class is reject
    Returns the ring for `set_directions`.
    """
    ax.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), aspect="equal", xticks=[], yticks=[], title=title)
    ax.spines[:].set_visible(False)
    n_classes = infinity.slopes.shape[1]
    looks = [*CLASSES[: n_classes - reject], *[(REJECT, "x")] * reject, ("black", "*")]
    ring = PolyCollection([], linewidths=0)
    ax.add_collection(ring, autolim=False)
    marks = [ax.plot([], [], ls="", marker=m, color=c, mec="white" if c == "black" else "black", ms=9)[0] for c, m in looks]
    names = [f"class {k}" for k in range(n_classes - reject)] + ["reject"] * reject + ["tie"]
    handles = [Line2D([], [], ls="", marker=m, color=c, markeredgecolor="black", ms=9) for c, m in looks]
    ax.legend(handles, names, **BELOW | {"bbox_to_anchor": (0.5, 0.02)}, ncols=2)
    set_directions((ring, marks), infinity)
    return ring, marks


def set_directions(ring: tuple, infinity: "Infinity") -> None:
    """Show another network's directions in a `direction_ring`."""
    ring, marks = ring
    who = np.where(infinity.tie, len(marks) - 1, infinity.winner)
    new = np.flatnonzero(who != np.roll(who, 1)) if len(set(who)) > 1 else np.array([0])
    starts, who = infinity.start[new], who[new]
    widths = np.add.reduceat(np.roll(infinity.width, -new[0]), new - new[0])
    arcs = [start + np.linspace(0, width, 2 + int(50 * width)) for start, width in zip(starts, widths, strict=True)]
    unit = [np.stack([np.cos(arc), np.sin(arc)], axis=1) for arc in arcs]
    ring.set_verts([np.concatenate([u, 0.72 * u[::-1]]) for u in unit])
    ring.set_facecolor([mark.get_color() for mark in (marks[k] for k in who)])
    middle, wide = starts + widths / 2, widths > 0.05
    for k, mark in enumerate(marks):
        here = wide & (who == k)
        mark.set_data(0.86 * np.cos(middle[here]), 0.86 * np.sin(middle[here]))
