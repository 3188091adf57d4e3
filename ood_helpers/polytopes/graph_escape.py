"""The polytope around a point of a graph of steps: the conditions under which its numbers stay on their sides of all kinks."""

import numpy as np
import torch

from .graph import BATCH
from .proofs import EPS
from .steps import Affine, Bend

_ROOM = 1 << 27  # numbers that the conditions may hold: 1 GB
_UNDECIDED = "undecided: x lies on a kink, or too near to one for floats to tell"


def conditions(graph, x):
    """Unit rows [n, d] with rows @ v >= 0 for every v along which x stays on the polytope, and = 0 where `equal` [n].

    Also how far each row can be from the right one [n]. Raises ArithmeticError where rounding leaves the polytope of x open.
    """
    value, error = graph.tensor(x), torch.zeros(1, 1, *graph.shape, dtype=torch.float64)
    slopes = torch.eye(graph.in_dim, dtype=torch.float64).reshape(graph.in_dim, 1, *graph.shape)
    held = {0: (value, error, slopes, torch.zeros_like(value))}
    found = []
    for i, step in enumerate(graph.steps[1:], 1):
        xs = [held[source] for source in step.sources]
        if isinstance(step, Affine):
            held[i] = _affine(step, xs)
        else:
            held[i], asked = (_bent if isinstance(step, Bend) else _chosen)(step, *xs[0])
            found += asked
            if sum(rows.numel() for rows, _, _ in found) > _ROOM:
                raise ArithmeticError("undecided: this network is too large to write down all conditions on its polytope")
        graph.forget(held, i)
    rows, errors, equal = (
        (torch.cat(part).numpy() for part in zip(*found, strict=True)) if found else (np.zeros((0, len(x))), *[np.zeros(0)] * 2)
    )
    with np.errstate(all="ignore"):
        length = np.linalg.norm(rows, axis=1)
        moves = (length > 0) | (errors > 0)
        rows, errors, equal, length = rows[moves], errors[moves], equal[moves].astype(bool), length[moves]
        far = np.where((length > 1e-140) & (length < 1e140), errors / length, np.inf) + 9 * EPS
    return rows / np.where(length > 0, length, 1)[:, None], np.nan_to_num(far, nan=np.inf), equal


def _affine(step, xs):
    value = step(*(x[0] for x in xs))
    room = max(1, BATCH // max(1, value.numel()))
    parts = [step.linear(*(x[2][k : k + room] for x in xs)) for k in range(0, len(xs[0][2]), room)]
    roundings = 1.01 * (step.reach + len(xs[0][2]) + 12) * EPS
    size = step.sized(*(x[0].abs() for x in xs)) + (0 if step.constant is None else step.constant.abs())
    error = step.sized(*(x[1] for x in xs)) + roundings * size + 1e-300 * (size > 0)
    lost = step.sized(*(x[3] + roundings * torch.linalg.vector_norm(x[2], dim=0, keepdim=True) for x in xs))
    return value, error, torch.cat(parts), lost


def _rows(slopes, numbers):
    """The slopes of some numbers, [n, d]."""
    return slopes.flatten(1)[:, numbers].T


def _bent(step, z, error, slopes, lost):
    shape, asked = z.shape, []
    full = [
        [torch.as_tensor(part, dtype=torch.float64).expand(shape) for part in parts]
        for parts in (step.at, step.gains, step.shifts)
    ]
    places, gains, shifts = full
    gain, shift, below, above = gains[0], shifts[0], torch.zeros(shape, dtype=bool), torch.zeros(shape, dtype=bool)
    fixed = (lost == 0) & (slopes == 0).all(0, keepdim=True)  # what does not move stays on its side, whichever it is
    for i, at in enumerate(places):
        bends = (gains[i] != gains[i + 1]) & ~fixed
        if (bends & ~((z - at).abs() > error + 4 * EPS * (z.abs() + at.abs()))).any():
            raise ArithmeticError(_UNDECIDED)
        on = z > at
        gain, shift = torch.where(on, gains[i + 1], gain), torch.where(on, shifts[i + 1], shift)
        below, above = below | (bends & on), above | (bends & ~on)
    for sign, some in ((1.0, below & ~above), (-1.0, above & ~below), (0.0, above & below)):
        numbers = some.flatten().nonzero()[:, 0]
        if len(numbers):
            rows = _rows(slopes, numbers) * (sign or 1.0)
            asked.append((rows, lost.flatten()[numbers], torch.full((len(numbers),), float(sign == 0))))
    scale = gain.abs()
    return (
        gain * z + shift,
        scale * error + 4 * EPS * ((gain * z).abs() + shift.abs()),
        slopes * gain,
        scale * lost + 2 * EPS * scale * torch.linalg.vector_norm(slopes, dim=0, keepdim=True),
    ), asked


def _chosen(step, z, error, slopes, lost):
    values = step.candidates(step.sign * z)[0]
    wrong = step.candidates(error)[0].clamp(min=0)
    best = values.argmax(1, keepdim=True)
    place = torch.take_along_dim(step.index, best, 1)
    lead = torch.take_along_dim(values, best, 1) - values
    unsure = torch.take_along_dim(wrong, best, 1) + wrong + 4 * EPS * (values.abs() + torch.take_along_dim(values, best, 1).abs())
    fixed = ((lost == 0) & (slopes == 0).all(0, keepdim=True)).flatten()
    rivals = (step.index >= 0) & (step.index != place)
    rivals &= ~(fixed[step.index.clamp(min=0)] & fixed[place])
    if (rivals & ~(lead > unsure)).any():
        raise ArithmeticError(_UNDECIDED)
    number, candidate = rivals.nonzero(as_tuple=True)
    winner, other = place[number, 0], step.index[number, candidate]
    rows = step.sign * (_rows(slopes, winner) - _rows(slopes, other))
    errors = lost.flatten()[winner] + lost.flatten()[other] + 2 * EPS * torch.linalg.vector_norm(rows, dim=1)
    taken = [part.flatten(1)[:, place[:, 0]].reshape(-1, *step.shape) for part in (z, error, slopes, lost)]
    return taken, [(rows, errors, torch.zeros(len(rows)))] if len(rows) else []
