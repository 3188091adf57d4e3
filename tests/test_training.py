"""One loop for every loss: it learns, a list equals one by one, it survives interrupts and divergence."""

import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from ood_helpers.adam import Adam
from ood_helpers.data import TwoGaussians
from ood_helpers.horizon import silent_horizon_loss, unit_directions
from ood_helpers.losses import confidence_loss, reject_loss
from ood_helpers.models import mlp
from ood_helpers.other_losses import acet_penalty
from ood_helpers.polytopes import infinity
from ood_helpers.training import train, train_steps

WORLD = TwoGaussians()
LOSS = functools.partial(confidence_loss, beta=1.0)


def network(seed=0, width=16, n_classes=2, **kwargs):
    return mlp(width=width, n_classes=n_classes, generator=torch.Generator().manual_seed(seed), **kwargs)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def test_a_network_learns_the_classes_and_the_shell():
    model = network(width=64)
    history = train(model, WORLD, LOSS, steps=1500)
    assert history.loss.shape == (1500,) and history.loss[-20:].mean() < 0.2 < history.loss[0]
    g = torch.Generator().manual_seed(1)
    x, y = WORLD.sample(500, generator=g)
    assert (model(x).argmax(1) == y).float().mean() > 0.98
    assert model(WORLD.boundary(500, generator=g)).softmax(1).amax(1).mean() < 0.75


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("seeds", [7, [7, 8, 7]])
@pytest.mark.parametrize("cosine", [False, True])
def test_a_list_gets_what_each_would_get_alone(seeds, activation, cosine):
    together = [network(s, activation=activation) for s in range(3)]
    alone = [network(s, activation=activation) for s in range(3)]
    beta = torch.tensor([0.0, 0.5, 2.0])
    history = train(together, WORLD, functools.partial(confidence_loss, beta=beta), steps=70, seed=seeds, cosine=cosine)
    for e, model in enumerate(alone):
        own_seed = seeds if isinstance(seeds, int) else seeds[e]
        own = train(model, WORLD, functools.partial(confidence_loss, beta=beta[e]), steps=70, seed=own_seed, cosine=cosine)
        torch.testing.assert_close(history.loss[:, e], own.loss, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(weights(together[e]), weights(model), rtol=1e-3, atol=1e-4)
    assert (weights(together[0]) - weights(together[2])).abs().max() > 1e-3


@pytest.mark.parametrize("cosine", [False, True])
def test_the_loop_equals_a_plain_torch_loop(cosine):
    ours, plain = network(3), network(3)
    train(ours, WORLD, reject_like, steps=50, batch=8, seed=5, cosine=cosine)
    g = torch.Generator().manual_seed(5)
    (x_in, y), x_out = WORLD.sample(64 * 8, generator=g), WORLD.boundary(64 * 8, generator=g)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    for i in range(50):
        rows = slice(8 * i, 8 * i + 8)
        optimizer.zero_grad()
        reject_like(plain(x_in[rows]), y[rows], plain(x_out[rows])).backward()
        optimizer.step()
        if cosine:
            scheduler.step()
    torch.testing.assert_close(weights(ours), weights(plain), rtol=1e-4, atol=1e-5)


def test_adam_is_that_of_torch_bit_for_bit():
    ours, theirs = network(3), network(3)
    pairs = [Adam(ours.parameters(), 0.01, (0.5, 0.9)), torch.optim.Adam(theirs.parameters(), 0.01, (0.5, 0.9), fused=True)]
    for model, optimizer in zip((ours, theirs), pairs, strict=True):
        for step in range(5):
            optimizer.zero_grad()
            part = model if step else model[0]  # at first the other layers have no gradient: they stay
            part(torch.ones(1, 2)).square().sum().backward()
            optimizer.step()
    assert torch.equal(weights(ours), weights(theirs))


def reject_like(logits_in, y, logits_out):
    """Not one of the package's losses: any function of logits will do."""
    return torch.nn.functional.cross_entropy(logits_in, y) + logits_out.square().mean()


def test_other_dimensions_and_the_reject_loss():
    world = TwoGaussians(dim=20)
    models = [network(s, in_dim=20, n_classes=3) for s in range(2)]
    history = train(models, world, reject_loss, ood=functools.partial(world.box, half_width=30.0), steps=300, seed=[0, 1])
    assert history.loss.shape == (300, 2) and (history.loss[-10:].mean(0) < 0.3).all()


def test_cosine_lets_the_steps_fall_to_nothing():
    def last_step(cosine):
        model, seen = network(), []
        train(model, WORLD, LOSS, steps=200, cosine=cosine, callback=lambda *_: seen.append(weights(model)))
        return (seen[-1] - seen[-2]).norm()

    assert last_step(cosine=True) < 0.01 * last_step(cosine=False)


def test_the_callback_sees_every_step_and_can_stop():
    model, seen = network(), []

    def callback(step, loss):
        seen.append((step, float(loss), weights(model)))
        return step == 9

    history = train(model, WORLD, LOSS, steps=100, callback=callback)
    assert [step for step, *_ in seen] == list(range(10)) and len(history.loss) == 10
    assert torch.equal(seen[-1][2], weights(model)) and not torch.equal(seen[-2][2], weights(model))


def test_an_interrupt_leaves_the_last_complete_step():
    interrupted, whole = [network(s) for s in range(2)], [network(s) for s in range(2)]
    calls = 0

    def loss(*logits):
        nonlocal calls
        calls += 1
        if calls == 31:
            raise KeyboardInterrupt
        return LOSS(*logits)

    with pytest.raises(KeyboardInterrupt):
        train(interrupted, WORLD, loss, steps=100)
    train(whole, WORLD, LOSS, steps=30)
    for a, b in zip(interrupted, whole, strict=True):
        assert torch.equal(weights(a), weights(b))
    train(interrupted, WORLD, LOSS, steps=5)  # and they can be trained on


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_a_network_that_diverges_is_named_and_the_others_go_on(poison):
    steps = []

    def loss(logits_in, y, logits_out):
        """From step 20 on, network 1 has a loss that is NaN, or a finite loss with an infinite gradient: a root at 0."""
        losses = LOSS(logits_in, y, logits_out)
        steps.append(losses)
        bad = torch.tensor(torch.nan) if poison == "loss" else (logits_in[1] * 0).sum().sqrt()
        return losses + torch.stack([torch.tensor(0.0), bad, torch.tensor(0.0)]) if len(steps) > 20 else losses

    models, short, whole = ([network(s) for s in range(3)] for _ in range(3))
    seen = []
    with pytest.warns(UserWarning, match="network 1 diverged at step 20"):
        history = train(models, WORLD, loss, steps=40, callback=lambda *_: seen.append([weights(model) for model in models]))
    assert history.diverged == [1]
    assert all(torch.equal(step[1], seen[19][1]) for step in seen[19:]), "its last good weights, from then on"
    assert torch.stack([w for step in seen for w in step]).isfinite().all()
    assert not torch.equal(seen[20][0], seen[19][0])
    train(short, WORLD, LOSS, steps=20)
    train(whole, WORLD, LOSS, steps=40)
    assert torch.equal(weights(models[1]), weights(short[1]))
    for e in (0, 2):
        torch.testing.assert_close(weights(models[e]), weights(whole[e]))


def test_training_leaves_the_processors_small_numbers_alone():
    train(network(), WORLD, LOSS, steps=2)
    assert torch.tensor(1e-40) * 1 > 0


def test_a_single_network_that_diverges_raises_and_keeps_its_last_weights():
    model, reference = network(), network()

    def loss(*logits):
        loss.calls += 1
        return LOSS(*logits) * (torch.nan if loss.calls > 10 else 1)

    loss.calls = 0
    with pytest.raises(ValueError, match=r"loss must be finite.*step 10"):
        train(model, WORLD, loss, steps=20)
    train(reference, WORLD, LOSS, steps=10)
    assert torch.equal(weights(model), weights(reference))


def nan_points(n, *, generator):
    return torch.full((n, 2), torch.nan)


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"models": []}, "at least one network"),
        ({"models": [network(), network(width=8)]}, "same shape"),
        ({"models": [network()] * 2}, "twice"),
        ({"steps": 0}, "steps must be a whole number of at least 1; got 0"),
        ({"steps": True}, "steps must be"),
        ({"batch": 2.5}, "batch must be"),
        ({"batch": True}, "batch must be"),
        ({"seed": True}, "seed must be a whole number of at least 0; got True"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"seed": None}, "seed must be a whole number"),
        ({"seed": -1}, "seed must be a whole number of at least 0; got -1"),
        ({"seed": [2**64]}, r"seed must be less than 2\*\*64"),
        ({"models": network().requires_grad_(False)}, "models must have something to train; all .* frozen"),
        ({"loss": lambda a, y, b: a.detach().sum()}, "loss must be a differentiable function of the logits"),
        ({"penalty": lambda stack, u: stack.weights[0].sum()}, r"penalty must return a tensor of shape \[1\].*got \[\]"),
        ({"penalty": silent_horizon_loss, "penalty_weight": [0.1, 0.2]}, r"penalty_weight must be .* got shape \[2\]"),
        ({"lr": -1.0}, "lr must be a positive number; got -1.0"),
        ({"seed": [1, 2]}, r"one per network \(1\); got 2"),
        ({"loss": lambda *logits: torch.tensor(torch.nan, requires_grad=True)}, "loss must be finite"),
        ({"loss": lambda a, y, b: a.sum(1)}, r"loss must return a tensor of shape \[\]"),
        ({"loss": lambda *logits: 1.0}, "got float"),
        ({"loss": functools.partial(confidence_loss, beta=-1.0)}, "beta must be at least 0"),
        ({"ood": nan_points}, "finite numbers"),
        ({"ood": lambda n, *, generator: torch.zeros(n, 3)}, r"shape \[n, 2\]"),
        ({"ood": lambda n, *, generator: torch.zeros(n - 1, 2)}, "points asked for"),
    ],
)
def test_bad_input_says_what_is_wrong(arguments, says):
    with pytest.raises(ValueError, match=says):
        train(**{"models": network(), "world": WORLD, "loss": LOSS, "steps": 3} | arguments)


def test_training_step_by_step_is_the_same_training_and_leaves_usable_networks():
    whole, stepped = network(), network()
    history = train(whole, WORLD, LOSS, steps=70, seed=3)
    steps = train_steps(stepped, WORLD, LOSS, seed=3)
    taken = [next(steps) for _ in range(70)]
    torch.testing.assert_close(stepped(WORLD.means), whole(WORLD.means))  # between steps the network can be used
    next(steps)
    steps.close()
    torch.testing.assert_close(torch.stack(taken), history.loss)
    assert not torch.equal(stepped[0].weight, whole[0].weight) and stepped[0].weight.is_contiguous()
    with pytest.raises(ValueError, match="steps must be a number"):
        next(train_steps(stepped, WORLD, LOSS, cosine=True))


def test_a_penalty_on_the_weights_is_added_for_each_network_with_its_own_weight():
    """A list gives what one by one would; weight 0 gives what no penalty would; and a penalty is pushed down."""
    weights = torch.tensor([0.0, 0.3])
    how = {"steps": 70, "seed": 0, "penalty": silent_horizon_loss}
    together, alone, plain = ([mlp(width=16, generator=torch.Generator().manual_seed(0)) for _ in weights] for _ in range(3))
    history = train(together, WORLD, LOSS, penalty_weight=weights, **how)
    for e, model in enumerate(alone):
        own = train(model, WORLD, LOSS, penalty_weight=float(weights[e]), **how)
        torch.testing.assert_close(own.loss, history.loss[:, e], rtol=1e-3, atol=1e-4)
    train(plain[0], WORLD, LOSS, steps=70, seed=0)
    for a, b in zip(together[0].parameters(), plain[0].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    u = unit_directions(200, 2, generator=torch.Generator().manual_seed(1))
    assert silent_horizon_loss(together[1], u) < 0.8 * silent_horizon_loss(together[0], u)


def test_silence_everywhere_can_be_trained():
    network = mlp(width=32, depth=3, generator=torch.Generator().manual_seed(0))
    train(network, WORLD, LOSS, steps=1000, lr=2e-3, penalty=silent_horizon_loss, penalty_weight=0.3)
    assert infinity(network).tie_share == 1


# ---- what is trained is what is returned ----


def plain_loop(model, loss, steps, seed=0, lr=1e-3, batch=64):
    """The same training as a reader would write it, of what is not frozen."""
    g = torch.Generator().manual_seed(seed)
    (x_in, y), x_out = WORLD.sample(64 * batch, generator=g), WORLD.boundary(64 * batch, generator=g)
    dtype = next(model.parameters()).dtype
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    for i in range(steps):
        rows = slice(batch * i, batch * (i + 1))
        optimizer.zero_grad()
        loss(model(x_in[rows].to(dtype)), y[rows], model(x_out[rows].to(dtype))).backward()
        optimizer.step()
    return model


def tied():
    model = mlp(width=16, depth=3)
    model[4].weight = model[2].weight
    return model


def twice():
    model = mlp(width=16)
    return nn.Sequential(*model[:4], *model[2:])


@pytest.mark.parametrize(
    "make, says",
    [
        (
            lambda: parametrised(network()),
            "network 0, layer 2 .ParametrizedLinear.: must hold a weight and a bias and nothing else",
        ),
        (lambda: pruned(network()), "network 0, layer 2 .Linear.: has hooks"),
        (tied, "network 0, layer 4 .Linear., weight shares its numbers with network 0, layer 2"),
        (twice, "network 0, layer 4 .Linear., (bias|weight) shares its numbers with network 0, layer 2"),
        (
            lambda: nn.Sequential(nn.Linear(2, 3), nn.Dropout(), nn.Linear(3, 2)),
            "network 0, layer 1 .Dropout.: must not be random",
        ),
        (lambda: network().half(), "network 0, layer 0 .Linear.: its weight is torch.float16"),
    ],
)
def test_a_network_that_would_not_be_the_trained_one_is_refused_and_left_alone(make, says):
    model = make().eval()
    x = torch.ones(3, 2, dtype=next(model.parameters()).dtype)
    before = model(x)
    with pytest.raises(ValueError, match=says):
        train(model, WORLD, LOSS, steps=3)
    with pytest.raises(ValueError, match=says.replace("network 0", "network 1")):
        train([network(width=2), model], WORLD, LOSS, steps=3)
    assert torch.equal(model(x), before)


def parametrised(model):
    nn.utils.parametrizations.weight_norm(model[2])
    return model


def pruned(model):
    prune.l1_unstructured(model[2], "weight", 0.5)
    return model


def freeze(model, e):
    """Of each network something else; of network 0 nothing, of network 3 all."""
    frozen = [[], [model[0]], [model[2].weight, model[4].bias], [model]][e]
    for part in frozen:
        part.requires_grad_(False)
    return model


def test_what_is_frozen_stays_network_by_network():
    start, together, plain = ([freeze(network(e), e) for e in range(4)] for _ in range(3))
    for p in together[1].parameters():
        p.grad = torch.full_like(p, 7.0)
    train(together, WORLD, LOSS, steps=60, seed=[4, 5, 6, 7])
    for e, model in enumerate(together):
        alone = freeze(network(e), e)
        if e < 3:
            plain_loop(plain[e], LOSS, 60, seed=4 + e)
            train(alone, WORLD, LOSS, steps=60, seed=4 + e)
        for mine, own, by_hand, before in zip(*(m.parameters() for m in (model, alone, plain[e], start[e])), strict=True):
            assert mine.requires_grad == before.requires_grad
            assert torch.equal(mine, before) == (not mine.requires_grad)
            torch.testing.assert_close(mine, own, rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(mine, by_hand, rtol=1e-3, atol=1e-4)
            assert mine.grad is None if e != 1 else (mine.grad == 7).all()


def test_a_float64_network_is_trained_in_float64():
    ours, plain = network().double(), network().double()
    history = train(ours, WORLD, LOSS, steps=60, seed=3)
    plain_loop(plain, LOSS, 60, seed=3)
    assert history.loss.dtype == torch.float64 and ours[0].weight.dtype == torch.float64
    torch.testing.assert_close(weights(ours), weights(plain), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "penalty",
    [
        silent_horizon_loss,
        acet_penalty(WORLD.boundary, 1.0, generator=torch.Generator().manual_seed(0)),
        lambda stack, u: (u @ stack.weights[0]).square().mean((1, 2)),
    ],
)
def test_float64_works_with_penalties(penalty):
    models = [network(e).double() for e in range(2)]
    history = train(models, WORLD, LOSS, steps=3, penalty=penalty, penalty_weight=[0.1, 0.2])
    assert history.loss.dtype == torch.float64 and history.loss.isfinite().all()


@pytest.mark.parametrize("penalty", [None, silent_horizon_loss])
def test_activations_that_work_in_place_train_the_same_network(penalty):
    def trained(inplace):
        model = network()
        model[1], model[3] = nn.ReLU(inplace=inplace), nn.ReLU(inplace=inplace)
        history = train(model, WORLD, LOSS, steps=30, penalty=penalty)
        return history.loss, weights(model)

    for plain, in_place in zip(trained(False), trained(True), strict=True):
        torch.testing.assert_close(in_place, plain)


def test_between_steps_a_diverged_network_holds_its_last_good_weights():
    models, calls = [network(e) for e in range(2)], []

    def loss(logits_in, y, logits_out):
        calls.append(1)
        return LOSS(logits_in, y, logits_out) * torch.tensor([1.0, torch.nan if len(calls) > 5 else 1.0])

    steps = train_steps(models, WORLD, loss)
    seen = []
    with pytest.warns(UserWarning, match="network 1 diverged at step 5"):
        for _ in range(12):
            next(steps)
            seen.append(weights(models[1]))
    assert all(torch.equal(w, seen[4]) for w in seen[4:])
    steps.close()
    assert torch.equal(weights(models[1]), seen[4])


@pytest.mark.parametrize("change", ["new numbers", "a hook", "another layer"])
def test_a_callback_that_takes_the_network_away_from_training_is_found(change):
    models = [network(e) for e in range(2)]

    def callback(step, losses):
        if step == 2 and change == "new numbers":
            models[1][2].weight.data = models[1][2].weight.data.clone()
        if step == 2 and change == "a hook":
            models[1][2].register_forward_hook(lambda module, x, y: y + 0.01)
        if step == 2 and change == "another layer":
            models[1][2] = nn.Linear(16, 16)

    with pytest.raises(ValueError, match="network 1 was changed while it was trained"):
        train(models, WORLD, LOSS, steps=5, callback=callback)


def test_an_older_training_that_is_still_open_does_not_take_the_network_away_from_the_next():
    ours, plain = network(), network()
    older = train_steps(ours, WORLD, LOSS)
    reference = train_steps(plain, WORLD, LOSS)
    next(older), next(reference)
    reference.close()
    newer = train_steps(ours, WORLD, LOSS, seed=1)
    next(newer)
    with pytest.raises(ValueError, match="network 0 was changed while it was trained"):
        older.close()
    for _ in range(9):
        next(newer)
    newer.close()
    train(plain, WORLD, LOSS, steps=10, seed=1)
    torch.testing.assert_close(weights(ours), weights(plain))


@pytest.mark.parametrize("seed", [np.int64(3), np.array([3, 3]), torch.tensor([3, 3]), range(3, 5), (3, 4)])
def test_whole_numbers_of_any_kind_are_taken(seed):
    ours, plain = ([network(e) for e in range(2)] for _ in range(2))
    a = train(ours, WORLD, LOSS, steps=np.int64(3), batch=torch.tensor(8), seed=seed)
    b = train(plain, WORLD, LOSS, steps=3, batch=8, seed=[3, 4] if 4 in seed_list(seed) else 3)
    assert torch.equal(a.loss, b.loss) or torch.allclose(a.loss, b.loss)


def seed_list(seed):
    return [int(s) for s in np.atleast_1d(np.asarray(seed))]


def test_small_networks_train_on_one_thread_and_large_ones_on_all():
    before, seen = torch.get_num_threads(), []

    def loss(logits_in, y, logits_out):
        seen.append(torch.get_num_threads())
        return torch.nn.functional.cross_entropy(logits_in, y)

    try:
        torch.set_num_threads(2)
        for width in (8, 500):
            train(mlp(width=width), TwoGaussians(), loss, steps=1, seed=0)
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2]
