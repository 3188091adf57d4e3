"""One training loop for every loss of the course, for one network or for many at once."""

import contextlib
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ood_helpers.adam import Adam
from ood_helpers.arrays import whole
from ood_helpers.data import Sampler, World, check_points
from ood_helpers.losses import Loss
from ood_helpers.models import Stack
from ood_helpers.progress import progress

_CHUNK = 64  # steps whose points are drawn in one call


@dataclass
class History:
    """What a training run leaves behind.

    loss      the training loss before each step: [steps], or [steps, E] for a list of E networks
    diverged  the networks (indices) stopped early because their loss was no longer finite
    """

    loss: Tensor
    diverged: list[int]


def train(
    models: nn.Module | Sequence[nn.Module],
    world: World,
    loss: Loss,
    ood: Sampler | None = None,
    *,
    steps: int = 1500,
    batch: int = 64,
    lr: float = 1e-3,
    cosine: bool = False,
    seed: int | Sequence[int] | Tensor = 0,
    penalty: Callable | None = None,
    penalty_weight: float | Sequence[float] | Tensor = 1.0,
    callback: Callable[[int, Tensor], bool | None] | None = None,
) -> History:
    """Train one network, or a list of E networks of the same shape in one batched run, in place, with Adam.

    models    nn.Sequential (Linear, activation, …, Linear), float32 or float64; `models.check_plain` says what is refused. Frozen
              parameters (requires_grad=False) stay as they are, those of each network by themselves
    world     `world.sample(n, generator=g)` gives in-distribution points and classes
    loss      loss(logits_in, y, logits_out): logits [n, K] -> a number for one network; [E, n, K] -> [E] for a list
    ood       ood(n, generator=g) gives OOD points; the default is `world.boundary`
    steps     of Adam, each on `batch` fresh in-distribution and `batch` fresh OOD points
    lr        the learning rate; with cosine=True it falls to 0 along half a cosine
    seed      of the points: one whole number for all networks, or a list of E, one for each. A network of a list gets what it
              would get alone with the same seed, up to rounding
    penalty   also minimise penalty_weight · penalty(stack, u), [E], a loss of the weights such as those of `horizon`, at `batch`
              fresh random unit directions u [batch, d]; the weight is a number or a tensor [E]
    callback  callback(step, losses) after each step; the networks hold the weights of that step; returning True ends training

    Returns a `History`. ValueError names a bad argument. A network of a list whose loss stops being finite is named in a
    warning and keeps the weights of its last good step, while the others go on; a single network raises. An interrupt leaves
    every network with the weights of its last complete step.
    """
    record, diverged = [], []
    steps = whole("steps", steps, 1)
    training = train_steps(
        models, world, loss, ood, steps=steps, batch=batch, lr=lr, cosine=cosine, seed=seed, penalty=penalty,
        penalty_weight=penalty_weight, diverged=diverged,
    )  # fmt: skip
    with contextlib.closing(training):
        for step, losses in enumerate(progress(training, steps, "training")):
            record.append(losses)
            if callback and callback(step, losses):
                break
    return History(torch.stack(record), sorted(diverged))


def train_steps(
    models: nn.Module | Sequence[nn.Module],
    world: World,
    loss: Loss,
    ood: Sampler | None = None,
    *,
    steps: int | None = None,
    batch: int = 64,
    lr: float = 1e-3,
    cosine: bool = False,
    seed: int | Sequence[int] | Tensor = 0,
    penalty: Callable | None = None,
    penalty_weight: float | Sequence[float] | Tensor = 1.0,
    diverged: list[int] | None = None,
) -> Iterator[Tensor]:
    """`train` one step at a time: a generator of the losses, a number or [E], before each step that has been taken.

    For a picture that follows the training. Between steps the networks can be used as they are; nothing happens until the next
    one is asked for. The arguments are those of `train`, but steps=None goes on for ever (then without cosine), and networks
    that diverge are appended to the list `diverged`. Bad arguments are found when the first step is asked for. Close it (or let
    it end) to give each network its own weights again.
    """
    single = isinstance(models, nn.Module)
    networks = [models] if single else list(models)
    if len({id(model) for model in networks}) < len(networks):
        raise ValueError("models must be different networks; one of them is in the list twice")
    seeds = seeds_for(len(networks), seed, "network")
    steps, batch = steps if steps is None else whole("steps", steps, 1), whole("batch", batch, 1)
    if not 0 < lr < float("inf"):
        raise ValueError(f"lr must be a positive number; got {lr}")
    if cosine and steps is None:
        raise ValueError("steps must be a number where cosine=True: the learning rate reaches 0 in the last step")

    stack, last_good = Stack(networks), {}
    try:
        if not stack.trained():
            raise ValueError("models must have something to train; all of their parameters are frozen (requires_grad=False)")
        batches = _batches(world, ood or world.boundary, batch, seeds)
        extra = _penalty(stack, single, penalty, penalty_weight, batch) if penalty else lambda: 0.0
        yield from _steps(stack, single, batches, loss, extra, steps, lr, cosine, last_good)
    finally:
        if diverged is not None:
            diverged += last_good
        stack.release()


def seeds_for(count: int, seed, each: str) -> list[int]:
    """The seeds, a list of ints, of `count` networks: `seed` is one for all or one for each. ValueError for anything else."""
    seeds = seed.tolist() if hasattr(seed, "tolist") else seed
    try:
        seeds = list(seeds)
    except TypeError:  # a number
        seeds = [seeds] * count
    if len(seeds) != count:
        raise ValueError(f"seed must be one whole number or one per {each} ({count}); got {len(seeds)}")
    seeds = [whole("seed", s, 0) for s in seeds]
    if max(seeds, default=0) >= 2**64:
        raise ValueError(f"seed must be less than 2**64; got {max(seeds)}")
    return seeds


def _steps(stack, single, batches, loss, extra, steps, lr, cosine, last_good):
    optimizer = Adam(stack.trained(), lr)
    size, threads = [] if single else [len(stack.models)], torch.get_num_threads()
    small = sum(weight.numel() for weight in stack.parameters()) < 200_000  # sharing so little work costs more than doing it
    for step in itertools.count() if steps is None else range(steps):
        x_in, y, x_out = next(batches)
        try:
            torch.set_flush_denormal(True)  # saturated softmaxes are full of denormal numbers, which the processor handles slowly
            torch.set_num_threads(1 if small else threads)
            logits_in, logits_out = stack(x_in), stack(x_out)
            losses = loss(logits_in[0], y[0], logits_out[0]) if single else loss(logits_in, y, logits_out)
            if not (isinstance(losses, torch.Tensor) and list(losses.shape) == size):
                got = list(losses.shape) if isinstance(losses, torch.Tensor) else type(losses).__name__
                raise ValueError(f"loss must return a tensor of shape {size}, one number per network; got {got}")
            losses = losses + extra()
            if not losses.requires_grad:
                raise ValueError("loss must be a differentiable function of the logits, outside of torch.no_grad()")
            optimizer.zero_grad()
            losses.sum().backward()
            _stop_diverged(stack, losses.detach().reshape(-1), step, last_good)
            optimizer.step()
            restore(stack.parameters(), last_good)
        finally:
            torch.set_num_threads(threads)
            torch.set_flush_denormal(False)
        if cosine:
            optimizer.lr *= (1 + math.cos(math.pi * (step + 1) / steps)) / (1 + math.cos(math.pi * step / steps))
        yield losses.detach()


def _penalty(stack, single, penalty, weight, batch):
    """A function without arguments that gives weight · penalty at fresh directions, of every network, [E] or a number.

    The directions are the same in every run and for every network, whatever the seeds of the points.
    """
    generator, dim, size = torch.Generator().manual_seed(0), stack.weights[0].shape[1], [len(stack.models)]
    weight = torch.as_tensor(weight, dtype=stack.dtype)
    if list(weight.shape) not in ([], size):
        raise ValueError(f"penalty_weight must be a number or a tensor {size}, one per network; got shape {list(weight.shape)}")

    def extra():
        u = torch.nn.functional.normalize(torch.randn(batch, dim, generator=generator), dim=1).to(stack.dtype)
        each = penalty(stack, u)
        if list(each.shape) != size:
            raise ValueError(f"penalty must return a tensor of shape {size}, one number per network; got {list(each.shape)}")
        return (weight * each)[0] if single else weight * each

    return extra


def _stop_diverged(stack, losses, step, last_good):
    """Keep the weights of a network the first time its loss or gradient is not finite; raise if none is left to train."""
    gradients = sum(parameter.grad.sum((1, 2)) for parameter in stack.parameters() if parameter.grad is not None)
    new = keep_last_good([stack], losses + gradients, last_good)
    if len(last_good) == len(stack.models):
        raise ValueError(
            f"loss must be finite and have a finite gradient; at step {step} it is {losses.tolist()}. "
            "Check the loss for log(0) or 0/0, or take a smaller lr"
        )
    for e in new:
        warnings.warn(f"network {e} diverged at step {step}, loss {losses[e]}; it keeps its last weights", stacklevel=4)


def keep_last_good(stacks, numbers, last_good):
    """Add the weights of networks whose number of [E] is not finite for the first time to the dict `last_good`: their places."""
    new = [e for e in (~torch.isfinite(numbers)).nonzero().flatten().tolist() if e not in last_good]
    for e in new:
        last_good[e] = {parameter: parameter.detach()[e].clone() for stack in stacks for parameter in stack.parameters()}
    return new


def restore(parameters, last_good):
    """Undo what a step that moved these parameters did to the networks in `last_good`."""
    with torch.no_grad():
        for parameter in parameters if last_good else ():
            for e, good in last_good.items():
                parameter[e] = good[parameter]


def _batches(world, ood, batch, seeds):
    """Endless batches (x_in [E, n, d], y [E, n], x_out [E, n, d]); E is 1 when all networks share one seed.

    Each seed has its own generator, and points are drawn for _CHUNK steps at a time: a draw costs far more than a small step.
    """
    shared = len(set(seeds)) == 1
    generators = [torch.Generator().manual_seed(s) for s in (seeds[:1] if shared else seeds)]
    while True:
        draws = [_draw(world, ood, _CHUNK * batch, g) for g in generators]
        for i in range(_CHUNK):
            rows = slice(i * batch, (i + 1) * batch)
            x_in, y, x_out = (torch.stack([draw[part][rows] for draw in draws]) for part in range(3))
            yield x_in, y.expand(len(seeds), -1), x_out


def _draw(world, ood, n, generator):
    x_in, y = world.sample(n, generator=generator)
    x_out = ood(n, generator=generator)
    if len(x_in) != n or len(y) != n or len(x_out) != n:
        raise ValueError(
            f"world and ood must give the {n} points asked for; got {len(x_in)} points, {len(y)} classes and {len(x_out)}"
        )
    dim = x_in.shape[1]
    return check_points(x_in, dim), y, check_points(x_out, dim)
