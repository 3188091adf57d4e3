"""The joint training of Eq. (1): a generator, a discriminator and a classifier; and measures of what the generator makes.

The three terms of Eq. (1), as the code names them; each E is a mean over points:

    (a)  E_in[−log P(y|x)]                           the classifier is right on the classes
    (b)  E_G[KL(U ‖ P(·|x))]                         the classifier is unsure where the generator is
    (c)  E_in[log D(x)] + E_G[log(1 − D(x))]         the discriminator tells real points from generated ones

The classifier minimises (a) + β (b), the discriminator maximises (c), the generator minimises β (b) + (c).
"""

import contextlib
import functools
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import logsigmoid

from ood_helpers.adam import Adam
from ood_helpers.arrays import whole
from ood_helpers.data import DistanceWorld, Gaussians, World, check_points
from ood_helpers.losses import cross_entropy, kl_to_uniform
from ood_helpers.models import Stack, check_plain, free_layers, mlp
from ood_helpers.progress import progress
from ood_helpers.training import keep_last_good, restore, seeds_for

_CHUNK = 64  # batches whose points and noise are drawn in one call
_PENALTY = 10.0  # weight of the gradient penalty (Gulrajani et al. 2017, Eq. 3)


def generator(
    noise_dim: int = 100,
    width: int = 256,
    depth: int = 3,
    out_dim: int = 2,
    *,
    init: str = "torch",
    generator: Generator | None = None,
) -> nn.Sequential:
    """G of Eq. (1): maps noise [n, noise_dim] to points [n, out_dim]. As in the published code: LeakyReLU(0.2), no batch norm.

    init, generator (of random numbers) as in `models.mlp`
    """
    noise_dim, out_dim = whole("noise_dim", noise_dim, 1), whole("out_dim", out_dim, 1)
    return mlp(noise_dim, width, out_dim, depth, "leaky_relu", slope=0.2, init=init, generator=generator)


def discriminator(
    in_dim: int = 2, width: int = 256, depth: int = 3, *, init: str = "torch", generator: Generator | None = None
) -> nn.Sequential:
    """D of Eq. (1): maps points [n, in_dim] to one logit [n, 1], whose sigmoid is the probability that a point is real.

    init, generator (of random numbers) as in `models.mlp`
    """
    return mlp(in_dim, width, 1, depth, "leaky_relu", slope=0.2, init=init, generator=generator)


@dataclass
class GanHistory:
    """What a joint training leaves behind, for E triples of networks.

    losses     the terms of Eq. (1) in every step: {"a", "b", "c"}, each [steps, E]; NaN from the step in which a triple collapsed
    snapshots  {iteration: points [E, n, d]} that the generators made after so many steps, always from the same noise
    collapsed  the triples (indices) stopped early because a loss was no longer finite
    """

    losses: dict[str, Tensor]
    snapshots: dict[int, Tensor]
    collapsed: list[int]


def train_gan(
    generators: nn.Module | Sequence[nn.Module],
    discriminators: nn.Module | Sequence[nn.Module],
    classifiers: nn.Module | Sequence[nn.Module],
    world: World,
    *,
    steps: int = 1000,
    snapshots: Sequence[int] = (),
    samples: int = 500,
    callback: Callable[[int, dict[str, Tensor]], bool | None] | None = None,
    batch: int = 100,
    beta_generator: float | Sequence[float] | Tensor = 1.0,
    beta_classifier: float | Sequence[float] | Tensor = 1.0,
    kind: str = "gan",
    discriminator_steps: int = 1,
    freeze_classifier: bool = False,
    generator_trains_classifier: bool = False,
    lr: float = 2e-4,
    betas: tuple[float, float] = (0.5, 0.999),
    seed: int | Sequence[int] | Tensor = 0,
) -> GanHistory:
    """Train the three networks of Eq. (1) together, in place: one triple, or lists of E of each in one batched run.

    The networks are nn.Sequential as for `training.train`; what is frozen in them (requires_grad=False) stays as it is.

    steps      iterations (the paper calls them epochs)
    seed       of points and noise: one whole number for all triples, or a list of E. A triple of a list gets what it would get
               alone with the same seed, up to rounding (which such games amplify)
    snapshots  iterations in 0…steps after which `samples` points of every generator are kept
    callback   callback(step, losses) after each step; the networks hold the weights of that step; returning True ends training
    The other settings are those of `train_gan_steps`.

    Returns a `GanHistory`. A triple whose loss stops being finite is named in a warning and keeps its last good weights, which
    make its later snapshots too, while the others go on; if none is left, ValueError. ValueError names a bad argument.
    """
    steps, samples = whole("steps", steps, 1), whole("samples", samples, 1)
    snapshots = [whole("snapshots", iteration, 0) for iteration in snapshots]
    for iteration in snapshots:
        if iteration > steps:
            raise ValueError(f"snapshots must be whole numbers from 0 to steps ({steps}); got {iteration}")
    run = train_gan_steps(
        generators, discriminators, classifiers, world, steps=steps, batch=batch, beta_generator=beta_generator,
        beta_classifier=beta_classifier, kind=kind, discriminator_steps=discriminator_steps, freeze_classifier=freeze_classifier,
        generator_trains_classifier=generator_trains_classifier, lr=lr, betas=betas, seed=seed,
    )  # fmt: skip
    generators = _listed(generators)
    seeds = seeds_for(len(generators), seed, "triple")

    def pictures():
        noise = [torch.Generator().manual_seed(s) for s in seeds]
        return torch.stack([sample(model, samples, generator=g) for model, g in zip(generators, noise, strict=True)])

    taken, record = {0: pictures()} if 0 in snapshots else {}, []
    with contextlib.closing(run):
        for step, losses in enumerate(progress(run, steps, "training")):
            record.append(losses)
            if step + 1 in snapshots:
                taken[step + 1] = pictures()
            if callback and callback(step, losses):
                break
    terms = {name: torch.stack([losses[name] for losses in record]) for name in "abc"}
    return GanHistory(terms, taken, terms["c"][-1].isnan().nonzero().flatten().tolist())


def train_gan_steps(
    generators: nn.Module | Sequence[nn.Module],
    discriminators: nn.Module | Sequence[nn.Module],
    classifiers: nn.Module | Sequence[nn.Module],
    world: World,
    *,
    steps: int | None = None,
    batch: int = 100,
    beta_generator: float | Sequence[float] | Tensor = 1.0,
    beta_classifier: float | Sequence[float] | Tensor = 1.0,
    kind: str = "gan",
    discriminator_steps: int = 1,
    freeze_classifier: bool = False,
    generator_trains_classifier: bool = False,
    lr: float = 2e-4,
    betas: tuple[float, float] = (0.5, 0.999),
    seed: int | Sequence[int] | Tensor = 0,
) -> Iterator[dict[str, Tensor]]:
    """`train_gan` as a Python generator that pauses after every step, for a page that shows the training while it runs.

    Yields the terms of Eq. (1), {"a", "b", "c"}, each [E]. At a pause the networks hold the weights of that step, and they can
    be used; `.close()` ends the training early. The terms are computed before the networks that they move are moved.

    steps      iterations; None: until it is closed
    batch      real and as many generated points for each network in each step
    beta_generator, beta_classifier   the weights β of term (b), at least 0: a number, or a tensor [E], one per triple. With
               beta_generator=0 the generator knows of no classifier: the plain GAN or WGAN. The published code has 1 and 0.5,
               but of a cross-entropy against [1, 1] that is 2 (KL + log 2), the second in a mean over real and generated points
               together: here that is 2 and 1
    kind       "gan": in place of (c) the generator minimises −log D, which has the same aim and gradients that do not vanish
               (Goodfellow et al. 2014, §3); the published code does so too. "wgan": (c) is E_in[D(x)] − E_G[D(x)], and the
               discriminator also minimises _PENALTY · E[(‖∇D‖ − 1)²] between generated and real points (Gulrajani et al. 2017)
    discriminator_steps   steps of the discriminator for each one of the others; with "wgan" 5 is usual
    freeze_classifier     leave the classifiers as they are: with pre-trained ones, as in Lee et al. 2018
    generator_trains_classifier   let the generator's step move the classifier too, down β (b): what the published code does,
               by a slip (`trainalble`)
    lr, betas  of Adam, for all three
    """
    steps, batch = steps if steps is None else whole("steps", steps, 1), whole("batch", batch, 1)
    discriminator_steps = whole("discriminator_steps", discriminator_steps, 1)
    if kind not in ("gan", "wgan"):
        raise ValueError(f'kind must be "gan" or "wgan"; got {kind!r}')
    if freeze_classifier and generator_trains_classifier:
        raise ValueError("generator_trains_classifier must be False where freeze_classifier is True; got True for both")
    if not 0 < lr < math.inf:
        raise ValueError(f"lr must be a positive number; got {lr}")
    count = len(_listed(generators))
    beta_generator = _beta("beta_generator", beta_generator, count)
    beta_classifier = _beta("beta_classifier", beta_classifier, count)
    seeds = seeds_for(count, seed, "triple")
    players = _players(world, generators, discriminators, classifiers)
    draws = _draws(world, free_layers(players["generators"][0])[0].weight.shape[1], batch, seeds)
    make_game = functools.partial(_Game, lr=lr, betas=betas, generator_trains_classifier=generator_trains_classifier)
    return _play(players, make_game, draws, steps, kind, discriminator_steps, beta_generator, beta_classifier, freeze_classifier)


def _play(players, make_game, draws, steps, kind, discriminator_steps, beta_generator, beta_classifier, freeze_classifier):
    """The training itself: per step the discriminator, the generator and the classifier move once, in this order."""
    with contextlib.ExitStack() as at_the_end:
        stacks = []
        for name, models in players.items():
            try:
                stacks.append(Stack(models))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            at_the_end.callback(stacks[-1].release)
        (G, D, C), game = stacks, make_game(*stacks)
        at_the_end.callback(torch.set_flush_denormal, False)
        for step in itertools.count() if steps is None else range(steps):
            torch.set_flush_denormal(True)  # saturated outputs are full of denormal numbers, which the processor handles slowly
            for batch in itertools.islice(draws, discriminator_steps):
                x, y, noise, mix = batch
                fake = G(noise)
                c = term_c(*_both(D, x, fake.detach()), kind)
                penalty = _PENALTY * _gradient_penalty(D, x, fake.detach(), mix) if kind == "wgan" else 0.0
                game.minimise("discriminator", penalty - c, step)  # maximises (c)

            b = kl_to_uniform(C(fake))
            game.minimise("generator", beta_generator * b + _fool(D(fake), kind), step)  # β (b) + (c)

            logits_in, logits_fake = _both(C, x, fake.detach())
            a, b = cross_entropy(logits_in, y), kl_to_uniform(logits_fake)
            if not freeze_classifier:
                game.minimise("classifier", a + beta_classifier * b, step)  # (a) + β (b)
            torch.set_flush_denormal(False)
            yield {name: term.detach() + game.nan_if_collapsed() for name, term in [("a", a), ("b", b), ("c", c)]}


def _both(stack, x, fake):
    """The logits of both sets of points, [E, n, K] each: one pass over 2n rows costs much less than two over n."""
    return stack(torch.cat([x, fake], -2)).split(x.shape[-2], -2)


def term_c(real: Tensor, fake: Tensor, kind: str = "gan") -> Tensor:
    """Eq. (1), term (c), from the discriminator's logits [..., n, 1] on real and on generated points. Shape [...].

    "gan": E_in[log D(x)] + E_G[log(1 − D(x))], D the sigmoid of a logit, at most 0 · "wgan": E_in[D(x)] − E_G[D(x)], D a logit
    """
    if kind == "wgan":
        return real.mean((-2, -1)) - fake.mean((-2, -1))
    return logsigmoid(real).mean((-2, -1)) + logsigmoid(-fake).mean((-2, -1))


def _fool(fake, kind):
    """What the generator minimises in place of (c): −E_G[log D(x)], or −E_G[D(x)] for "wgan"."""
    return -(fake if kind == "wgan" else logsigmoid(fake)).mean((-2, -1))


def _gradient_penalty(D, real, fake, mix):
    """E[(‖∇D‖ − 1)²] at points on the lines between real and generated ones [E, n, d], mix [E, n, 1] in [0, 1]. Shape [E]."""
    between = (mix * real + (1 - mix) * fake).requires_grad_()
    (gradient,) = torch.autograd.grad(D(between).sum(), between, create_graph=True)
    return (gradient.norm(dim=-1) - 1).square().mean(-1)


class _Game:
    """The three stacks, an Adam for each player, and the triples that have collapsed."""

    def __init__(self, G, D, C, lr, betas, generator_trains_classifier):
        self.stacks = self.G, self.D, self.C = G, D, C
        players = {"discriminator": [D], "generator": [G, C] if generator_trains_classifier else [G], "classifier": [C]}
        self.moved = {player: [p for stack in stacks for p in stack.trained()] for player, stacks in players.items()}
        self.optimizers = {
            player: Adam(parameters, lr, betas)
            for player, parameters in self.moved.items()
            if parameters  # else the player is frozen
        }
        self.last_good = {}

    def minimise(self, player, losses, step):
        """One step of a player down its losses [E]; triples with a loss or gradient that is not finite stay as they are."""
        parameters = self.moved[player]
        if parameters:
            self.optimizers[player].zero_grad()
            losses.sum().backward(inputs=parameters)
        gradients = sum(parameter.grad.sum((1, 2)) for parameter in parameters)
        self._stop_collapsed(player, losses.detach() + gradients, step)
        if parameters:
            self.optimizers[player].step()
        restore(parameters, self.last_good)

    def nan_if_collapsed(self):
        """[E]: NaN for the triples that have collapsed, 0 for the others."""
        return torch.tensor([math.nan if e in self.last_good else 0.0 for e in range(len(self.G.models))])

    def _stop_collapsed(self, player, numbers, step):
        """Keep the weights of a triple the first time that its number of [E] is not finite; raise if none is left to train."""
        new = keep_last_good(self.stacks, numbers, self.last_good)
        if len(self.last_good) == len(self.G.models):
            raise ValueError(
                f"every triple has collapsed, the last at step {step}, where the {player}'s loss or its gradient is not finite. "
                "Take a smaller lr, or look at the scale of the world's points"
            )
        for e in new:
            warnings.warn(
                f"triple {e} collapsed at step {step}: the {player}'s loss or its gradient is not finite; "
                "it keeps its last good weights",
                stacklevel=5,
            )


def _draws(world, noise_dim, batch, seeds):
    """Endless batches, each network from its own seed: x [E, n, d], y [E, n], noise [E, n, noise_dim], mix [E, n, 1] in [0, 1].

    Points are drawn for _CHUNK batches at a time: a draw costs more than much of a step.
    """
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    while True:
        draws = []
        for g in generators:
            x, y = world.sample(_CHUNK * batch, generator=g)
            noise = torch.randn(_CHUNK * batch, noise_dim, generator=g)
            draws.append((check_points(x, world.dim), y, noise, torch.rand(_CHUNK * batch, 1, generator=g)))
        for i in range(_CHUNK):
            rows = slice(i * batch, (i + 1) * batch)
            yield tuple(torch.stack([part[rows] for part in parts]) for parts in zip(*draws, strict=True))


def sample(model: nn.Module, n: int, *, generator: Generator) -> Tensor:
    """n points [n, d] that one generator network makes from standard normal noise.

    functools.partial(sample, model) can be the `ood` of `training.train`.
    """
    weight = next(model.parameters())
    noise = torch.randn(n, model[0].in_features, generator=generator).to(weight.dtype)
    with torch.no_grad():
        return model(noise)


def _players(world, generators, discriminators, classifiers):
    """The three lists by name, after checking that they fit each other and the world."""
    players = {"generators": _listed(generators), "discriminators": _listed(discriminators), "classifiers": _listed(classifiers)}
    count = len(players["generators"])
    for name, models in players.items():
        if not models or len(models) != count:
            raise ValueError(f"{name} must be as many as generators ({count}), at least 1; got {len(models)}")
        if len({id(model) for model in models}) < len(models):
            raise ValueError(f"{name} must be different networks; one of them is in the list twice")
    check_plain({f"{name}: network {e}": model for name, models in players.items() for e, model in enumerate(models)})
    G, D, C = (free_layers(models[0]) for models in players.values())
    for name, what, got, expected in [
        ("generators", "outputs, the world's dimension", len(G[-1].weight), world.dim),
        ("discriminators", "inputs, the world's dimension", D[0].weight.shape[1], world.dim),
        ("discriminators", "output, the logit of being real", len(D[-1].weight), 1),
        ("classifiers", "inputs, the world's dimension", C[0].weight.shape[1], world.dim),
        ("classifiers", "outputs, one per class of the world", len(C[-1].weight), len(world.means)),
    ]:
        if got != expected:
            raise ValueError(f"{name} must have {expected} {what}; got {got}")
    if not any(parameter.requires_grad for models in players.values() for model in models for parameter in model.parameters()):
        raise ValueError("networks must have something to train; all of their parameters are frozen (requires_grad=False)")
    return players


def _listed(models) -> list[nn.Module]:
    return [models] if isinstance(models, nn.Module) else list(models)


def _beta(name, value, count):
    beta = torch.as_tensor(value, dtype=torch.float32)
    if beta.shape not in [(), (count,)] or not (torch.isfinite(beta) & (beta >= 0)).all():
        raise ValueError(f"{name} must be a finite number of at least 0, or {count} of them, one per triple; got {value}")
    return beta


def coverage(x: Tensor, world: Gaussians, *, n_directions: int = 36, inner: float = 2.5, outer: float = 5.0) -> float:
    """The share, in [0, 1], of the boundary that points x [n, 2] cover: 1 is all around every class.

    Around each class mean the plane is cut into `n_directions` equal sectors; a sector is covered if at least one point lies in
    it, `inner` to `outer` standard deviations from the mean. A point counts for the nearest mean only. The world must be a plane.
    For comparison: 500 points of the in-distribution itself cover about 0.26, by those few that lie far out.
    """
    if not 0 <= inner < outer:
        raise ValueError(f"inner and outer must satisfy 0 <= inner < outer, in standard deviations; got {inner} and {outer}")
    radius, sector = world.mahalanobis(x), _sectors(x, world, n_directions)
    near = (radius >= inner) & (radius <= outer)
    return len(sector[near].unique()) / (n_directions * len(world.means))


def boundary_distance(x: Tensor, world: DistanceWorld, *, radius: float = 3.0) -> Tensor:
    """How far points x [n, d] lie from the boundary, in standard deviations: [n], negative inside. |·| is the distance itself.

    The boundary is `radius` standard deviations from the nearest mean: beyond 3 is what the paper calls OOD (§5).
    """
    return world.mahalanobis(x) - radius


def share_inside(x: Tensor, world: DistanceWorld, *, radius: float = 3.0) -> float:
    """The share of points x [n, d], in [0, 1], that lie within `radius` standard deviations of a mean: not OOD at all."""
    _check_some(x)
    return float((world.mahalanobis(x) <= radius).float().mean())


def diversity(x: Tensor, world: Gaussians, *, n_directions: int = 36) -> float:
    """The effective number of directions of points x [n, 2], 1 to K · n_directions: exp of the entropy of the sectors' shares.

    Sectors as in `coverage`, at any radius. It is m if the points are spread evenly over m sectors: Hill's number of order 1
    (Hill 1973), the perplexity. The world must be a plane.
    """
    _check_some(x)
    counts = _sectors(x, world, n_directions).bincount().double()
    p = counts[counts > 0] / len(x)
    return float((-(p * p.log()).sum()).exp())


def _sectors(x, world, n_directions):
    """Which of the K · n_directions sectors around the class means each point of x [n, 2] lies in: int64 [n]."""
    n_directions = whole("n_directions", n_directions, 1)
    if world.dim != 2:
        raise ValueError(f"world must be a plane, of dimension 2, to be cut into sectors; got dimension {world.dim}")
    offset = check_points(x, 2)[:, None] - world.means.to(x.dtype)
    nearest = offset.norm(dim=2).argmin(1)
    away = offset[torch.arange(len(x)), nearest]
    turn = torch.atan2(away[:, 1], away[:, 0]) / (2 * math.pi) % 1
    return nearest * n_directions + (turn * n_directions).long().clamp(max=n_directions - 1)


def _check_some(x):
    if len(x) == 0:
        raise ValueError("x must hold at least one point; got none")
