"""A small living map for the tests."""

import torch

from ood_helpers import data, models, widgets


def a_map(**settings):
    """Two networks, beta 0 and 1, of width 8 with random weights."""
    networks = {beta: models.mlp(width=8, generator=torch.Generator().manual_seed(k)) for k, beta in enumerate([0.0, 1.0])}
    controls = {"beta": widgets.slider("beta", [0.0, 1.0], 1.0, "weight of the KL term")}
    usual = {"world": data.TwoGaussians(), "sentence": lambda beta: f"beta is {beta}", "presets": {"Far": {"window": 1000}}}
    return widgets.LivingMap(networks, controls, **usual | settings)
