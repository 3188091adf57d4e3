"""The joint training of Eq. (1): the terms, what each network is moved by, collapse, pauses; and the measures on known sets."""

import functools
import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.nn.utils import prune

from ood_helpers import gan
from ood_helpers.data import FourGaussians, TwoGaussians
from ood_helpers.losses import confidence_loss, cross_entropy, kl_to_uniform
from ood_helpers.models import mlp
from ood_helpers.training import train

WORLD = TwoGaussians(std=0.1, separation=0.7)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def triple(seed=0, width=16, dim=2, n_classes=2):
    return (
        gan.generator(5, width, out_dim=dim, generator=seeded(seed)),
        gan.discriminator(dim, width, generator=seeded(seed + 100)),
        mlp(dim, width, n_classes, generator=seeded(seed + 200)),
    )


def triples(count, **kwargs):
    return [list(networks) for networks in zip(*(triple(s, **kwargs) for s in range(count)), strict=True)]


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def test_term_c_is_the_papers():
    real, fake = torch.tensor([[0.0], [2.0]]), torch.tensor([[-1.0], [0.0]])
    D_real, D_fake = real.sigmoid(), fake.sigmoid()
    torch.testing.assert_close(gan.term_c(real, fake), D_real.log().mean() + (1 - D_fake).log().mean())
    assert gan.term_c(torch.zeros(3, 7, 1), torch.zeros(3, 5, 1)).tolist() == pytest.approx([-2 * math.log(2)] * 3)
    assert float(gan.term_c(real, fake, "wgan")) == 1.5


def plain_loop(G, D, C, steps, kind, discriminator_steps, freeze, slip, beta_G=2.0, beta_C=0.5, batch=8):
    """Eq. (1) as a reader would write it, for one triple, from the same random numbers."""
    g, chunk = seeded(7), gan._CHUNK * batch
    (x, y), noise = WORLD.sample(chunk, generator=g), torch.randn(chunk, 5, generator=g)
    mix = torch.rand(chunk, 1, generator=g)
    moved = {"D": [*D.parameters()], "G": [*G.parameters()], "C": [*C.parameters()]}
    moved["G"] += moved["C"] if slip else []
    optimizers = {name: torch.optim.Adam(parameters, lr=1e-2, betas=(0.5, 0.999)) for name, parameters in moved.items()}

    def step(name, loss):
        for parameters in moved.values():
            for parameter in parameters:
                parameter.grad = None
        loss.backward()
        optimizers[name].step()

    for i in range(steps):
        for j in range(discriminator_steps):
            k = i * discriminator_steps + j
            rows = slice(batch * k, batch * k + batch)
            real, fake = D(x[rows]), D(G(noise[rows]).detach())
            if kind == "gan":
                loss = binary_cross_entropy_with_logits(real, torch.ones_like(real))
                step("D", loss + binary_cross_entropy_with_logits(fake, torch.zeros_like(fake)))
            else:
                between = (mix[rows] * x[rows] + (1 - mix[rows]) * G(noise[rows]).detach()).requires_grad_()
                slope = torch.autograd.grad(D(between).sum(), between, create_graph=True)[0]
                step("D", fake.mean() - real.mean() + 10 * ((slope.norm(dim=1) - 1) ** 2).mean())
        points = G(noise[rows])
        kept = points.detach()
        logit = D(points)
        fool = binary_cross_entropy_with_logits(logit, torch.ones_like(logit)) if kind == "gan" else -logit.mean()
        step("G", fool + beta_G * kl_to_uniform(C(points)))
        if not freeze:
            step("C", cross_entropy(C(x[rows]), y[rows]) + beta_C * kl_to_uniform(C(kept)))


@pytest.mark.parametrize(
    "kind, discriminator_steps, freeze, slip",
    [("gan", 1, False, False), ("gan", 1, True, False), ("gan", 2, False, True), ("wgan", 3, False, False)],
)
def test_the_game_equals_a_plain_torch_loop(kind, discriminator_steps, freeze, slip):
    ours, plain = triple(), triple()
    settings = {"kind": kind, "discriminator_steps": discriminator_steps, "freeze_classifier": freeze}
    gan.train_gan(
        *ours, WORLD, steps=6, batch=8, lr=1e-2, seed=7, beta_generator=2.0, beta_classifier=0.5,
        generator_trains_classifier=slip, **settings,
    )  # fmt: skip
    plain_loop(*plain, 6, kind, discriminator_steps, freeze, slip)
    for mine, theirs, untrained in zip(ours, plain, triple(), strict=True):
        torch.testing.assert_close(weights(mine), weights(theirs), rtol=1e-3, atol=1e-4)
        moved = (weights(mine) - weights(untrained)).abs().max()
        assert moved == 0 if freeze and mine is ours[2] else moved > 1e-2


def test_the_terms_are_recorded():
    networks, x, noise = triple(), *first_batch()
    G, D, C = triple()
    history = gan.train_gan(*networks, WORLD, steps=3, batch=8, seed=7, lr=1e-6)  # the networks hardly move
    assert {name: term.shape for name, term in history.losses.items()} == dict.fromkeys("abc", (3, 1))
    fake = G(noise)
    expected = {"a": cross_entropy(C(x[0]), x[1]), "b": kl_to_uniform(C(fake)), "c": gan.term_c(D(x[0]), D(fake))}
    for name, value in expected.items():
        torch.testing.assert_close(history.losses[name][0, 0], value, rtol=1e-3, atol=1e-5)
    assert history.collapsed == [] and history.snapshots == {}


def first_batch(batch=8):
    g = seeded(7)
    x, y = WORLD.sample(gan._CHUNK * batch, generator=g)
    return (x[:batch], y[:batch]), torch.randn(gan._CHUNK * batch, 5, generator=g)[:batch]


@pytest.mark.parametrize("kind", ["gan", "wgan"])
@pytest.mark.parametrize("seeds", [7, [7, 8, 7]])
def test_a_list_gets_what_each_would_get_alone(monkeypatch, seeds, kind):
    monkeypatch.setattr(gan, "_CHUNK", 5)
    together, alone = triples(3), [triple(s) for s in range(3)]
    beta = torch.tensor([0.0, 1.0, 4.0])
    settings = {"steps": 13, "batch": 8, "snapshots": [0, 13], "samples": 9, "kind": kind}
    history = gan.train_gan(*together, WORLD, seed=seeds, beta_generator=beta, beta_classifier=2 * beta, **settings)
    assert history.snapshots[13].shape == (3, 9, 2)
    for e in range(3):
        own_seed = seeds if isinstance(seeds, int) else seeds[e]
        own = gan.train_gan(*alone[e], WORLD, seed=own_seed, beta_generator=beta[e], beta_classifier=2 * beta[e], **settings)
        for name in "abc":
            torch.testing.assert_close(history.losses[name][:, e], own.losses[name][:, 0], rtol=1e-3, atol=1e-4)
        for iteration in (0, 13):
            torch.testing.assert_close(history.snapshots[iteration][e], own.snapshots[iteration][0], rtol=1e-3, atol=1e-4)
        for networks, model in zip(together, alone[e], strict=True):
            torch.testing.assert_close(weights(networks[e]), weights(model), rtol=1e-3, atol=1e-4)


def test_a_plain_gan_finds_the_classes_and_beta_drives_it_out():
    networks = triples(2, width=32)
    settings = {"steps": 500, "batch": 64, "lr": 1e-3, "beta_classifier": 0.0}
    gan.train_gan(*networks, WORLD, beta_generator=torch.tensor([0.0, 20.0]), **settings)
    inside = [gan.share_inside(gan.sample(model, 500, generator=seeded(1)), WORLD) for model in networks[0]]
    assert inside[0] > 0.6 and inside[1] < 0.3
    x, y = WORLD.sample(500, generator=seeded(2))
    assert all((model(x).argmax(1) == y).float().mean() > 0.98 for model in networks[2])


def test_a_frozen_classifier_draws_the_generator_to_where_it_is_unsure():
    G, D, C = triple(width=32)
    train(C, WORLD, functools.partial(confidence_loss, beta=1.0), steps=600, lr=3e-3)
    before, trained = gan.sample(G, 200, generator=seeded(1)), weights(C)
    start = kl_to_uniform(C(before + torch.tensor([0.35, 0.0])))
    gan.train_gan(G, D, C, WORLD, steps=200, beta_generator=50.0, freeze_classifier=True, lr=1e-3)
    assert kl_to_uniform(C(gan.sample(G, 200, generator=seeded(1)))) < 0.1 * start
    assert torch.equal(weights(C), trained)


def test_snapshots_come_from_the_same_noise():
    networks, untrained = triple(), triple()
    history = gan.train_gan(*networks, WORLD, steps=5, batch=4, seed=3, snapshots=[0, 2, 5], samples=11)
    assert sorted(history.snapshots) == [0, 2, 5]
    torch.testing.assert_close(history.snapshots[0][0], gan.sample(untrained[0], 11, generator=seeded(3)))
    torch.testing.assert_close(history.snapshots[5][0], gan.sample(networks[0], 11, generator=seeded(3)))
    assert not torch.equal(history.snapshots[2], history.snapshots[5])


def test_the_callback_sees_every_step_and_can_stop():
    networks, seen = triple(), []

    def callback(step, losses):
        seen.append((step, sorted(losses), weights(networks[0])))
        return step == 3

    history = gan.train_gan(*networks, WORLD, steps=50, batch=4, callback=callback, snapshots=[2, 40])
    assert [(step, names) for step, names, _ in seen] == [(i, ["a", "b", "c"]) for i in range(4)]
    assert len(history.losses["a"]) == 4 and list(history.snapshots) == [2]
    assert torch.equal(seen[-1][2], weights(networks[0])) and not torch.equal(seen[-2][2], weights(networks[0]))


def test_the_training_can_pause_and_goes_on_where_it_was():
    paused, whole = triple(), triple()
    run = gan.train_gan_steps(*paused, WORLD, batch=4)
    for _ in range(6):
        next(run)
        assert gan.sample(paused[0], 3, generator=seeded(0)).shape == (3, 2)  # the networks can be used at a pause
        assert torch.tensor(1e-40) * 1 > 0  # and small numbers are left alone
    run.close()
    gan.train_gan(*whole, WORLD, steps=6, batch=4)
    for mine, theirs in zip(paused, whole, strict=True):
        assert torch.equal(weights(mine), weights(theirs))
        assert all(p.is_contiguous() for p in mine.parameters())


def poison(monkeypatch, name, first_call, triple):
    """From its `first_call` on, a term's value for one triple has a gradient that is not finite."""
    term, calls = getattr(gan, name), []

    def poisoned(logits, *others):
        value = term(logits, *others)
        calls.append(value)
        bad = (logits[triple] * 0).sum().sqrt()  # 0, but the root's slope at 0 is infinite
        return value + bad * (torch.arange(len(value)) == triple) if len(calls) >= first_call else value

    monkeypatch.setattr(gan, name, poisoned)


@pytest.mark.parametrize(
    "term, first_call, player",
    [("term_c", 11, "discriminator"), ("kl_to_uniform", 21, "generator"), ("cross_entropy", 11, "classifier")],
)
def test_a_triple_that_collapses_is_named_and_the_others_go_on(monkeypatch, term, first_call, player):
    broken, short, whole = (triples(3) for _ in range(3))
    settings = {"batch": 4, "samples": 5}
    gan.train_gan(*short, WORLD, steps=10, **settings)
    gan.train_gan(*whole, WORLD, steps=15, **settings)
    poison(monkeypatch, term, first_call, triple=1)
    with pytest.warns(UserWarning, match=f"triple 1 collapsed at step 10: the {player}'s loss"):
        history = gan.train_gan(*broken, WORLD, steps=15, snapshots=[11, 15], **settings)
    assert history.collapsed == [1]
    assert torch.equal(history.snapshots[11][1], history.snapshots[15][1]) and history.snapshots[15].isfinite().all()
    assert not torch.equal(history.snapshots[11][0], history.snapshots[15][0])
    for name in "abc":
        finite = history.losses[name].isfinite()
        assert finite[:, [0, 2]].all() and finite[:10, 1].all() and not finite[10:, 1].any()
    own = ["generator", "discriminator", "classifier"].index(player)
    assert torch.equal(weights(broken[own][1]), weights(short[own][1]))
    for mine, unharmed in zip(broken, whole, strict=True):
        for e in (0, 2):
            torch.testing.assert_close(weights(mine[e]), weights(unharmed[e]))


def test_if_every_triple_collapses_it_raises_and_keeps_the_last_good_weights(monkeypatch):
    broken, short = triple(), triple()
    gan.train_gan(*short, WORLD, steps=10, batch=4)
    poison(monkeypatch, "term_c", 11, triple=0)
    with pytest.raises(ValueError, match="every triple has collapsed, the last at step 10, where the discriminator's loss"):
        gan.train_gan(*broken, WORLD, steps=15, batch=4)
    for mine, theirs in zip(broken, short, strict=True):
        assert torch.equal(weights(mine), weights(theirs))
    assert torch.tensor(1e-40) * 1 > 0


def test_four_classes_and_other_dimensions():
    world = FourGaussians(std=0.1, separation=0.7)
    assert gan.train_gan(*triple(n_classes=4), world, steps=2, batch=4, snapshots=[2]).snapshots[2].shape == (1, 500, 2)
    assert gan.train_gan(*triple(dim=7), TwoGaussians(dim=7), steps=2, batch=4, snapshots=[2]).snapshots[2].shape == (1, 500, 7)


TWICE = [triple()[0]] * 2


@pytest.mark.parametrize(
    "arguments, says",
    [
        ({"steps": 0}, "steps must be a whole number of at least 1; got 0"),
        ({"steps": None}, "steps must be"),
        ({"batch": 2.5}, "batch must be"),
        ({"batch": True}, "batch must be"),
        ({"seed": True}, "seed must be a whole number"),
        ({"snapshots": [True]}, "snapshots must be a whole number of at least 0; got True"),
        ({"discriminator_steps": 0}, "discriminator_steps must be"),
        ({"samples": 0}, "samples must be"),
        ({"snapshots": [1, 6]}, r"snapshots must be whole numbers from 0 to steps \(5\); got 6"),
        ({"beta_generator": -1.0}, "beta_generator must be a finite number of at least 0, .*; got -1.0"),
        ({"beta_classifier": math.nan}, "beta_classifier must be a finite number"),
        ({"beta_generator": torch.ones(3)}, "beta_generator must be .* 1 of them"),
        ({"kind": "vae"}, "kind must be .*; got 'vae'"),
        ({"lr": 0.0}, "lr must be a positive number; got 0.0"),
        ({"seed": [1, 2]}, r"seed must be .* one per triple \(1\); got 2"),
        ({"freeze_classifier": True, "generator_trains_classifier": True}, "generator_trains_classifier must be False where"),
        ({"generators": []}, r"generators must be .* at least 1; got 0"),
        ({"discriminators": triples(2)[1]}, r"discriminators must be as many as generators \(1\), at least 1; got 2"),
        ({"generators": TWICE}, "generators must be different networks"),
        ({"generators": triple(dim=3)[0]}, "generators must have 2 outputs, the world's dimension; got 3"),
        ({"discriminators": triple(dim=3)[1]}, "discriminators must have 2 inputs, the world's dimension; got 3"),
        ({"discriminators": mlp()}, "discriminators must have 1 output, the logit of being real; got 2"),
        ({"classifiers": triple(dim=3)[2]}, "classifiers must have 2 inputs, the world's dimension; got 3"),
        ({"classifiers": triple(n_classes=3)[2]}, "classifiers must have 2 outputs, one per class of the world; got 3"),
        ({"classifiers": torch.nn.Linear(2, 2)}, "classifiers: network 0 must be an nn.Sequential"),
    ],
)
def test_bad_input_says_what_is_wrong(arguments, says):
    names = ("generators", "discriminators", "classifiers")
    with pytest.raises(ValueError, match=says):
        gan.train_gan(**{**dict(zip(names, triple(), strict=True)), "world": WORLD, "steps": 5} | arguments)


# ---- what is trained is what is returned ----


@pytest.mark.parametrize("player", range(3))
@pytest.mark.parametrize(
    "spoil, says",
    [
        (lambda m: torch.nn.utils.parametrizations.weight_norm(m[2]), "network 0, layer 2 .* must hold a weight and a bias"),
        (lambda m: prune.l1_unstructured(m[2], "weight", 0.5), "network 0, layer 2 .*has hooks"),
        (lambda m: setattr(m[0].bias, "data", m[2].bias.data), "network 0, layer . .*bias shares its numbers"),
        (lambda m: m.bfloat16(), "network 0, layer 0 .*bfloat16"),
    ],
)
def test_networks_that_would_not_be_the_trained_ones_are_refused(player, spoil, says):
    networks = triple()
    spoil(networks[player])
    places = [p.data_ptr() for network in networks for p in network.parameters()]
    name = ["generators", "discriminators", "classifiers"][player]
    with pytest.raises(ValueError, match=f"{name}: {says}"):
        gan.train_gan(*networks, WORLD, steps=2)
    assert [p.data_ptr() for network in networks for p in network.parameters()] == places


def test_players_that_share_a_layer_are_refused():
    G, D, C = triple(width=16)
    C[2] = mlp(width=16, depth=3)[2]
    D[2] = C[2]
    with pytest.raises(ValueError, match=r"layer 2 .* shares its numbers with (discriminators|classifiers): network 0, layer 2"):
        gan.train_gan(G, D, C, WORLD, steps=2)


@pytest.mark.parametrize("kind", ["gan", "wgan"])
@pytest.mark.parametrize("slip", [False, True])
def test_what_is_frozen_stays_and_the_rest_plays_the_same_game(kind, slip):
    """Frozen: of triple 0 a layer of each player, of triple 1 the whole discriminator and classifier, of triple 2 nothing."""

    def frozen():
        networks = triples(3)
        for models in networks:
            models[0][2].requires_grad_(False)
        networks[1][1].requires_grad_(False)
        networks[2][1].requires_grad_(False)
        return networks

    start, together, alone, plain = frozen(), frozen(), frozen(), frozen()
    settings = {"steps": 6, "batch": 8, "kind": kind, "lr": 1e-2, "seed": 7, "generator_trains_classifier": slip}
    settings |= {"beta_generator": 2.0, "beta_classifier": 0.5}
    gan.train_gan(*together, WORLD, **settings)
    for e in range(3):
        gan.train_gan(*(models[e] for models in alone), WORLD, **settings)
        if e != 1:
            plain_loop(*(models[e] for models in plain), 6, kind, 1, False, slip)
    for mine, own, by_hand, before in zip(together, alone, plain, start, strict=True):
        for e in range(3):
            for p, q, r, s in zip(*(models[e].parameters() for models in (mine, own, by_hand, before)), strict=True):
                assert p.requires_grad == s.requires_grad and p.grad is None
                if p.dim() == 2 or not p.requires_grad:  # of a WGAN's logit the bias cancels
                    assert torch.equal(p, s) == (not p.requires_grad)
                torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)
                if e != 1:
                    torch.testing.assert_close(p, r, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["gan", "wgan"])
def test_a_classifier_that_is_frozen_by_hand_is_frozen(kind):
    by_hand, by_name = triple(), triple()
    by_hand[2].requires_grad_(False)
    settings = {"steps": 5, "batch": 8, "kind": kind}
    found = gan.train_gan(*by_hand, WORLD, **settings)
    expected = gan.train_gan(*by_name, WORLD, freeze_classifier=True, **settings)
    torch.testing.assert_close(found.losses, expected.losses)
    for mine, theirs in zip(by_hand, by_name, strict=True):
        torch.testing.assert_close(weights(mine), weights(theirs))


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match=r"networks must have something to train; all .* frozen"):
        gan.train_gan(*(network.requires_grad_(False) for network in triple()), WORLD, steps=2)


@pytest.mark.parametrize("kind", ["gan", "wgan"])
@pytest.mark.parametrize("doubled", [(0,), (1,), (2,), (0, 1, 2)])
def test_float64_networks_play_the_same_game(kind, doubled):
    double, single = triple(), triple()
    for player in doubled:
        double[player].double()
    settings = {"steps": 3, "batch": 8, "kind": kind, "snapshots": [0, 3], "samples": 7}
    found = gan.train_gan(*double, WORLD, **settings)
    expected = gan.train_gan(*single, WORLD, **settings)
    torch.testing.assert_close(found.snapshots[3].float(), expected.snapshots[3], rtol=1e-3, atol=1e-4)
    for player, (mine, theirs) in enumerate(zip(double, single, strict=True)):
        assert weights(mine).dtype == (torch.float64 if player in doubled else torch.float32)
        torch.testing.assert_close(weights(mine).float(), weights(theirs), rtol=1e-3, atol=1e-4)


def test_in_every_pause_a_collapsed_triple_holds_its_last_good_weights(monkeypatch):
    networks, seen = triples(2), []
    poison(monkeypatch, "kl_to_uniform", 11, triple=1)  # of the generator in step 5
    with pytest.warns(UserWarning, match="triple 1 collapsed at step 5: the generator's loss"):
        gan.train_gan(*networks, WORLD, steps=9, batch=4, callback=lambda *_: seen.append([weights(m[1]) for m in networks]))
    for player in range(3):
        assert all(torch.equal(step[player], seen[5][player]) and step[player].isfinite().all() for step in seen[5:])


def test_a_training_that_never_began_leaves_the_networks_alone():
    networks = triple()
    places = [p.data_ptr() for network in networks for p in network.parameters()]
    gan.train_gan_steps(*networks, WORLD).close()
    assert [p.data_ptr() for network in networks for p in network.parameters()] == places


def arc(start=0.0, end=1.0, radius=3.2, means=WORLD.means, n=720):
    """n points on a circle around each mean, from `start` to `end` of a turn, `radius` standard deviations away."""
    angle = 2 * math.pi * (start + (end - start) * (torch.arange(n) + 0.5) / n)
    ring = WORLD.std * radius * torch.stack([angle.cos(), angle.sin()], 1)
    return (means[:, None] + ring).flatten(0, 1)


ONE = WORLD.means[1:] + torch.tensor([[0.32, 0.01]])
FAR = torch.tensor([[8.0, 0.1], [0.1, 9.0]])


@pytest.mark.parametrize(
    "x, covered, directions, inside, distance",
    [
        pytest.param(arc(), 1.0, 72, 0.0, 0.2, id="a ring around each class"),
        pytest.param(arc(means=WORLD.means[:1]), 0.5, 36, 0.0, 0.2, id="a ring around one class"),
        pytest.param(arc(0.25, 0.75), 0.5, 36, 0.0, 0.2, id="half a ring around each class"),
        pytest.param(ONE, 1 / 72, 1, 0.0, 0.2, id="one point"),
        pytest.param(ONE.repeat(500, 1), 1 / 72, 1, 0.0, 0.2, id="one point, many times"),
        pytest.param(arc(radius=1.0), 0.0, 72, 1.0, -2.0, id="a ring well inside"),
        pytest.param(FAR, 0.0, 2, 0.0, None, id="far away"),
    ],
)
def test_measures_of_known_sets(x, covered, directions, inside, distance):
    assert gan.coverage(x, WORLD) == pytest.approx(covered)
    assert gan.diversity(x, WORLD) == pytest.approx(directions)
    assert gan.share_inside(x, WORLD) == inside
    if distance is not None:
        torch.testing.assert_close(gan.boundary_distance(x, WORLD), torch.full((len(x),), distance), rtol=0, atol=5e-3)


def test_measures_of_the_in_distribution_itself():
    """The distance from a mean is Rayleigh distributed: beyond r standard deviations with probability exp(−r²/2)."""
    x, _ = TwoGaussians().sample(500, generator=seeded(0))
    n, sectors = len(x), 72
    in_shell = math.exp(-(2.5**2) / 2) - math.exp(-(5.0**2) / 2)
    assert gan.coverage(x, TwoGaussians()) == pytest.approx(1 - (1 - in_shell / sectors) ** n, abs=0.08)
    assert gan.share_inside(x, TwoGaussians()) == pytest.approx(1 - math.exp(-4.5), abs=0.01)
    assert 0.9 * sectors < gan.diversity(x, TwoGaussians()) < sectors
    assert gan.boundary_distance(x, TwoGaussians()).median() == pytest.approx(math.sqrt(2 * math.log(2)) - 3, abs=0.1)


def test_the_shells_limits_and_the_number_of_directions_count():
    assert gan.coverage(arc(radius=2.9), WORLD, inner=3.0) == 0 and gan.coverage(arc(radius=2.9), WORLD, inner=2.8) == 1
    assert gan.coverage(arc(radius=3.2), WORLD, outer=3.1) == 0
    assert gan.coverage(ONE, WORLD, n_directions=4) == 1 / 8 and gan.diversity(arc(), WORLD, n_directions=4) == pytest.approx(8)
    assert gan.share_inside(arc(radius=2.0), WORLD, radius=1.9) == 0 and gan.share_inside(arc(radius=2.0), WORLD, radius=2.1) == 1
    assert gan.coverage(ONE[:0], WORLD) == 0


@settings(max_examples=50)
@given(st.sets(st.integers(0, 35), min_size=1), st.integers(1, 4), st.floats(2.6, 3.4))
def test_coverage_and_diversity_count_sectors(sectors, times, radius):
    """Points in the middle of m sectors around the class on the right."""
    angle = (torch.tensor(sorted(sectors)) + 0.5) * 2 * math.pi / 36
    x = (WORLD.means[1] + WORLD.std * radius * torch.stack([angle.cos(), angle.sin()], 1)).repeat(times, 1)
    assert gan.coverage(x, WORLD) == pytest.approx(len(sectors) / 72)
    assert gan.diversity(x, WORLD) == pytest.approx(len(sectors))


@pytest.mark.parametrize(
    "measure, says",
    [
        (lambda: gan.coverage(torch.zeros(3, 3), TwoGaussians(dim=3)), "world must be a plane.*got dimension 3"),
        (lambda: gan.diversity(torch.zeros(3, 3), TwoGaussians(dim=3)), "world must be a plane.*got dimension 3"),
        (lambda: gan.coverage(ONE, WORLD, inner=5.0, outer=5.0), "inner and outer must satisfy"),
        (lambda: gan.coverage(ONE, WORLD, n_directions=0), "n_directions must be a whole number of at least 1; got 0"),
        (lambda: gan.coverage(ONE * math.nan, WORLD), "x must hold finite numbers"),
        (lambda: gan.diversity(ONE[:0], WORLD), "x must hold at least one point"),
        (lambda: gan.share_inside(ONE[:0], WORLD), "x must hold at least one point"),
        (lambda: gan.boundary_distance(torch.zeros(3, 3), WORLD), r"x must be a float tensor of shape \[n, 2\]"),
    ],
)
def test_bad_input_to_measures_says_what_is_wrong(measure, says):
    with pytest.raises(ValueError, match=says):
        measure()
