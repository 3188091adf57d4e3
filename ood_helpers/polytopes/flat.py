"""A graph of steps on a flat of two inputs: what `mesh`, `careful` and `Plane` ask about it.

Its *layers* are its kinks: (step, part). A bend has one part for each place at which it bends. The greatest of several numbers
is found by a knock-out: part 0 compares the numbers in pairs, part 1 the winners, and so on. So each layer is a row of
*neurons*, numbers that are affine between the kinks of earlier layers, and of which only the sign counts.
"""

import math

import numpy as np
import torch

from .graph import BATCH, OUT_OF_RANGE, Graph
from .steps import Affine, Bend

_DRAWS = 3  # random signs with which errors are carried on, in place of squares of weights
_TRUST = 30  # as in `careful`
ROUND = 1e-15  # as in `careful`


def restricted(graph, origin, axes):
    """The same network seen from a flat of its input space: s -> f(origin + axes.T @ s), axes [m, d]."""
    weight, constant = torch.from_numpy(np.array(axes)), graph.tensor(origin)[0]

    def placed(weight):
        return lambda s: (s @ weight).reshape(len(s), 1, *graph.shape)

    step = Affine("the flat", (0,), constant.shape, placed(weight), placed(weight.abs()), constant, sum(weight.shape))
    later = []
    for other in graph.steps[1:]:
        fields = {name: getattr(other, name) for name in other.__dataclass_fields__}
        later.append(type(other)(**fields | {"sources": tuple(source + 1 for source in other.sources)}))
    return Graph([None, step, *later], (len(axes),))


def _parts_of(step):
    """How many layers a kink makes."""
    return len(step.at) if isinstance(step, Bend) else max(1, math.ceil(math.log2(step.index.shape[1])))


def _layers(graph):
    """(step, part) of every layer."""
    return [(i, part) for i in graph.kinks for part in range(_parts_of(graph.steps[i]))]


def widths(graph):
    """How many neurons each layer has."""
    found = []
    for i, part in _layers(graph):
        step, n = graph.steps[i], math.prod(graph.steps[i].shape)
        found.append(n if isinstance(step, Bend) else n * (1 << (_parts_of(step) - 1 - part)))
    return found


def _rounds(step, x):
    """[N, n, matches, 2, numbers a side] of every round, numbers from which the greatest is taken."""
    candidates = step.candidates(step.sign * x)
    rounds = _parts_of(step)
    missing = (1 << rounds) - candidates.shape[2]
    candidates = torch.nn.functional.pad(candidates, (0, missing), value=-math.inf)
    return [candidates.unflatten(2, (1 << (rounds - 1 - part), 2, 1 << part)) for part in range(rounds)]


def _neurons(step, part, x):
    """The neurons [N, width] of a layer, from the value x [N, …] that the step takes."""
    if isinstance(step, Bend):
        return (x - step.at[part]).flatten(1)
    best = _rounds(step, x)[part].amax(-1)
    left, right = best[..., 0], best[..., 1]
    lead = torch.where(torch.isinf(right), torch.ones_like(left), left - right)  # nothing to beat
    return torch.where(torch.isinf(left), torch.zeros_like(left) - (~torch.isinf(right)).double(), lead).flatten(1)


def values(graph, layer, x):
    """The neurons [n, width] of one layer at points x [n, 2], as numpy."""
    i, part = _layers(graph)[layer]
    source = graph.steps[i].sources[0]
    found, chunk = [], max(1, BATCH // graph.widest)
    for k in range(0, len(x), chunk):
        found.append(_neurons(graph.steps[i], part, graph.run(graph.tensor(x[k : k + chunk]), stop=i)[source]))
    return torch.cat(found).numpy()


def activity(graph, x):
    """Which neurons are above 0 at points x [n, 2], all layers side by side: bool [n, neurons]."""
    return np.concatenate([np.zeros((len(x), 0), bool), *(z > 0 for z, _, _ in survey(graph, x)[:-1])], axis=1)


def decisive(graph, on):
    """Which neurons are on, a list of bool [n, width], without those that decide nothing: matches of a number that is beaten
    later, which make no polytopes. They count as off."""
    on, known = list(on), _layers(graph)
    for i in graph.kinks:
        if isinstance(graph.steps[i], Bend):
            continue
        places = [place for place, (at, _) in enumerate(known) if at == i]
        counts = np.ones((1, math.prod(graph.steps[i].shape), 1), bool)
        for place in reversed(places):
            left = on[place].reshape(len(on[place]), counts.shape[1], -1)
            on[place] = (left & counts).reshape(on[place].shape)
            counts = (np.stack([left, ~left], axis=-1) & counts[..., None]).reshape(*left.shape[:2], -1)
    return on


def survey(graph, x, misplaced=None, only=None):
    """Every layer's neurons, and the logits at the end: a list of (z, rounding, uncertainty), each [n, width].

    rounding     what the sums may have lost, as independent errors, estimated with random signs
    uncertainty  the same, and what `misplaced` [n], the error of the points themselves, makes of it
    only         a single layer, where the others are not asked for
    Raises ValueError where any of them exceeds the range of float64.
    """
    chunk = max(1, BATCH // (8 * graph.widest))
    misplaced = np.zeros(len(x)) if misplaced is None else misplaced
    parts = [_surveyed(graph, x[k : k + chunk], misplaced[k : k + chunk], only) for k in range(0, max(1, len(x)), chunk)]
    layers = [tuple(np.concatenate(part) for part in zip(*found, strict=True)) for found in zip(*parts, strict=True)]
    if not all(np.isfinite(part).all() for found in layers for part in found):
        raise ValueError(OUT_OF_RANGE)
    return layers


def _surveyed(graph, x, misplaced, only):
    generator, known = torch.Generator().manual_seed(0), _layers(graph)
    point = graph.tensor(x)
    tangents = torch.eye(2, dtype=torch.float64)[None, :, None].expand(len(x), -1, -1, -1)
    lost = torch.zeros_like(point)
    held, found = {0: (point, tangents, lost)}, []
    stop = len(graph.steps) if only is None else known[only][0] + 1
    away = torch.from_numpy(misplaced)

    def told(z, lost, slopes):
        shaken = away.reshape(-1, *[1] * (z.dim() - 1)) * slopes.abs().sum(1)
        return tuple(part.flatten(1).numpy() for part in (z, lost, torch.hypot(lost, shaken)))

    for i, step in enumerate(graph.steps[1:stop], 1):
        xs = [held[source] for source in step.sources]
        if isinstance(step, Affine):
            held[i] = _affine(step, xs, generator)
        else:
            z, slopes, lost = xs[0]
            for layer in [k for k, (at, _) in enumerate(known) if at == i and only in (None, k)]:
                found.append(_of_layer(step, known[layer][1], z, slopes, lost, away))
            if i < stop - 1 or only is None:
                held[i] = _behind(step, z, slopes, lost, away)
        for source in {s for s in step.sources if graph.last_use[s] == i}:
            del held[source]
    if only is None:
        z, slopes, lost = held[len(graph.steps) - 1]
        found.append(told(z, lost, slopes))
    return found


def _affine(step, xs, generator):
    value = step(*(x for x, _, _ in xs))
    slopes = step.linear(*(slopes.flatten(0, 1) for _, slopes, _ in xs)).unflatten(0, (len(value), 2))
    size = step.sized(*(x.abs() for x, _, _ in xs)) + (0 if step.constant is None else step.constant.abs())
    before = torch.zeros_like(value)
    if any(lost.any() for _, _, lost in xs):
        for _ in range(_DRAWS):
            signs = [torch.randint(2, lost.shape, generator=generator, dtype=torch.float64) * 2 - 1 for _, _, lost in xs]
            before += step.linear(*(sign * lost for sign, (_, _, lost) in zip(signs, xs, strict=True))) ** 2
    plain = step.reach <= 2 and step.constant is None  # nothing is added up
    return value, slopes, (0 if plain else ROUND) * size + torch.sqrt(before / _DRAWS)


def _of_layer(step, part, z, slopes, lost, away):
    """(z, rounding, uncertainty) of one layer at a kink."""
    if isinstance(step, Bend):
        values, errors, ways = _neurons(step, part, z), lost.flatten(1), slopes.flatten(2)
        errors = errors + ROUND * torch.as_tensor(step.at[part], dtype=torch.float64).abs().expand(step.shape).flatten()
    else:
        values = _neurons(step, part, z)
        best = _rounds(step, z)[part].argmax(-1)  # [N, n, matches, 2]
        index = torch.nn.functional.pad(step.index, (0, (1 << _parts_of(step)) - step.index.shape[1]), value=-1)
        places = torch.take_along_dim(index.unflatten(1, (best.shape[2], 2, -1))[None], best[..., None], dim=-1)[..., 0]
        flat = places.clamp(min=0).flatten(1)
        errors = torch.take_along_dim(lost.flatten(1), flat, 1).unflatten(1, (-1, 2)).sum(-1)
        ways = torch.take_along_dim(slopes.flatten(2), flat[:, None], 2).unflatten(2, (-1, 2))
        ways = ways[..., 0] - ways[..., 1]
    unsure = torch.hypot(errors, away[:, None] * ways.abs().sum(1))
    return tuple(part.numpy() for part in (values, errors, unsure))


def _behind(step, z, slopes, lost, away):
    """Value, slopes and rounding behind a kink. Beside a kink the errors count as on its steeper side."""
    if not isinstance(step, Bend):
        values = step.sign * step.candidates(step.sign * z)
        place = torch.take_along_dim(step.index[None], (step.sign * values).argmax(-1, keepdim=True), dim=2)[..., 0]
        lead = z.shape[0]
        return (
            torch.take_along_dim(z.flatten(1), place, 1).reshape(lead, *step.shape),
            torch.take_along_dim(slopes.flatten(2), place[:, None], 2).reshape(lead, 2, *step.shape),
            torch.take_along_dim(lost.flatten(1), place, 1).reshape(lead, *step.shape),
        )
    unsure = _TRUST * torch.hypot(lost, away.reshape(-1, *[1] * (z.dim() - 1)) * slopes.abs().sum(1))
    gains = [torch.as_tensor(gain, dtype=torch.float64) for gain in step.gains]
    gain = gains[0].expand(z.shape)
    steep = gain.abs()
    for at, left, right in zip(step.at, gains, gains[1:], strict=False):
        gain = torch.where(z > at, right, gain)
        steep = torch.where(
            (z - at).abs() <= unsure,
            torch.maximum(left.abs(), right.abs()).expand(z.shape),
            torch.where(z > at, right.abs(), steep),
        )
    return step(z), slopes * gain[:, None], lost * steep


def maps(graph, on):
    """The affine map of every face, (slopes, offset) [F, K, 3], from the neurons of each layer that are on in it, [F, width]."""
    faces = len(on[0]) if on else 1
    start = torch.zeros(1, 3, 1, 2, dtype=torch.float64)
    start[0, :2, 0] = torch.eye(2)
    found, chunk, known = [], max(1, BATCH // (3 * graph.widest)), _layers(graph)
    for k in range(0, faces, chunk):
        size = min(chunk, faces - k)
        held = {0: start.expand(size, -1, -1, -1)}
        for i, step in enumerate(graph.steps[1:], 1):
            xs = [held[source] for source in step.sources]
            if isinstance(step, Affine):
                y = step.linear(*(x.flatten(0, 1) for x in xs)).unflatten(0, (size, 3))
                if step.constant is not None:
                    y[:, 2] += step.constant
            else:
                bits = [torch.from_numpy(on[j][k : k + chunk]) for j, (at, _) in enumerate(known) if at == i]
                y = _selected(step, xs[0], bits)
            held[i] = y
            graph.forget(held, i)
        found.append(held[len(graph.steps) - 1].flatten(2))
    return torch.cat(found).transpose(1, 2).numpy()


def _selected(step, x, bits):
    """Maps behind a kink, [F, 3, …], where bits say which neurons of its layers are on."""
    if isinstance(step, Bend):
        gain, shift = (torch.as_tensor(part, dtype=torch.float64).expand(step.shape) for part in (step.gains[0], step.shifts[0]))
        for on, new_gain, new_shift in zip(bits, step.gains[1:], step.shifts[1:], strict=True):
            on = on.reshape(len(x), *step.shape)
            gain, shift = (
                torch.where(on, torch.as_tensor(new, dtype=torch.float64), old)
                for new, old in ((new_gain, gain), (new_shift, shift))
            )
        y = x * gain[:, None]
        y[:, 2] += shift
        return y
    n = math.prod(step.shape)
    index = torch.nn.functional.pad(step.index, (0, (1 << _parts_of(step)) - step.index.shape[1]), value=-1)
    winners = index[None].expand(len(x), -1, -1)
    for on in bits:
        pairs = winners.unflatten(2, (-1, 2))
        winners = torch.where(on.reshape(len(x), n, -1), pairs[..., 0], pairs[..., 1])
    place = winners[..., 0].clamp(min=0)
    return torch.take_along_dim(x.flatten(2), place[:, None], 2).reshape(len(x), 3, *step.shape)
