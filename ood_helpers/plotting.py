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
from matplotlib.patches import Circle, Patch
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import ArrayLike
from torch import Tensor

from ood_helpers.data import Gaussians

if TYPE_CHECKING:  # which stand on a higher floor
    from ood_helpers.polytopes.plane import Plane

# one meaning, one colour, told apart with any colour vision. Okabe and Ito's palette; each class has a marker of its own, too
CLASSES = [("#0072B2", "o"), ("#E69F00", "s"), ("#009E73", "^"), ("#CC79A7", "D")]
MORE_CLASSES = ["#4B0082", "#8CD63F", "#E6194B", "#7B4A12", "#AAFFC3", "#2F4F4F"]  # of a map of ten: far from each other, too
OOD = ("#000000", "x")
REJECT, REJECT_PALE = "0.6", "0.93"  # the reject class and what it wins, greys
ACCENT = "#D55E00"  # what a figure points at
INSIDE, _INSIDE_PALE = "#8C564B", "#CDA294"  # in-distribution points of any class, and what is taken for them
# curves that are no class, from Paul Tol's muted scheme
SERIES = [("#882255", "o"), ("#44AA99", "s"), ("#999933", "^")]
# the bands of the paper's Figures 3b and 4b: the more confident, the darker
BANDS, BAND_COLORS = [0.5, 0.6, 0.9, 1.0], ["#fff3c4", "#c2a5cf", "#40004b"]

# legends stand below the axes, where they cover nothing
BELOW: dict[str, Any] = {
    "loc": "upper center",
    "bbox_to_anchor": (0.5, -0.16),
    "frameon": False,
    "handletextpad": 0.3,
    "columnspacing": 1.0,
}

_STYLE = {
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
    with matplotlib.rc_context(_STYLE):
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


def curves(ax: Axes, x: ArrayLike, groups: Mapping[str, ArrayLike], looks: Sequence = SERIES, **settings: Any) -> None:
    """Draw curves over x [n] with a legend below them; `settings` are those of `Axes.set`, such as xlabel and title.

    groups  name -> values [n], or a bundle [n, m] of m thinner curves; each group in its colour and with its marker of `looks`
    """
    for (name, values), (color, marker) in zip(groups.items(), looks, strict=False):
        values = np.asarray(values)
        lines = ax.plot(x, values, color=color, marker=marker, markevery=1 + len(values) // 16)
        for line in lines if values.ndim == 2 else []:
            line.set(linewidth=1.2, markersize=3)
        lines[0].set_label(name)
    ax.set(**settings)
    ax.xaxis.set_minor_formatter(NullFormatter())  # on a logarithmic scale they would run into each other
    if len(groups) > 1:
        ax.legend(ncols=len(groups), **BELOW | {"bbox_to_anchor": (0.5, -0.24 if ax.get_xlabel() else -0.16)})


def set_curves(ax: Axes, x: ArrayLike, values: ArrayLike) -> None:
    """Show other values [n, m], over another x [n], in the m `curves` of `ax`; the axes follow."""
    for line, column in zip(ax.lines, np.asarray(values).T, strict=True):
        line.set_data(x, column)
        line.set_markevery(1 + len(column) // 16)
    ax.relim()
    ax.autoscale()


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


def scene(ax: Axes, half_width: float, x: Tensor, y: Tensor, ood: Tensor | None = None, title: str = "", size: float = 8) -> None:
    """A square window with points x [n, 2] of classes y [n], OOD points [m, 2] over them, and a legend."""
    plane_axes(ax, half_width, title)
    points(ax, x, y, size)
    if ood is not None:
        ood_points(ax, ood, size)
    _class_legend(ax, int(y.max()) + 1, ood=ood is not None)


def band_scene(ax: Axes, half_width: float, x: Tensor, confidence: Tensor, title: str = "") -> None:
    """A square window with points x [n, 2] in the colour of their confidence band, and a legend."""
    plane_axes(ax, half_width, title)
    _band_points(ax, x, confidence)
    band_legend(ax)


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


def _image(ax, values, half_width, cmap, norm):
    extent = (-half_width, half_width, -half_width, half_width)
    return ax.imshow(np.asarray(values), origin="lower", extent=extent, cmap=cmap, norm=norm, interpolation="nearest", zorder=0)


def band_names(n_classes: int = 2) -> list[str]:
    """The three confidence bands in words: the least confidence among n_classes is 1 / n_classes."""
    return [f"{1 / max(n_classes, 2):.2g}–0.6 unsure", "0.6–0.9", "0.9–1 sure"]


def band_legend(ax: Axes) -> None:
    """A legend of the three confidence bands."""
    handles = [Patch(fc=color, ec="0.4", label=name) for color, name in zip(BAND_COLORS, band_names(), strict=True)]
    ax.legend(handles=handles, ncols=3, **BELOW | {"handlelength": 1.0})


def _class_legend(ax: Axes, n_classes: int, ood: bool = False) -> None:
    """A legend of points: the classes' markers, and OOD."""
    handles = [Line2D([], [], ls="", marker=m, color=c, label=f"class {k}") for k, (c, m) in enumerate(CLASSES[:n_classes])]
    if ood:
        handles.append(Line2D([], [], ls="", marker=OOD[1], color=OOD[0], label="OOD"))
    ax.legend(handles=handles, ncols=len(handles), **BELOW)


def window(ax: Axes, image: AxesImage, values: ArrayLike, half_width: float) -> None:
    """Show other values [n, n] in a map made before, over the square window [-half_width, half_width]²."""
    image.set_data(np.asarray(values))
    image.set_extent((-half_width, half_width, -half_width, half_width))
    ax.set(xlim=(-half_width, half_width), ylim=(-half_width, half_width))


def _band_points(ax: Axes, x: Tensor, confidence: Tensor, size: float = 9) -> None:
    """Points x [n, 2] in the colour of their confidence band, each band with its own marker."""
    for (low, high), color, marker in zip(pairwise(BANDS), BAND_COLORS, "vso", strict=True):
        inside = (confidence > low) & (confidence <= high) if low > BANDS[0] else confidence <= high
        ax.scatter(*x[inside].T, s=size, c=color, marker=marker, edgecolors="0.5", linewidths=0.2)


def polytope_map(ax: Axes, polytopes: "Plane", colors: Any) -> PolyCollection:
    """The polytopes of `polytopes.plane`, one colour [M, 3] each, with white edges."""
    artist = PolyCollection(np.split(polytopes.corners, polytopes.starts[1:-1]), edgecolors="white", zorder=0)
    artist.set_facecolor(colors)
    artist.set_linewidth(min(0.3, 300 / len(polytopes)))  # thousands of edges would paint the map white
    ax.add_collection(artist, autolim=False)
    return artist


def seeds(panels: Mapping[str, Mapping[str, Sequence]], labels: Sequence[str], *, rule: int = 0, **shape: Any) -> Figure:
    """A figure of one panel for each title: rows `labels`, a mark for every value, such as one per seed, black for their mean.

    panels  title -> name -> for each row its values; up to three names, each in its colour and with its marker
    rule    a line below so many rows · shape: width, height and rows of panels, as those of `figure`
    """
    fig, axes = figure(len(panels) // shape.get("rows", 1), **shape)
    for ax, (title, groups) in zip(np.ravel(axes), panels.items(), strict=True):
        for i, ((name, rows), (color, marker)) in enumerate(zip(groups.items(), SERIES, strict=False)):
            for row, values in enumerate(rows):
                at = row + (i - (len(groups) - 1) / 2) * 0.28
                ax.plot(values, [at] * len(values), marker, ms=4, color=color, alpha=0.5, label="" if row else name)
                ax.plot(np.mean(values), at, "|", color="black", ms=9, mew=2)
        if max(ax.dataLim.x1, 1) == 1:  # shares
            ax.set_xlim(-0.05, 1.05)
        if rule:
            ax.axhline(rule - 0.5, color="0.5", lw=1)
        ax.set(ylim=(len(labels) - 0.5, -0.5), title=title)
        ax.set_yticks(range(len(labels)), labels)
        ax.label_outer()
    if len(groups) > 1:
        fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, markerscale=2)
    return fig


def image_rows(rows: Mapping[str, ArrayLike], height: float, side: int = 8) -> Figure:
    """A figure of images, name -> pixels [n, side · side] in [0, 1], each name's side by side; 1 is black."""
    framed = [np.pad(np.asarray(x).reshape(-1, side, side), ((0, 0), (0, 1), (0, 1))) for x in rows.values()]
    fig, ax = figure(width=7.6, height=height)
    ax.imshow(np.concatenate([np.concatenate(x, axis=1) for x in framed]), cmap="gray_r", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=(side + 1) * np.arange(len(rows)) + side / 2 - 0.5, yticklabels=list(rows))
    ax.spines[:].set_visible(False)
    return fig


def rank_map(ax: Axes, shares: ArrayLike, half_width: float) -> AxesImage:
    """An image of shares [n, n]: that of the in-distribution points which score lower; returns it for `set_data`.

    What a detector does that keeps 95 % of them: below 0.05 a place is rejected.
    """
    cmap = ListedColormap([REJECT_PALE, _INSIDE_PALE, INSIDE])
    return _image(ax, shares, half_width, cmap, BoundaryNorm([0, 0.05, 0.5, 1], 3, extend="neither"))


def rank_legend(ax: Axes, **where: Any) -> None:
    """A legend of the three bands of a `rank_map`."""
    looks = {"below 5 %: rejected": REJECT_PALE, "5–50 %: accepted": _INSIDE_PALE, "above 50 %": INSIDE}
    handles = [Patch(fc=color, ec="0.4", label=name) for name, color in looks.items()]
    ax.legend(handles=handles, **where or BELOW)
