"""A rehearsal: every demo of a notebook is moved, as a class will move it."""

import gc
import itertools
import statistics
import time

from ood_helpers.widgets import Demo, Live, LivingMap
from ood_helpers.widgets.controls import pairs_of


def demos(seconds: float = 10.0) -> bool:
    """Move every demo that this kernel holds for at most `seconds` each, and print what came of it.

    Every control goes through all its values, the others staying at their first; a training takes single steps. Afterwards each
    demo is as it was at the start. True if none failed.
    """
    found = [thing for thing in gc.get_objects() if issubclass(type(thing), Demo | Live | LivingMap)]
    found = [thing for thing in found if _stands(thing) and (isinstance(thing, Live) or _options(thing))]
    results = [_rehearse(demo, seconds) for demo in found]
    for number, (taken, problem) in enumerate(results, 1):
        times = f"{len(taken)} moves, {1000 * statistics.median(taken):.0f} ms each (median)"
        print(f"✗ demo {number}: {problem}" if problem else f"✓ demo {number}: {times}")
    return not any(problem for _, problem in results)


def _stands(thing):
    """Whether it was made and not closed: one that was refused lives on in its error's traceback."""
    return getattr(getattr(thing, "box", None), "comm", None) is not None


def _rehearse(demo, seconds):
    """Seconds [moves] that each move took, and the first problem in words or ''."""
    if isinstance(demo, Live):
        moves, back = itertools.repeat(demo.step, min(100, demo.stop - demo.first)), demo.reset
    else:
        first = demo.values
        moves, back = _moves(demo, first), lambda: demo.set(**first)
    taken, problem, end = [], "", time.perf_counter() + seconds
    for move in moves:
        start = time.perf_counter()
        move()
        taken.append(time.perf_counter() - start)
        if (problem := _problem(demo)) or time.perf_counter() > end:
            break
    back()
    return taken, problem


def _problem(demo):
    """What has gone wrong at the present position, in words, or ''."""
    if isinstance(demo, LivingMap):
        said = demo.words()
        return said if said.startswith("This setting failed") else ""
    return f"{type(demo.error).__name__}: {demo.error}" if demo.error else ""


def _options(demo):
    """Name -> values of each control."""
    if isinstance(demo, LivingMap):
        return demo.options
    return {name: [value for _, value in pairs_of(name, c.options)] for name, c in demo.controls.items()}


def _moves(demo, first):
    """One call for every value of every control, in turn, so that a short rehearsal touches all of them."""
    values = [[(name, value) for value in options] for name, options in _options(demo).items()]
    for row in itertools.zip_longest(*values):
        for move in filter(None, row):
            yield lambda move=move: demo.set(**{**first, move[0]: move[1]})
