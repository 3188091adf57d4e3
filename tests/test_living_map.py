"""The living map's Python side: what travels, its sentences, and what it refuses."""

import json

import pytest
from small_maps import a_map
from torch import nn

from ood_helpers import models, widgets


def test_only_weights_travel():
    living = a_map()
    numbers = sum(p.numel() for p in living.network.parameters())
    assert len(living.weights) == 2 * 4 * numbers
    assert len(json.dumps(living.still())) < 6000


def test_sentences_come_once_per_position():
    said = []
    living = a_map(sentence=lambda beta: said.append(beta) or f"{beta}")
    assert said == [1.0] and living.sentences == {"1": "1.0"}
    living.set(beta=0.0)
    living.set(beta=1.0)
    assert said == [1.0, 0.0] and living.sentences == {"1": "1.0", "0": "0.0"}
    assert living.values == {"beta": 1.0}


def test_a_sentence_that_fails_says_so():
    assert "ZeroDivisionError" in a_map(sentence=lambda beta: f"{1 / 0}").sentences["1"]


@pytest.mark.parametrize(
    "networks, settings, message",
    [
        ({0.0: models.mlp(width=4)}, {}, "none for \\(1.0,\\)"),
        ({0.0: models.mlp(width=4), 1.0: models.mlp(3, 4)}, {}, "2 inputs; this one has 3"),
        ({0.0: models.mlp(width=4), 1.0: models.mlp(width=4, n_classes=3)}, {}, "same number of outputs"),
        ({0.0: models.mlp(width=4), 1.0: models.mlp(width=4, activation="sigmoid")}, {}, "Sigmoid"),
        ({0.0: models.mlp(width=4), 1.0: nn.Linear(2, 2)}, {}, "Sequential"),
        (None, {"presets": {"odd": {"gamma": 1}}}, "no control 'gamma'"),
        (None, {"presets": {"odd": {"beta": 7.0}}}, "must be one of"),
        (None, {"colours": "rainbow"}, "colours must be one of"),
        (None, {"window": 1e9}, "half width"),
        (models.mlp(width=4), {}, "must be a dict"),
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
