"""Figures: the right values in the right places, and colours that can be told apart."""

import itertools
import math

import matplotlib
import numpy as np
import pytest
import torch

from ood_helpers import data, plotting, polytopes


def test_the_grid_runs_row_by_row_from_below_as_imshow_wants():
    points = plotting.grid(10, 3).reshape(3, 3, 2)
    assert points[0, 0].tolist() == [-10, -10] and points[0, 2].tolist() == [10, -10] and points[2, 0].tolist() == [-10, 10]


def test_a_map_shows_each_value_at_its_place():
    fig, ax = plotting.figure(width=3, height=3)
    upper_right = (plotting.grid(1, 20) > 0).all(1).double().reshape(20, 20)
    plotting.plane_axes(ax, 1)
    plotting.band_map(ax, 0.5 + 0.5 * upper_right, 1)
    fig.canvas.draw()
    pixels = np.asarray(fig.canvas.buffer_rgba())[::-1]
    dark = [round(255 * c) for c in matplotlib.colors.to_rgb(plotting.BAND_COLORS[-1])]
    for place, is_dark in [((0.5, 0.5), True), ((-0.5, 0.5), False), ((0.5, -0.5), False)]:
        column, row = ax.transData.transform(place).astype(int)
        assert (pixels[row, column, :3].tolist() == dark) == is_dark


def test_bands_end_where_the_papers_do():
    _fig, ax = plotting.figure()
    image = plotting.band_map(ax, torch.zeros(2, 2), 1)
    colors = [matplotlib.colors.to_hex(image.cmap(image.norm(v))) for v in (0.5, 0.59, 0.61, 0.89, 0.91, 1.0)]
    assert colors == [c for c in plotting.BAND_COLORS for _ in range(2)]


def test_what_is_rejected_is_drawn_as_rejected_and_not_as_unsure():
    _fig, ax = plotting.figure()
    image = plotting.band_map(ax, torch.tensor([[0.5, math.nan], [1.0, 0.7]]), 1)
    plotting.band_legend(ax)
    drawn = image.to_rgba(image.get_array())[0, 1, :3]
    assert drawn.tolist() == list(matplotlib.colors.to_rgb(plotting.REJECT))
    looks = {text.get_text(): patch.get_facecolor()[:3] for text, patch in _entries(ax)}
    assert [*looks] == plotting.band_names() and tuple(drawn) not in looks.values()
    assert plotting.band_names(10) == ["0.1–0.6 unsure", *plotting.band_names()[1:]]  # where no class is preferred: a tenth each


def _entries(ax):
    return list(zip(ax.get_legend().get_texts(), ax.get_legend().get_patches(), strict=True))


# what each kind of colour vision sees of linear sRGB (Machado, Oliveira and Fernandes 2009, full severity)
VISION = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def _lab(color, vision):
    """CIE L*a*b* of a colour as somebody sees it."""
    c = np.array(matplotlib.colors.to_rgb(color))
    linear = np.clip(np.array(VISION[vision]) @ np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4), 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ linear / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


MEANINGS = {
    "a map of bands": [*plotting.BAND_COLORS, plotting.REJECT, plotting.ACCENT, *[c for c, _ in plotting.CLASSES[:2]]],
    "bars": [plotting.INSIDE, plotting.OOD[0], *plotting.BAND_COLORS, *[c for c, _ in plotting.CLASSES[:2]]],
    "a map of what is accepted": [
        plotting.REJECT_PALE,
        plotting._INSIDE_PALE,
        plotting.INSIDE,
        *[c for c, _ in plotting.CLASSES[:2]],
    ],
    "classes": [c for c, _ in plotting.CLASSES],
    "curves": [c for c, _ in plotting.SERIES],
}


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("figure", MEANINGS)
def test_two_meanings_never_share_a_colour_whatever_one_sees(figure, vision):
    for one, other in itertools.combinations(MEANINGS[figure], 2):
        assert np.linalg.norm(_lab(one, vision) - _lab(other, vision)) > (25 if vision == "normal" else 13), (one, other)


def test_points_of_a_band_are_all_drawn_once():
    _fig, ax = plotting.figure()
    confidence = torch.linspace(0.5, 1, 101)
    plotting.band_scene(ax, 5, torch.zeros(101, 2), confidence)
    assert [len(c.get_offsets()) for c in ax.collections] == [21, 60, 20]


def axes_network():
    """Logits x₁ and -x₁ by one hidden layer of two neurons: class 0 wins to the right, class 1 to the left."""
    hidden, out = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    hidden.weight.data, out.weight.data = torch.tensor([[1.0, 0], [-1, 0]]), torch.tensor([[1.0, -1], [-1, 1]])
    hidden.bias.data = out.bias.data = torch.zeros(2)
    return torch.nn.Sequential(hidden, torch.nn.ReLU(), out)


def test_polytopes_are_drawn_where_they_are_in_their_colours():
    fig, ax = plotting.figure(width=3, height=3)
    plotting.plane_axes(ax, 1)
    plane = polytopes.plane(axes_network(), -1, 1)
    plotting.polytope_map(ax, plane, ["blue" if x < 0 else "red" for x, _ in plane.centroids])
    fig.canvas.draw()
    pixels = np.asarray(fig.canvas.buffer_rgba())[::-1]
    for x, color in [(0.5, [255, 0, 0]), (-0.5, [0, 0, 255])]:
        column, row = ax.transData.transform((x, 0.3)).astype(int)
        assert pixels[row, column, :3].tolist() == color


def test_every_class_has_its_own_colour_and_marker():
    _fig, ax = plotting.figure()
    world = data.FourGaussians()
    x, y = world.sample(40, generator=torch.Generator().manual_seed(0))
    plotting.points(ax, x, y)
    assert len(ax.collections) == 4
    pairs = [*plotting.CLASSES, plotting.OOD]
    for (color_a, marker_a), (color_b, marker_b) in itertools.combinations(pairs, 2):
        assert color_a != color_b and marker_a != marker_b


def test_a_figure_is_a_picture_of_its_own_without_pyplot():
    fig, _ = plotting.figure()
    assert fig._repr_png_().startswith(b"\x89PNG")


def test_text_can_be_read_from_the_back():
    assert all(plotting._STYLE[key] >= 11 for key in plotting._STYLE if key.endswith("size"))


def test_more_than_two_classes_are_numbered_beside_their_discs():
    for world, numbers in [(data.TwoGaussians(), []), (data.FourGaussians(), ["0", "1", "2", "3"])]:
        _, ax = plotting.figure()
        plotting.class_discs(ax, world)
        assert [text.get_text() for text in ax.texts] == numbers


def test_a_table_is_markdown_whose_ranges_stay_in_one_line(monkeypatch):
    shown = []
    monkeypatch.setattr(plotting, "display", lambda data, raw: shown.append(data))
    plotting.table(["ring", "AUROC, box 50"], [["far out", "0.13 … 0.39"], [100, "0.5 [0.4, 0.6]"]])
    (data,) = shown
    lines = data["text/markdown"].split("\n")
    assert lines == [
        "| ring | AUROC, box 50 |",
        "| :-- | --: |",
        "| far out | 0.13\xa0…\xa00.39 |",
        "| 100 | 0.5 [0.4,\xa00.6] |",
    ]
    assert data["text/plain"] == data["text/markdown"]


def test_strips_show_every_value_and_the_mean_of_each_column():
    _, ax = plotting.figure()
    plotting.strips(ax, {"a": [[0, 1, 0.5], [0.2, 0.2, 0.2]], "b": [[1, 1, 1], [0, 0, 0.3]]}, ["x", "y"], "t")
    small = [line for line in ax.lines if line.get_markersize() < 5]
    large = [line for line in ax.lines if line.get_markersize() > 5]
    assert [line.get_ydata().tolist() for line in large] == [[0.5, pytest.approx(0.2)], [1, pytest.approx(0.1)]]
    assert sorted(v for line in small for v in line.get_ydata()) == sorted([0, 1, 0.5, 0.2, 0.2, 0.2, 1, 1, 1, 0, 0, 0.3])
    columns = [np.round([line.get_xdata()[i] for line in small]).tolist() for i in (0, 1)]
    assert columns == [[0] * 6, [1] * 6]  # beside their label, on either side
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"] and ax.get_title() == "t"
    assert {line.get_marker() for line in large} == {"o", "s"}


def test_a_spread_is_said_from_the_smallest_to_the_largest():
    assert plotting.spread([0.5, 0.25, 1], ".0%") == "25% … 100%" and plotting.spread([2, 1]) == "1.00 … 2.00"
    assert plotting.spread([0.999, 1.0]) == "1.00", "ends that look the same are one"


def test_curves_are_drawn_one_or_a_bundle_for_each_name_and_follow_other_values():
    _, ax = plotting.figure()
    plotting.curves(ax, [1, 10, 100], {"a": [1, 2, 3], "b": [[4, 5], [6, 7], [8, 9]]}, xscale="log", xlabel="x", title="t")
    assert [line.get_ydata().tolist() for line in ax.lines] == [[1, 2, 3], [4, 6, 8], [5, 7, 9]]
    assert [(line.get_color(), line.get_marker()) for line in ax.lines] == [plotting.SERIES[i] for i in (0, 1, 1)]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_title()) == ("log", "x", "t")
    plotting.set_curves(ax, [0, 5], np.array([[1, 2, 3], [40, 50, 60]]))
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[0, 1], [5, 40]], [[0, 2], [5, 50]], [[0, 3], [5, 60]]]
    assert ax.get_ylim()[1] >= 60, "the axes follow"
    with pytest.raises(ValueError):
        plotting.set_curves(ax, [0, 5], np.zeros([2, 2]))


def test_one_curve_needs_no_legend():
    _, ax = plotting.figure()
    plotting.curves(ax, [0, 1], {"a": [1, 2]})
    assert ax.get_legend() is None


def test_a_scene_shows_classes_and_ood_points_and_names_them():
    _, ax = plotting.figure()
    plotting.scene(ax, 5, torch.eye(2), torch.tensor([0, 1]), torch.ones(3, 2), "t")
    assert [len(c.get_offsets()) for c in ax.collections] == [1, 1, 3] and ax.get_xlim() == (-5, 5) and ax.get_title() == "t"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["class 0", "class 1", "OOD"]
    _, ax = plotting.figure()
    plotting.scene(ax, 5, torch.eye(2), torch.tensor([0, 1]))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["class 0", "class 1"]


def test_a_band_scene_shows_every_point_and_names_the_bands():
    _, ax = plotting.figure()
    plotting.band_scene(ax, 5, torch.zeros(3, 2), torch.tensor([0.5, 0.7, 0.95]), "t")
    assert [len(c.get_offsets()) for c in ax.collections] == [1, 1, 1]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == plotting.band_names()


def test_seeds_show_every_value_and_the_mean_of_each_row():
    panels = {"a": {"one": [[0, 1], [0.5]], "other": [[0.2], [0.4, 0.8]]}, "b": {"one": [[2, 4], [3]]}}
    fig = plotting.seeds(panels, ["up", "down"], rule=1, width=6)
    left, right = fig.axes
    marks = [list(line.get_xdata()) for line in left.lines]
    assert marks == [[0, 1], [0.5], [0.5], [0.5], [0.2], [0.2], [0.4, 0.8], pytest.approx([0.6]), [0, 1]]
    above = [line.get_ydata()[0] for line in left.lines]
    assert above[0] < above[4] < above[-1] == 0.5 < above[2] < above[6], "rows from above, names side by side, the rule between"
    assert left.get_xlim() == (-0.05, 1.05) and right.get_xlim()[1] >= 4 and left.yaxis_inverted()
    assert [text.get_text() for text in left.get_yticklabels()] == ["up", "down"] and right.get_title() == "b"
    assert not fig.legends, "one name needs no legend"
    two = plotting.seeds({"a": panels["a"]}, ["up", "down"])
    assert [text.get_text() for text in two.legends[0].get_texts()] == ["one", "other"]


def test_rows_of_images_stand_one_below_the_other():
    images = {"first": np.zeros((3, 64)), "second": np.ones((2, 64))}
    images["first"][1, 9] = 1  # the second pixel of the second line
    with pytest.raises(ValueError):
        plotting.image_rows(images, 2)  # three images beside two
    images["second"] = np.ones((3, 64))
    (ax,) = plotting.image_rows(images, 2).axes
    drawn = np.asarray(ax.images[0].get_array())
    assert drawn.shape == (18, 27) and drawn[:9].sum() == drawn[1, 10] == 1 and drawn[9:17, :8].all()
    assert [text.get_text() for text in ax.get_yticklabels()] == ["first", "second"]


def test_a_map_of_ranks_says_what_is_rejected():
    _, ax = plotting.figure()
    image = plotting.rank_map(ax, [[0.0, 0.049], [0.05, 1.0]], 1)
    plotting.rank_legend(ax)
    looks = [patch.get_facecolor() for _, patch in _entries(ax)]
    assert image.to_rgba(image.get_array()).reshape(4, 4).tolist() == [list(looks[i]) for i in (0, 0, 1, 2)]
    assert [text.get_text() for text, _ in _entries(ax)] == ["below 5 %: rejected", "5–50 %: accepted", "above 50 %"]


def test_a_bundle_of_curves_is_thinner_than_one():
    _fig, ax = plotting.figure()
    plotting.curves(ax, [0, 1], {"one": [0, 1], "bundle": np.zeros((2, 3))})
    one, *bundle = [line.get_linewidth() for line in ax.lines]
    assert len(bundle) == 3 and max(bundle) < one
