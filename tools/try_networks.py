"""Try every network file of a folder: is it read, and are a line and a slice through it what evaluation says?

    .venv/bin/python tools/try_networks.py FOLDER [processor seconds per network, 60 if left out]

.onnx needs the extra `onnx`; .nnet is the text format of ACAS Xu and Marabou. One line a file: inputs and outputs; whether it is
a chain (matrices) or a graph; pieces of a line between two random points of the unit cube; polytopes of a slice at the first of
them, so small that the line has about 60 pieces in it; the largest error against evaluation in float64, relative to the largest
logit; the most memory that the process held; seconds of processor time for each. A network that is refused is shown with the
sentence that refuses it.
"""

import copy
import itertools
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ood_helpers import polytopes
from ood_helpers.polytopes.graph import Graph

SIDE = 60  # pieces of the line along a side of the slice


def nnet(path):
    """The network of a .nnet file: normalisation of the inputs, then Linear and ReLU, then the scale of the outputs."""
    lines = [line for line in Path(path).read_text().splitlines() if line.strip() and not line.startswith("//")]
    rows = [[float(number) for number in line.rstrip(", \r").split(",") if number.strip()] for line in lines]
    layers, inputs = int(rows[0][0]), int(rows[0][1])
    sizes, means, ranges = [int(size) for size in rows[1]], rows[5], rows[6]
    at, modules = 7, []
    for before, after in itertools.pairwise(sizes[: layers + 1]):
        linear = nn.Linear(before, after, dtype=torch.float64)
        linear.weight.data = torch.tensor(rows[at : at + after], dtype=torch.float64)
        linear.bias.data = torch.tensor([row[0] for row in rows[at + after : at + 2 * after]], dtype=torch.float64)
        modules += [linear, nn.ReLU()]
        at += 2 * after
    return Normalised(nn.Sequential(*modules[:-1]), *(torch.tensor(v, dtype=torch.float64) for v in (means, ranges)), inputs)


class Normalised(nn.Module):
    def __init__(self, network, means, ranges, inputs):
        super().__init__()
        self.network, self.input_shape = network, (inputs,)
        several = len(means) > 2 or inputs == 1
        self.register_buffer("shift", means[:inputs] if several else means[0].expand(inputs))
        self.register_buffer("scale", ranges[:inputs] if several else ranges[0].expand(inputs))
        self.register_buffer("out_shift", means[-1] if several else torch.zeros(()).double())
        self.register_buffer("out_scale", ranges[-1] if several else torch.ones(()).double())

    def forward(self, x):
        return self.network((x - self.shift) / self.scale) * self.out_scale + self.out_shift


def evaluated(model, x, shape):
    with torch.no_grad():
        exact = copy.deepcopy(model).double().eval()
        return np.concatenate([exact(torch.from_numpy(one).reshape(1, *shape)).reshape(1, -1).numpy() for one in x])


def error(got, wanted):
    return float(np.abs(got - wanted).max() / max(1e-30, np.abs(wanted).max()))


def one(path):
    """What is found out about one file, as a dict that can be printed bit by bit: a time limit may cut it off."""
    found = {}

    def tell(**facts):
        found.update(facts, megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        print(json.dumps(found), flush=True)

    try:
        model = nnet(path) if path.endswith(".nnet") else polytopes.onnx(path)
        try:
            network = polytopes.read(model)
        except ValueError as refused:
            if "without_softmax" not in str(refused):
                raise
            model = polytopes.without_softmax(model)
            network = polytopes.read(model)
            tell(note="without its softmax")
    except ValueError as refused:
        return tell(refused=str(refused))
    rng, shape = np.random.default_rng(0), tuple(model.input_shape)
    kinks = len(network.kinks) if isinstance(network, Graph) else len(network.leaks)
    tell(size=f"{network.in_dim} → {network.n_classes}", kind="graph" if isinstance(network, Graph) else "chain", kinks=kinks)
    a, b, c = rng.random((3, network.in_dim))
    start = time.process_time()
    pieces = polytopes.line(network, a, b)
    tell(pieces=len(pieces), line_s=time.process_time() - start)
    some = np.unique(np.linspace(0, len(pieces) - 1, 200).astype(int))
    t = ((pieces.t + np.append(pieces.t[1:], 1)) / 2)[some]
    tell(line_error=error(pieces.logits(t), evaluated(model, a + t[:, None] * (b - a), shape)))
    if network.in_dim == 1:
        return None
    start, axes = time.process_time(), np.stack([b - a, c - a]) * min(1, SIDE / len(pieces))
    try:
        cells = polytopes.plane(network, 0, 1, origin=a, axes=axes)
        cells.slopes  # noqa: B018  the maps, too
    except (ValueError, ArithmeticError) as refused:
        return tell(slice_refused=f"{type(refused).__name__}: {refused}")
    tell(polytopes=len(cells), slice_s=time.process_time() - start)
    some = np.unique(np.linspace(0, len(cells) - 1, 200).astype(int))
    s = cells.centroids[some]
    logits = np.einsum("mkj,mj->mk", cells.slopes[some], s) + cells.offsets[some]
    tell(slice_error=error(logits, evaluated(model, a + s @ axes, shape)))
    return None


def row(path, seconds):
    """The facts of a file as far as they were found in the time."""
    run = subprocess.run([sys.executable, __file__, "--one", str(path), str(seconds)], capture_output=True, text=True)
    facts = json.loads(run.stdout.splitlines()[-1]) if run.stdout.strip() else {}
    if run.returncode:
        problem = run.stderr.strip().splitlines()[-1:] or ["over the time"]
        facts["stopped"] = problem[0] if run.returncode > 0 else "over the time"
    return facts


def shown(facts):
    if "refused" in facts:
        return f"refused: {facts['refused']}"

    def cell(key, form):
        return form.format(facts[key]) if key in facts else "—"

    worst = max((facts[key] for key in ("line_error", "slice_error") if key in facts), default=None)
    remarks = [facts[key] for key in ("note", "slice_refused", "stopped") if key in facts]
    found = (("pieces", "line_s"), ("polytopes", "slice_s"))
    line, cells = (f"{cell(count, '{:,}')} ({cell(taken, '{:.2f} s')})" for count, taken in found)
    what = f"{facts.get('kind', '—')}, {facts.get('kinks', '—')} kinks"
    return " | ".join(
        [
            facts.get("size", "—"),
            what,
            line,
            cells,
            "—" if worst is None else f"{worst:.0e}",
            cell("megabytes", "{:,} MB"),
            *remarks,
        ]
    )


def main(folder, seconds=60.0):
    paths = sorted(path for path in Path(folder).rglob("*") if path.suffix in (".onnx", ".nnet"))
    print("| file | inputs → outputs | what | pieces of a line | polytopes of a slice | error | memory |\n|" + "---|" * 7)
    counts = {"read": 0, "refused": 0, "stopped": 0}
    for path in paths:
        facts = row(path, float(seconds))
        counts["refused" if "refused" in facts else "read" if "line_error" in facts else "stopped"] += 1
        print(f"| {path.relative_to(folder)} | {shown(facts)} |", flush=True)
    print(f"\n{len(paths)} files: " + ", ".join(f"{count} {what}" for what, count in counts.items()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case ["--one", path, seconds]:
            most = int(float(seconds))
            resource.setrlimit(resource.RLIMIT_CPU, (most, most + 1))
            one(path)
        case [folder, *seconds]:
            main(folder, *seconds[:1])
        case _:
            sys.exit(__doc__)
