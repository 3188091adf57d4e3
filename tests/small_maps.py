"""A small living map for the tests."""

import torch

from ood_helpers import data, models, widgets


def networks(width=8, **shape):
    """Two networks with random weights: beta 0 and 1."""
    return {
        beta: models.mlp(width=width, generator=torch.Generator().manual_seed(k), **shape) for k, beta in enumerate([0.0, 1.0])
    }


def a_map(nets=None, controls=None, **settings):
    """Two networks, beta 0 and 1, of width 8 with random weights."""
    controls = {"beta": widgets.slider("beta", [0.0, 1.0], 1.0, "weight of the KL term")} | (controls or {})
    usual = {"world": data.TwoGaussians(), "sentence": lambda beta, **others: f"beta is {beta}"}
    usual |= {"presets": {"Far": {"window": 1000}}}
    return widgets.LivingMap(nets or networks(), controls, **usual | settings)


def a_box(value=50):
    """A control for the window."""
    return {"box": widgets.slider("box radius", [10, 50, 1000], value, "half the side of the test box")}
