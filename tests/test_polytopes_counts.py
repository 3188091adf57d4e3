"""The plane's polytopes of known networks: their number, their areas, their maps, their activation patterns."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from ood_helpers.polytopes import plane


def network(*sizes, seed=0):
    torch.manual_seed(seed)
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).double()


@pytest.mark.parametrize("width, count", [(16, 563), (32, 2227), (100, 19_300)])
def test_counts_of_seeded_networks(width, count):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))
    assert len(plane(model)) == count


@pytest.mark.parametrize("sizes", [(2, 3), (2, 7, 1), (2, 20, 20, 3), (2, 8, 9, 10, 4)])
def test_areas_maps_and_patterns(sizes):
    model = network(*sizes)
    cut = plane(model, -5.0, 5.0)
    assert cut.areas.sum() == pytest.approx(100, rel=1e-9)
    x = torch.tensor(cut.centroids)
    expected = model(x).detach().numpy()
    actual = np.einsum("mkd,md->mk", cut.slopes, cut.centroids) + cut.offsets
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)
    patterns, h = [], x
    for layer in model:
        h = layer(h)
        if isinstance(layer, nn.ReLU):
            patterns.append(h > 0)
    if patterns:
        assert len(torch.unique(torch.cat(patterns, 1), dim=0)) == len(cut)
    points = np.random.default_rng(0).uniform(-5, 5, (500, 2))
    where = cut.locate(points)
    found = np.einsum("nkd,nd->nk", cut.slopes[where], points) + cut.offsets[where]
    np.testing.assert_allclose(found, model(torch.tensor(points)).detach().numpy(), rtol=1e-9, atol=1e-9)
