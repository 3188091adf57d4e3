"""The bound on the confidence and the search for polytopes without end in networks that are no chains."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_graphs import RandomGraph, answers
from small_networks import random_network
from torch import nn

from ood_helpers.polytopes import confidence_bound, escape, horizon_radius, ray, read, silent_certificate
from ood_helpers.polytopes.graph import traced
from ood_helpers.polytopes.graph_bound import _Box

seeds = st.integers(0, 2**32 - 1)


def confidence(model, x):
    return torch.from_numpy(answers(model, x)).softmax(-1).amax(-1).numpy()


@given(seeds, st.booleans(), st.sampled_from([0.0, 1e-6, 0.01, 0.3, 3.0]), st.sampled_from([(2, 4, 4), (3,)]))
@settings(max_examples=100, deadline=None)
def test_no_point_of_the_box_is_surer_than_the_bound(seed, coarse, half, shape):
    model, rng = RandomGraph(seed, shape, steps=5, coarse=coarse, outputs=3 if half else 2), np.random.default_rng(seed)
    middle = rng.normal(size=shape)
    low, high = middle - half, middle + half
    network = read(model, shape)
    assume(all(0 <= leak <= 1 for leak in getattr(network, "leaks", ())))  # a chain with another slope is refused
    bound = confidence_bound(network, [low], [high])
    x = middle.ravel() + half * np.where(
        rng.random((300, 1)) < 0.5, rng.uniform(-1, 1, (300, middle.size)), rng.choice([-1, 1], (300, middle.size))
    )
    assert confidence(model, x).max() <= bound[0] + 1e-12
    if half == 0:
        assert bound[0] == pytest.approx(confidence(model, middle.reshape(1, -1))[0], rel=1e-6)


@given(seeds, st.sampled_from([1e-6, 0.01, 0.3]))
@settings(max_examples=60, deadline=None)
def test_every_value_lies_between_its_bounds(seed, half):
    model, rng = RandomGraph(seed, (3,), steps=6), np.random.default_rng(seed)
    graph, middle = traced(model, (3,)), rng.normal(size=3)
    box = _Box(graph, graph.tensor(middle - half), graph.tensor(middle + half))
    x = graph.tensor(middle + half * rng.uniform(-1, 1, (200, 3)))
    values = {0: x}
    for i, step in enumerate(graph.steps[1:], 1):
        values[i] = step(*(values[source] for source in step.sources))
        spare = 1e-12 * (1 + values[i].abs().max())
        assert (values[i] >= box.least[i] - spare).all() and (values[i] <= box.most[i] + spare).all()


@given(seeds, st.sampled_from([0.0, 0.1]), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_a_chain_has_about_the_same_bound_as_steps(seed, leak, depth):
    rng = np.random.default_rng(seed)
    model = random_network(rng, (3, *[8] * depth, 3), leak)
    middle = rng.normal(size=(4, 3))
    one = confidence_bound(traced(model.eval(), (3,)), middle - 0.1, middle + 0.1)
    two = confidence_bound(model, middle - 0.1, middle + 0.1)
    assert (one >= two * (1 - 1e-9)).all() and (one <= 1.2 * two).all()  # graphs bound only what may kink backwards


def test_a_bound_through_convolutions_is_tighter_than_intervals():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 196, 30),
        nn.ReLU(),
        nn.Linear(30, 10),
    )
    x = np.random.default_rng(0).random((2, 1, 28, 28))
    bound = confidence_bound(model, x - 0.01, x + 0.01)
    model.double().shape = (1, 28, 28)
    assert (confidence(model, x) <= bound).all() and (bound < 0.3).all()


def test_certificates_need_matrices():
    for ask in (silent_certificate, horizon_radius):
        with pytest.raises(ValueError, match="must be a chain"):
            ask(read(RandomGraph(3), (2, 5, 5)))


# Polytopes without end ----------------------------------------------------------------------------------------------------


@given(seeds, st.sampled_from([(2, 4, 4), (3,), (2,)]), st.integers(1, 6))
@settings(max_examples=100, deadline=None)
def test_along_an_escape_nothing_ever_kinks_and_elsewhere_something_does(seed, shape, steps):
    model, rng = RandomGraph(seed, shape, steps=steps), np.random.default_rng(seed)
    graph, x = read(model, shape), rng.normal(size=shape)
    try:
        v = escape(graph, x)
    except ArithmeticError as undecided:
        assert "undecided" in str(undecided)
        return
    if v is None:
        for u in rng.normal(size=(5, x.size)):
            assert len(ray(graph, x, u)) > 1
    else:
        assert np.linalg.norm(v) == pytest.approx(1)
        assert len(ray(graph, x, v)) == 1 or min(ray(graph, x, v).t[1:]) > 1e6  # the last bits of v do not count


@given(seeds, st.sampled_from([0.0, 0.1]))
@settings(max_examples=60, deadline=None)
def test_a_chain_has_the_same_escapes_as_steps(seed, leak):
    rng = np.random.default_rng(seed)
    model, x = random_network(rng, (3, 8, 8, 2), leak), rng.normal(size=3)
    try:
        one = escape(traced(model.eval(), (3,)), x)
    except ArithmeticError as error:  # a graph is decided in floats, or not at all
        assert "undecided" in str(error)
        return
    assert (one is None) == (escape(model, x) is None)


def test_on_a_kink_a_graph_is_undecided():
    model = RandomGraph(0, (3,), kinds=["kink"])
    with pytest.raises(ArithmeticError, match="undecided: x lies on a kink"):
        escape(traced(model, (3,)), [0.0, 1.0, 1.0])
