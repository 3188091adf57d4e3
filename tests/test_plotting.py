"""Figures: the right values in the right places, and colours that can be told apart."""

import itertools

import matplotlib
import numpy as np
import torch

from ood_helpers import data, plotting


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


def test_points_of_a_band_are_all_drawn_once():
    _fig, ax = plotting.figure()
    confidence = torch.linspace(0.5, 1, 101)
    plotting.band_points(ax, torch.zeros(101, 2), confidence)
    assert [len(c.get_offsets()) for c in ax.collections] == [21, 60, 20]


def test_bars_hold_the_shares():
    _fig, ax = plotting.figure()
    bars, _ = plotting.confidence_bars(ax, bins=5)
    plotting.set_bars(bars, torch.tensor([0.5, 0.55, 0.95, 1.0]))
    np.testing.assert_allclose(bars.get_data().values, [0.5, 0, 0, 0, 0.5])


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
    assert all(plotting.STYLE[key] >= 11 for key in plotting.STYLE if key.endswith("size"))
