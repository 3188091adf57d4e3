"""The living map's Python side: what travels, its sentences, and what it refuses."""

import asyncio
import base64
import functools
import io
import itertools
import json

import ipywidgets
import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from small_maps import a_box, a_map, networks
from torch import nn

from ood_helpers import data, losses, models, plotting, polytopes, training, widgets, worlds
from ood_helpers.widgets import living_map, page


def test_only_weights_travel():
    living = a_map()
    living.words()
    numbers = sum(p.numel() for p in living.network.parameters())
    assert len(living.weights) == 2 * 4 * numbers
    assert len(json.dumps(living.still())) < 6000


def test_sentences_come_once_per_position():
    said = []
    living = a_map(sentence=lambda beta: said.append(beta) or f"{beta}")
    assert said == []  # not before they are wanted
    assert living.words() == living.words() == "1.0"
    living._asked(None, {"note": "0"}, [])
    living.set(beta=0.0)
    assert living.words() == "0.0" and said == [1.0, 0.0]
    assert living.values == {"beta": 0.0}


def test_one_network_has_a_sentence_too():
    living = widgets.LivingMap(models.mlp(width=2), sentence=lambda: "one")
    messages = told(living)
    living._asked(None, {"note": ""}, [])
    assert messages[0][0] == {"place": "", "note": {"text": "one"}} and living.words() == "one"


def test_a_sentence_that_fails_says_so():
    assert "ZeroDivisionError" in a_map(sentence=lambda beta: f"{1 / 0}").words()


@pytest.mark.parametrize(
    "networks, settings, message",
    [
        ({0.0: models.mlp(width=4)}, {}, "none for \\(1.0,\\)"),
        ({0.0: models.mlp(width=4), 1.0: models.mlp(3, 4)}, {}, "2 inputs, or axes .* this one has 3"),
        ({0.0: models.mlp(width=4), 1.0: models.mlp(width=4, n_classes=3)}, {}, "classes must say"),
        ({0.0: models.mlp(width=4), 1.0: models.mlp(width=4, n_classes=4)}, {"world": data.TwoGaussians()}, "2 outputs"),
        ({0.0: models.mlp(width=4), 1.0: nn.Sequential(nn.Linear(2, 4), nn.GELU(), nn.Linear(4, 2))}, {}, "GELU"),
        ({0.0: models.mlp(width=4), 1.0: "a network"}, {}, "Sequential"),
        (None, {"presets": {"odd": {"gamma": 1}}}, "no control 'gamma'"),
        (None, {"presets": {"odd": {"beta": 7.0}}}, "must be one of"),
        (None, {"colours": "rainbow"}, "colours must be one of"),
        (None, {"window": 1e9}, "half width"),
        (None, {"window": "size"}, "half width"),
        (None, {"presets": {"Reset": {}}}, "already"),
        (None, {"presets": {"empty": {}}}, "would do nothing"),
        (None, {"presets": {"odd": {"window": -1}}}, "half width"),
        (None, {"points": ([[1.0, 2.0, 3.0]], [0])}, "points"),
        (None, {"points": ([[1.0, 2.0]], [0.5])}, "classes 0, 1"),
        (None, {"title": ""}, "title"),
        (None, {"classes": 0}, "classes"),
        (lambda beta: {}[beta], {}, "raised KeyError"),
        (None, {"axes": [[1, 0], [2, 0]]}, "span a plane"),
        (models.mlp(width=4), {}, "must be a function or a dict"),
    ],
)
def test_what_cannot_be_drawn_is_refused_when_the_map_is_made(networks, settings, message):
    networks = networks or {beta: models.mlp(width=4) for beta in (0.0, 1.0)}
    with pytest.raises(ValueError, match=message):
        widgets.LivingMap(networks, {"beta": widgets.slider("beta", [0.0, 1.0], 1.0, "")}, **settings)


def test_what_is_no_sentence_and_no_control_is_refused():
    for sentence in ("text", lambda: "", lambda gamma: ""):
        with pytest.raises(TypeError, match="sentence must be a function"):
            a_map(sentence=sentence)
    with pytest.raises(TypeError, match="`slider` or `choice`"):
        widgets.LivingMap(lambda k: models.mlp(width=2), {"k": ipywidgets.IntSlider()})


@pytest.mark.parametrize(
    "extras", [{"star": [np.nan, 0]}, {"star": [1.0]}, {"bars": {"in": [0.5, np.nan]}}, {"bars": {"in": []}}]
)
def test_extras_that_cannot_be_drawn_are_named_in_place_of_the_sentence(extras):
    assert next(iter(extras)) in a_map(sentence=lambda beta: ("", extras)).words()


def test_a_world_of_other_inputs_is_not_outlined():
    network = models.mlp(3, 6)
    living = widgets.LivingMap(network, axes=[[1.0, 0, 1], [0, 2, 0]], world=data.TwoGaussians(dim=3))
    assert living.spec["discs"] == []
    moons = widgets.LivingMap(models.mlp(width=4), world=worlds.TwoMoons())
    for k, path in moons.spec["outlines"]:  # 3 standard deviations from the arc, that is from the nearest point of the world
        away = worlds.TwoMoons().arcs[k].distance(torch.tensor(path, dtype=torch.float64))
        np.testing.assert_allclose(away, 3.0, atol=1e-3)
    assert len(widgets.LivingMap(models.mlp(width=4), world=worlds.Rings()).spec["outlines"]) == 4


def test_a_smooth_layer_is_found_wherever_it_stands():
    norm = nn.BatchNorm1d(5)
    norm.running_mean += 0.5
    model = nn.Sequential(
        nn.Linear(2, 5), norm, nn.Tanh(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 2)
    )
    model = model.double().eval()
    x = np.random.default_rng(0).normal(size=(20, 2))
    living = widgets.LivingMap(model)
    assert living.spec["networks"][0]["leaks"] == ["tanh", 0.0, "sigmoid"]
    np.testing.assert_allclose(living_map._answers(living._read[0], x), model(torch.tensor(x)).detach(), atol=1e-12)


def test_nan_weights_are_refused():
    broken = models.mlp(width=4)
    broken[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        widgets.LivingMap(broken)


def told(living):
    """A list of what a map tells the page from now on."""
    messages = []
    living.send = lambda content, buffers=None: messages.append((content, buffers))
    return messages


def test_wide_networks_are_sent_when_they_are_wanted(monkeypatch):
    monkeypatch.setattr(living_map, "_AT_ONCE", 500)
    living = a_map()
    assert [shape["at"] for shape in living.spec["networks"]] == [None, 0]  # that of the first position is there
    messages = told(living)
    living._asked(None, {"network": 0}, [])
    [(content, [numbers])] = messages
    assert content["sent"] == 0 and len(numbers) == len(living.weights)
    assert len(base64.b64decode(living.still()["weights"])) == 2 * len(numbers)  # a page without a kernel has them all


def test_numbers_beyond_float32_travel_as_float64():
    network = models.mlp(width=4).double()
    network[0].weight.data[0, 0] = 0.1
    living = widgets.LivingMap(network)
    assert np.frombuffer(living.weights, "<f8")[0] == 0.1 and living.spec["double"]
    assert not a_map().spec["double"]


def test_the_last_question_is_answered_first_then_its_neighbours(monkeypatch):
    monkeypatch.setattr(living_map, "_idle", lambda: True)
    options = list(range(9))
    controls = {"k": widgets.slider("k", options, 4, "")}
    network = models.mlp(width=2)

    async def ask():
        living = widgets.LivingMap(lambda k: network, controls, sentence=lambda k: f"{k}")
        monkeypatch.setattr(living._loop, "call_later", lambda _, *call: living._loop.call_soon(*call))
        messages = told(living)
        for place in ("0", "3"):
            living._asked(None, {"note": place}, [])
        while len(living._notes) < len(options):
            await asyncio.sleep(0)
        return [content["note"]["text"] for content, _ in messages]

    assert asyncio.run(ask()) == ["3", "0", "1", "2", "4", "5", "6", "7", "8"]


def test_a_sentence_brings_star_histograms_points_and_a_figure():
    figure, _ = plotting.figure(width=3, height=2)
    extras = {
        "star": torch.tensor([1.0, 2.0]),
        "bars": {"in": torch.tensor([0.6, 0.9, 0.99]), "OOD": [0.5, 0.51]},
        "points": ([[0.0, 1.0]], [-1]),
        "figure": figure,
    }
    living = a_map(sentence=lambda beta: ("all", extras))
    assert living.words() == "all"
    note = living.notes["1"]
    assert note["star"] == [1.0, 2.0] and note["points"] == [[0.0, 1.0, -1]] and note["bars"]["low"] == 0.5
    for _, _, shares in note["bars"]["series"]:
        assert sum(shares) == pytest.approx(1, abs=1e-3)
    assert Image.open(io.BytesIO(base64.b64decode(note["picture"].split(",")[1]))).format == "PNG"
    assert len(living.picture()) > 1000
    assert "it returned 'stars'" in a_map(sentence=lambda beta: ("all", {"stars": 1})).words()


def test_the_stored_picture_has_the_star_its_legend_and_the_figure_beside_the_map():
    figure, ax = plotting.figure(width=3, height=2)
    ax.axhspan(0, 1, color="#00ff00")

    def png(**extras):
        return np.asarray(Image.open(io.BytesIO(a_map(sentence=lambda beta: ("all", extras)).picture())))[..., :3].astype(int)

    def count(image, colour):
        return (np.abs(image - np.array(colour)).max(axis=2) < 12).sum()

    plain, starred, both = png(), png(star=[10.0, 20]), png(figure=figure, star=[10.0, 20])
    assert both.shape[1] == plain.shape[1] + 300 and count(both, (0, 255, 0)) > 1000
    below = [count(image[int(0.85 * len(image)) :], (0xD5, 0x5E, 0)) for image in (plain, starred, both[:, : plain.shape[1]])]
    assert below[0] == 0 and below[1] == below[2] > 20  # of the legend
    assert count(png(star=[60.0, 0]), (0xD5, 0x5E, 0)) == below[1]  # beyond the window: in the legend only


def lab_colour(colour):
    """CIELAB of an RGB colour from 0 to 1."""
    linear = np.where(np.array(colour) <= 0.04045, np.array(colour) / 12.92, ((np.array(colour) + 0.055) / 1.055) ** 2.4)
    xyz = [[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]] @ linear / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_ten_classes_have_ten_colours():
    look = widgets.LivingMap(models.mlp(width=4, n_classes=11), classes=10, colours="classes").spec["look"]
    for colours, least in [(look["full"], 30), (look["pale"], 15)]:
        assert len(set(colours)) == 11  # reject is the last
        seen = [lab_colour(matplotlib.colors.to_rgb(colour)) for colour in colours]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > least
    assert look["markers"] == look["full"][:10]


def test_reject_is_paler_than_every_class_so_that_a_thin_arm_shows_without_hue():
    pale = widgets.LivingMap(models.mlp(width=4, n_classes=5), classes=4, colours="classes").spec["look"]["pale"]
    *classes, reject = [np.dot(matplotlib.colors.to_rgb(colour), [0.2126, 0.7152, 0.0722]) for colour in pale]
    assert reject > max(classes) + 0.1


def test_a_control_may_be_the_window_and_no_axis_of_the_networks():
    asked = []
    nets = networks()
    living = a_map(lambda beta: asked.append(beta) or nets[beta], a_box(), window="box", presets={"Near": {"box": 10}})
    assert asked == [0.0, 1.0] and living.network is nets[1.0]
    assert living.spec["halves"] == [10, 50, 1000] and living.spec["zoomed"] == 1 and living.window["half"] == 50
    assert living.spec["presets"][1] == {"name": "Near", "position": [1, 0], "window": 10, "title": "box = 10"}
    with pytest.raises(ValueError, match="no control 'window'"):
        a_map(nets, a_box(), window="box", presets={"odd": {"window": 10}})


def test_networks_may_differ_by_a_reject_class():
    nets = {0.0: models.mlp(width=4), 1.0: models.mlp(width=4, n_classes=3)}
    living = a_map(nets)
    assert [shape["reject"] for shape in living.spec["networks"]] == [0, 1] and "rejected" in [
        name for _, name in living.spec["key"]
    ]
    assert [shape["reject"] for shape in a_map(nets, world=None, classes=2).spec["networks"]] == [0, 1]


def test_a_slice_is_the_network_on_it():
    network, axes, origin = models.mlp(3, 6), np.array([[1.0, 0, 1], [0, 2, 0]]), np.array([0.5, 1, -1])
    living = widgets.LivingMap(network, axes=axes, origin=origin)
    s = np.random.default_rng(0).normal(size=(20, 2))
    expected = polytopes.read(network)(origin + s @ axes)
    np.testing.assert_allclose(living_map._answers(living._read[0], s), expected, atol=1e-12)
    assert living.spec["axes"] == ["s₁", "s₂"]


@pytest.mark.parametrize("colours", ["bands", "classes", "shades"])
def test_the_picture_has_the_colours_of_every_pixel(colours):
    """Also where it is filled in from a coarser grid."""
    living = a_map(networks(width=20, n_classes=3), colours=colours)
    read, look, side, half = living._read[1], living.spec["look"], 440, 5.0
    centres = 2 * half / side * (np.arange(side) + 0.5) - half
    x = np.stack(np.meshgrid(centres, -centres), axis=-1).reshape(-1, 2)
    expected = living_map._shade(living_map._answers(read, x), 1, look).reshape(side, side, 3)
    made = living_map._colours(read, 1, look, half, side)
    assert (np.abs(made - expected).max(axis=2) < 0.03).mean() > 0.999
    assert Image.open(io.BytesIO(living.picture())).width > 400


def test_the_ring_of_a_smooth_network_is_its_answer_far_away():
    for activation in ("sigmoid", "tanh"):
        network = models.mlp(width=6, n_classes=4, activation=activation, generator=torch.Generator().manual_seed(3)).double()
        network[-1].weight.data *= 9
        living = widgets.LivingMap(network)
        angles = np.random.default_rng(0).uniform(0, 2 * np.pi, 300)
        far = torch.tensor(1e6 * np.stack([np.cos(angles), np.sin(angles)], axis=1))
        ring = living.rings["0"]
        who = np.array(ring["who"])[np.searchsorted(ring["start"], angles, side="right") - 1]
        assert (who == network(far).argmax(1).numpy()).mean() > 0.99 and len(set(who)) > 1


def test_weights_that_were_trained_are_sent_again():
    living = widgets.LivingMap(models.mlp(width=4))
    living.network[0].weight.data[0, 0] = 7
    living.refresh()
    assert np.frombuffer(living.weights, "<f4")[0] == 7
    living.network[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        living.refresh()


def test_a_training_is_seen_through_a_map():
    network, world = models.mlp(width=4), data.TwoGaussians()
    start = functools.partial(training.train_steps, network, world, functools.partial(losses.confidence_loss, beta=1.0))
    living = widgets.LivingMap(network, world=world)
    before = living.weights
    live = widgets.Live(living, start, lambda steps: f"{steps} steps", stop=20, first=2)
    first = living.weights
    live.step(3)
    assert len({before, first, living.weights}) == 3 and live.sentence == "5 steps"
    assert living in page._parts(live.box)


def test_points_move_with_a_training_that_is_seen_through_a_map():
    network = models.mlp(width=4, generator=torch.Generator().manual_seed(0))
    living = widgets.LivingMap(network, world=data.TwoGaussians())
    bare = living.picture()

    def draw(steps):
        return f"{steps} steps", {"points": ([[10.0 * steps, 5]], [-1])}

    live = widgets.Live(living, lambda: iter(range(9)), draw, stop=9, first=1)
    assert (live.sentence, living.notes[""]["points"]) == ("1 steps", [[10.0, 5.0, -1]])
    assert living.picture() != bare  # the network is the same: what is new is the point
    live.step(2)
    assert (live.sentence, living.notes[""]["points"]) == ("3 steps", [[30.0, 5.0, -1]])
    with pytest.raises(ValueError, match="it returned 'cloud'"):
        living.refresh(cloud=1)


def test_what_is_painted_is_a_world():
    painting = widgets.Painting(2, points=([[0.0, 0], [5, 5]], [0, 1]))
    assert painting.painted == [[0, 0, 0], [5, 5, 1]] and painting.network is None and len(painting.picture()) > 1000
    changes = []
    painting.observe(lambda change: changes.append(change.new), "painted")
    painting.painted = [*painting.painted, [0.0, 9.0, -1]]
    assert len(changes) == 1 and painting.words() == "Painted: 1 of class 0, 1 of class 1, and 1 OOD."
    network = models.mlp(width=8, generator=torch.Generator().manual_seed(0))
    training.train(network, painting.world, functools.partial(losses.confidence_loss, beta=1.0), steps=300)
    assert network(painting.world.x).argmax(1).tolist() == [0, 1]
    painting.show(network)
    assert len(painting.weights) == 4 * sum(p.numel() for p in network.parameters()) and painting.spec["paint"] == 2


def test_a_painting_refuses_what_it_cannot_be():
    with pytest.raises(ValueError, match="class 1 has no point"):
        _ = widgets.Painting(2, points=([[0.0, 0]], [0])).world
    with pytest.raises(ValueError, match="at most 4"):
        widgets.Painting(5)
    with pytest.raises(ValueError, match="classes 0 to 1"):
        widgets.Painting(2, points=([[0.0, 0]], [2]))
    with pytest.raises(ValueError, match="2 outputs"):
        widgets.Painting(2).show(models.mlp(n_classes=5, width=2))
