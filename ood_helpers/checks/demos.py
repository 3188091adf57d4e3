"""A rehearsal: every demo of a notebook is moved, as a class will move it."""

import gc
import itertools
import statistics
import time

from ood_helpers.widgets import Demo, Live


def demos(seconds=10.0):
    """Move every demo that this kernel holds for at most `seconds` each, and print what came of it.

    Every control goes through all its values, the others staying at their first; a training takes single steps. Afterwards each
    demo is as it was at the start. True if none failed.
    """
    found = [thing for thing in gc.get_objects() if issubclass(type(thing), Demo | Live)]
    results = [_rehearse(demo, seconds) for demo in found]
    for number, (taken, problem) in enumerate(results, 1):
        times = f"{len(taken)} moves, {1000 * statistics.median(taken):.0f} ms each (median)"
        print(f"✗ demo {number}: {problem}" if problem else f"✓ demo {number}: {times}")
    return not any(problem for _, problem in results)


def _rehearse(demo, seconds):
    """Seconds [moves] that each move took, and the first problem in words or ''."""
    if isinstance(demo, Live):
        moves, back = itertools.repeat(demo.step, min(100, demo.stop - demo.first)), demo.reset
    else:
        first = demo.values
        moves, back = _moves(demo, first), lambda: demo.set(**first)
    taken, end = [], time.perf_counter() + seconds
    for move in moves:
        start = time.perf_counter()
        move()
        taken.append(time.perf_counter() - start)
        if demo.error or time.perf_counter() > end:
            break
    problem = f"{type(demo.error).__name__}: {demo.error}" if demo.error else ""
    back()
    return taken, problem


def _moves(demo, first):
    """One call for every value of every control, in turn, so that a short rehearsal touches all of them."""
    values = [
        [(name, option[1] if isinstance(option, tuple) else option) for option in control.options]
        for name, control in demo.controls.items()
    ]
    for row in itertools.zip_longest(*values):
        for move in filter(None, row):
            yield lambda move=move: demo.set(**{**first, move[0]: move[1]})
