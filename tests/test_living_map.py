"""The living map's Python side: what travels, its sentences, and what it refuses."""

import json

import pytest
from small_maps import a_map
from torch import nn

from ood_helpers import data, models, widgets


def test_only_weights_travel():
    living = a_map()
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
        ({0.0: models.mlp(width=4), 1.0: nn.Linear(2, 2)}, {}, "Sequential"),
        (None, {"presets": {"odd": {"gamma": 1}}}, "no control 'gamma'"),
        (None, {"presets": {"odd": {"beta": 7.0}}}, "must be one of"),
        (None, {"colours": "rainbow"}, "colours must be one of"),
        (None, {"window": 1e9}, "half width"),
        (None, {"window": "size"}, "half width"),
        (None, {"presets": {"Reset": {}}}, "already"),
        (None, {"presets": {"odd": {"window": -1}}}, "half width"),
        (None, {"points": ([[1.0, 2.0, 3.0]], [0])}, "points"),
        (models.mlp(width=4), {}, "must be a function or a dict"),
    ],
)
def test_what_cannot_be_drawn_is_refused_when_the_map_is_made(networks, settings, message):
    networks = networks or {beta: models.mlp(width=4) for beta in (0.0, 1.0)}
    with pytest.raises(ValueError, match=message):
        widgets.LivingMap(networks, {"beta": widgets.slider("beta", [0.0, 1.0], 1.0, "")}, **settings)


def test_nan_weights_are_refused():
    broken = models.mlp(width=4)
    broken[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        widgets.LivingMap(broken)
