"""Every stub is told that it is open, every solution passes, and every common wrong answer gets its own diagnosis.

So do other right answers, in whatever container and precision they come, and wrong ones that are not in the sources.
"""

import functools
import re
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from torch import nn

from ood_helpers import checks
from ood_helpers.checks.answers import _TOO_COARSE, OPEN, RIGHT, WRONG

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import make_exercises

SOURCES = sorted(make_exercises.SOURCES.glob("*.md"))
SHEETS = {path: make_exercises.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
EXERCISES = [
    pytest.param(path, setup, exercise, id=f"{path.stem[:2]}-{n}")
    for path, (setup, exercises) in SHEETS.items()
    for n, exercise in enumerate(exercises, 1)
]


def test_every_notebook_has_three_to_five_exercises():
    course = [path.stem for path in sorted(make_exercises.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))]
    assert [path.stem for path in SOURCES] == course
    assert {path.stem: len(exercises) for path, (_, exercises) in SHEETS.items() if not 3 <= len(exercises) <= 5} == {}


@pytest.mark.parametrize("path, setup, exercise", EXERCISES)
def test_a_stub_is_open_and_a_solution_passes(path, setup, exercise):
    open_, right = (make_exercises.judged(setup, code, exercise.check) for code in (exercise.stub, exercise.solution))
    assert (open_.mark, bool(open_)) == (OPEN, False) and "Not answered yet" in repr(open_), open_
    assert (right.mark, bool(right)) == (RIGHT, True), right


@pytest.mark.parametrize("path, setup, exercise", EXERCISES)
def test_wrong_answers_get_their_own_diagnosis_and_the_passage(path, setup, exercise):
    sections = re.findall(r"^## (\d+) ", text_of(make_exercises.NOTEBOOKS / f"{path.stem}.ipynb"), re.MULTILINE)
    said = [make_exercises.judged(setup, code, exercise.check) for code, _ in exercise.wrong]
    for verdict, (_, fragment) in zip(said, exercise.wrong, strict=True):
        assert verdict.mark == WRONG and fragment in verdict.message, verdict
        assert (place := re.search(r"See section (\d+)", verdict.message)) and place[1] in sections, verdict
    assert len({verdict.message for verdict in said}) == len(said) >= 2


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_notebooks_hold_what_their_source_says(path):
    for target, notebook in make_exercises.made(path).items():
        stored = nbformat.read(target, as_version=4)
        assert make_exercises.sources(stored) == make_exercises.sources(notebook), f"run tools/make_exercises.py: {target.name}"


# --- other right answers, and wrong ones that look right ------------------------------------------------------------------------

BIAS_FREE = "    model = copy.deepcopy(model)\n    for layer in model[::2]:\n        torch.nn.init.zeros_(layer.bias)\n"
RIGHT_TOO = {
    "00-1": ["import numpy as np\nconfidence_there = np.array([.979])", "confidence_there = 0.98", "confidence_there = '0.979'"],
    "00-2": [
        "def confidence(logits):\n    return (logits.max(1).values - logits.logsumexp(1)).exp()",
        "def confidence(z):\n    z = z.numpy()\n    return [1 / sum(2.718281828459045 ** (row - max(row))) for row in z]",
    ],
    "00-4": [
        "def open_share(model, u):\n    return (model(1e4 * u)[:, :-1].amax(1) > model(1e4 * u)[:, -1]).float().mean().item()",
        "from ood_helpers import horizon\ndef open_share(model, u):\n    z = horizon.f0(model, u)\n"
        "    return sum(row.argmax() != z.shape[1] - 1 for row in z) / len(u)",
    ],
    "01-3": [
        f"def k_star(model, u):\n{BIAS_FREE}    z = model(u)\n    return z.shape[1] - 1 - z.flip(1).argmax(1)",
        "def k_star(model, u):\n    return copy.deepcopy(model).double()(1e9 * u.double()).argmax(1).tolist()",
        f"def k_star(model, u):\n{BIAS_FREE}    z = model(u)\n    return [int(torch.randint(4, (1,))) if row.eq(0).all()"
        " else int(row.argmax()) for row in z]",
    ],
    "01-4": [
        "def rate(model, u):\n    z = copy.deepcopy(model).double()(1e6 * u.double()) / 1e6\n"
        "    return z.sort(1).values.diff(dim=1)[:, -1]"
    ],
    "01-5": [
        f"def silent(model, u):\n{BIAS_FREE}    return (model[:-1](u) == 0).all(1).int()",
        f"def silent(model, u):\n{BIAS_FREE}    return model[:-2](u).amax(1) <= 0",
    ],
    "02-1": ["price = 2.09", "price = np.float32(2.0905)"],
    "02-2": ["reach = 48", "reach = 47", "reach = torch.tensor([47.44], dtype=torch.bfloat16)"],
    "02-4": [
        "def pull(logits):\n    logits.requires_grad_()\n    kl = -logits.log_softmax(1).mean(1)\n"
        "    return torch.autograd.grad(kl.sum(), logits)[0]"
    ],
    "02-5": [
        "def sure_share(t, gap):\n    t, gap = t.numpy(), gap.numpy()\n    edge, sure = np.log(9), 0.0\n"
        "    for i in range(len(t) - 1):\n        a, b = sorted([gap[i], gap[i + 1]])\n"
        "        part = float(abs(a) > edge) if a == b else (max(b - max(a, edge), 0) + max(min(b, -edge) - a, 0)) / (b - a)\n"
        "        sure += part * (t[i + 1] - t[i])\n    return sure / (t[-1] - t[0])",
    ],
    "03-1": ["p_reject = 0", "p_reject = torch.tensor([[0.0]])"],
    "09-4": ["def s3(logits):\n    p = logits.softmax(1)\n    return p[:, :-1].amax(1) + p[:, -1] / (logits.shape[1] - 1)"],
    "03-4": ["share = 0.044"],
    "04-1": ["c = -1.39", "c = -1.4"],
    "04-2": [
        "def three_losses(D_real, D_fake, C_real, y, C_fake, beta):\n    b = beta * losses.kl_to_uniform(C_fake)\n"
        "    fool = logsigmoid(D_fake).mean()\n"
        f"    return {form}".format(
            "-logsigmoid(D_real).mean() - logsigmoid(-D_fake).mean(), b - fool, cross_entropy(C_real, y) + b"
        )
        for form in ("torch.stack([{}])", "np.array([float(x) for x in ({})])", "(x for x in ({}))", "[x.double() for x in ({})]")
    ],
    "04-4": ["from scipy.stats import entropy\ndef effective(counts):\n    return np.exp(entropy(counts))"],
    "05-1": [
        "verdicts = ['holds', 'holds in part', 'does not hold']",
        "verdicts = np.array(['Holds', 'Holds in part', 'Does not hold'])",
    ],
    "05-2": ["confidence = 0.97"],
    "05-3": ["def radius(dim):\n    return chi2(dim).ppf(0.9889) ** 0.5"],
    "05-4": [
        *(
            "import statistics\ndef interval(values, picks):\n"
            f"    q = statistics.quantiles(values[picks].mean(1), n=40, method='{method}')\n    return q[0], q[-1]"
            for method in ("exclusive", "inclusive")
        ),
        *(
            "def interval(values, picks):\n"
            f"    return np.quantile(values[picks].mean(1), [0.025, 0.975], method='{method}').tolist()"
            for method in (
                "linear",
                "lower",
                "higher",
                "nearest",
                "midpoint",
                "hazen",
                "weibull",
                "median_unbiased",
                "inverted_cdf",
            )
        ),
        "def interval(values, picks):\n    means, cut = sorted(values[picks].mean(1)), round(0.025 * len(picks))\n"
        "    return torch.tensor([means[cut], means[-cut - 1]])",
    ],
    "05-5": [
        "def limits(model, u):\n    side = (u @ model[0].weight.T).sign()\n"
        "    first = torch.where(side == 0, model[0].bias.sigmoid(), (side + 1) / 2)\n"
        "    return model[2:](first).softmax(1).amax(1)",
        "def limits(model, u):\n    return model[2:]((u @ model[0].weight.T).heaviside(model[0].bias.sigmoid()))"
        ".softmax(1).max(1).values.tolist()",
    ],
    "06-1": ["def to_face(x, u):\n    return min((float(v > 0) - p) / v for p, v in zip(x, u) if v != 0)"],
    "06-2": ["from fractions import Fraction\nchance = Fraction(3, 4)", "chance = '0.75'"],
    "06-3": [
        "def log_odds(logits, n):\n    log_p = logits.double().log_softmax(1)\n    top = log_p[:, :n].argmax(1)\n"
        "    others = log_p.clone()\n    others[range(len(log_p)), top] = -torch.inf\n"
        "    return log_p[range(len(log_p)), top] - others.logsumexp(1)",
    ],
    "06-4": [
        "def interval(weight, bias, low, high):\n    up, down = weight.clamp(min=0), weight.clamp(max=0)\n"
        "    return torch.stack([up @ low + down @ high, up @ high + down @ low]) + bias",
        "def interval(weight, bias, low, high):\n    ends = torch.stack([weight * low, weight * high])\n"
        "    return [ends.amin(0).sum(1) + bias, ends.amax(0).sum(1) + bias]",
    ],
    "07-5": ["s = 3 / 20_000", "s = 1.5e-4"],
    "08-1": ["nearest = 42.9"],
    "08-2": [
        "def step_off(feet, line, r):\n    points = []\n    for (x, y), (u, v) in zip(feet.tolist(), line.tolist()):\n"
        "        points += [(x - s * r * v, y + s * r * u) for s in (1, -1)]\n"
        "    return [p for p in reversed(points) if min(math.dist(p, foot) for foot in feet.tolist()) >= 0.999 * r]",
        "def step_off(feet, line, r):\n    feet, line = feet.float(), line.float()\n"
        "    points = torch.cat([feet + s * r * line.flip(1) * torch.tensor([1.0, -1.0]) for s in (1, -1)])\n"
        "    points = points[(torch.cdist(points, feet) >= 0.999 * r).all(1)]\n"
        "    return points[torch.randperm(len(points))].numpy()",
    ],
    "08-3": [
        "from sklearn.neighbors import NearestNeighbors\ndef edge(x, k, share):\n"
        "    far = NearestNeighbors(n_neighbors=k).fit(x.numpy()).kneighbors()[0][:, -1]\n"
        "    return [bool(d > sorted(far)[-round(share * len(x)) - 1]) for d in far]",
        "def edge(x, k, share):\n    far = torch.cdist(x, x).sort(1).values[:, k]\n"
        "    return (far.argsort().argsort() >= len(x) - round(share * len(x))).int()",
    ],
    "09-1": [
        "changed = ['energy']",
        "changed = 'energy'",
        "changed = ('energy',)",
        "import numpy as np\nchanged = np.array(['energy'])",
    ],
    "09-2": [
        "def worst(w, b, x, r):\n    w, b, x = w.float(), b.float(), x.float()\n"
        "    return 1 / (1 + (-(x @ w + b).abs() - r * w.norm()).exp())"
    ],
    "09-3": [  # no looser than asked: the greatest ratio of the densities in the ball itself
        "def bound(x, r, mean, std_in, std_out, n_classes):\n    top = mean / (1 - std_in**2 / std_out**2)\n    way = top - x\n"
        "    at = x + way * (r / way.norm(dim=1, keepdim=True)).clamp(max=1)\n"
        "    log_b = ((at / std_out).square().sum(1) - ((at - mean) / std_in).square().sum(1)) / 2\n"
        "    b = (std_out / std_in) ** 2 * log_b.exp()\n"
        "    return (b + 1 / n_classes) / (b + 1)",
    ],
    "09-5": [  # the area by trapezoids, and the threshold by a quantile
        "from sklearn import metrics\ndef five(a, b):\n    def aupr(pos, neg):\n"
        "        labels = [1] * len(pos) + [0] * len(neg)\n"
        "        precision, recall, _ = metrics.precision_recall_curve(labels, torch.cat([pos, neg]))\n"
        "        return metrics.auc(recall, precision)\n"
        "    fpr = lambda pos, neg: (neg >= pos.quantile(0.05)).double().mean()\n"
        "    return fpr(a, b), fpr(-b, -a), aupr(a, b), aupr(-b, -a), aupr(a, b.repeat(10))",
    ],
    "10-1": [
        "share = 0.989",
        "import math\nshare = -math.expm1(-4.5)",
        "from scipy.stats import chi2\nshare = chi2(2).cdf(9)",
        "share = '0.9889'",
    ],
    "10-2": [
        "def distance(points, x, std):\n    inside = [p for p in points.tolist() if p[2] != -1]\n"
        "    return [min(((a - p) ** 2 + (b - q) ** 2) ** 0.5 for p, q, _ in inside) / std for a, b in x.tolist()]",
        "from sklearn.neighbors import NearestNeighbors\ndef distance(points, x, std):\n"
        "    found = NearestNeighbors(n_neighbors=1).fit(points[points[:, 2] >= 0, :2] / std)\n"
        "    return found.kneighbors(x / std)[0].ravel()",
        "from ood_helpers import worlds\ndef distance(points, x, std):\n    k = points[:, 2].long()\n"
        "    world = worlds.Painted(points[k >= 0, :2].float(), k[k >= 0], points[k < 0, :2].float(), std=std)\n"
        "    return world.mahalanobis(x.float())",
    ],
    "10-3": [
        "def k_star(w1, b1, w2, b2, w3, b3, u):\n    h = (1e9 * u @ w1.T + b1).relu()\n"
        "    return ((h @ w2.T + b2).relu() @ w3.T + b3).argmax(1)",
        "from torch import nn\nfrom ood_helpers import horizon\ndef k_star(w1, b1, w2, b2, w3, b3, u):\n    layers = []\n"
        "    for w, b in ((w1, b1), (w2, b2), (w3, b3)):\n        layers += [nn.Linear(*w.T.shape).double(), nn.ReLU()]\n"
        "        layers[-2].load_state_dict({'weight': w, 'bias': b})\n"
        "    return horizon.f0(nn.Sequential(*layers[:-1]), u).argmax(1).tolist()",
    ],
    "11-1": ["distance = 11.5", "distance = '11.49'", "distance = 2.5 * (math.log(0.99) - math.log(0.01))"],
    "11-2": [
        "def limit(winners, n_classes):\n    return winners.T.float().eq(winners.mode(0).values[:, None]).float().mean(1)",
        "def limit(winners, n_classes):\n    votes = winners[..., None] == torch.arange(n_classes)\n"
        "    return votes.double().mean(0).max(1).values",
        "from collections import Counter\ndef limit(winners, n_classes):\n"
        "    return [Counter(votes).most_common(1)[0][1] / len(votes) for votes in winners.T.tolist()]",
    ],
    "11-3": [
        "def limit(slope, variance):\n    return 1 / (1 + (-abs(slope) * (8 / math.pi / variance) ** 0.5).exp())",
        "def limit(slope, variance):\n    a, m, v = 1e9, slope.double().abs(), variance.double()\n"
        "    return (a * m / (1 + math.pi * a**2 * v / 8).sqrt()).sigmoid()",
    ],
    "03-5": [
        "def accepted(logits_in, logits, keep):\n    s_in, s = (z[:, :-1].logsumexp(1) - z[:, -1] for z in (logits_in, logits))\n"
        "    return [bool(x >= s_in.quantile(1 - keep)) for x in s]",
    ],
}
WRONG_TOO = {
    "00-1": [
        ("confidence_there = torch.tensor([6.0, 2.0, 0.0, -2.0]).softmax(0)", "should be a number"),
        ("confidence_there = True", "should be a number"),
    ],
    "00-2": [
        ("def confidence(logits):\n    return logits.softmax(1).max(1)", "`.values`"),
        ("def confidence(logits):\n    return logits.softmax(1).amax(1, keepdim=True)", "have the shape [7]; it has [7, 1]"),
    ],
    "00-4": [
        ("def open_share(model, u):\n    return 59 / 60", "should be"),
        ("def open_share(model, u):\n    return (model(1e6 * u).argmax(1) == 0).double().mean()", "should be"),
    ],
    "01-5": [
        (f"def silent(model, u):\n{BIAS_FREE}    return (model[:-2](u) < 0).all(1)", "`<=`, not `<`"),
        ("def silent(model, u):\n    return torch.zeros(len(u))", "should be"),
    ],
    "02-1": [("price = 0.22 + 2 * 0.93", "Rounded too early")],
    "02-2": [("reach = 46", "not it"), ("reach = 49", "not it"), ("reach = 48.5", "not it")],
    "02-5": [
        (
            "def sure_share(t, gap):\n    length = checks.confident.exact_share(t, gap) * (t[-1] - t[0])\n"
            "    return length / t[-1]",
            "should be",
        )
    ],
    "03-4": [("share = 0.04", "Rounded too far")],
    "04-2": [
        (
            "def three_losses(D_real, D_fake, C_real, y, C_fake, beta):\n    return cross_entropy(C_real, y)",
            "Three losses are asked",
        )
    ],
    "04-3": [("def covered(away):\n    return 0.5", "should be")],
    "04-4": [
        (
            "from scipy.stats import entropy\ndef effective(counts):\n    p = counts[counts > 0] / 500\n"
            "    return (-p * p.log()).sum().exp()",
            "should be",
        ),
    ],
    "05-5": [
        (f"def limits(model, u):\n    return scores.max_softmax(model({alpha} * u))", "")
        for alpha in ("1e10", "1e20", "1e30", "1e38")
    ],
    "06-3": [
        (
            "def log_odds(logits, n):\n    z = logits.double()\n    top, winner = z[:, :-1].max(1, keepdim=True)\n"
            "    return top[:, 0] - z.scatter(1, winner, -torch.inf).logsumexp(1)",
            "all but the *last* output",
        ),
    ],
    "07-1": [("share = '50 %'", "should be a number")],
    "08-2": [("def step_off(feet, line, r):\n    return feet", "have the shape")],
    "09-5": [
        (
            "def five(a, b):\n    fpr, aupr = scores.fpr_at_95_tpr, scores.aupr\n"
            "    return 1 - fpr(a, b), 1 - fpr(-b, -a), aupr(a, b), aupr(-b, -a), aupr(a, b.repeat(10))",
            "FPR95 counts the mistakes",
        ),
        (
            "def five(a, b):\n    fpr, aupr = scores.fpr_at_95_tpr, scores.aupr\n"
            "    return fpr(a, b), fpr(b, a), aupr(a, b), aupr(-b, -a), aupr(a, b.repeat(10))",
            "FPR95: With OOD positive",
        ),
    ],
    "10-1": [
        ("share = 98.9", "in percent"),
        ("share = 0.9973**2", "two independent coordinates"),
        ("share = 0.98", "not it"),
        ("share = True", "should be a number"),
    ],
    "10-2": [
        (
            "def distance(points, x, std):\n    return torch.cdist(x, points[points[:, 2] > 0, :2]).amin(1) / std",
            "Class 0 is a class",
        ),
        (
            "def distance(points, x, std):\n    return torch.cdist(x, points[points[:, 2] >= 0, :2]).amin(0) / std",
            "have the shape",
        ),
        (
            "def distance(points, x, std):\n    return torch.cdist(x, points[points[:, 2] >= 0, :2], p=1).amin(1) / std",
            "should be",
        ),
        ("def distance(points, x, std):\n    return torch.cdist(x, points[points[:, 2] >= 0]).amin(1) / std", "stopped with"),
    ],
    "10-3": [
        (
            "def k_star(w1, b1, w2, b2, w3, b3, u):\n    return (((u @ w1.T).relu() @ w2.T).relu() @ w3.T).argmin(1)",
            "smallest slope",
        ),
        (
            "def k_star(w1, b1, w2, b2, w3, b3, u):\n    h = (100 * u @ w1.T + b1).relu()\n"
            "    return ((h @ w2.T).abs() @ w3.T).argmax(1)",
            "should be",
        ),
        ("def k_star(w1, b1, w2, b2, w3, b3, u):\n    return ((u @ w1.T).relu() @ w2.T).relu() @ w3.T", "have the shape"),
    ],
    "11-1": [("distance = 11", "not it"), ("distance = math.log(99)", "the gap that is needed"), ("distance = -11.5", "not it")],
    "11-2": [
        ("def limit(winners, n_classes):\n    return torch.ones(winners.shape[1])", "should be"),
        ("def limit(winners, n_classes):\n    return (winners == winners[-1]).double().mean(0)", "should be"),
        ("def limit(winners, n_classes):\n    return winners.double().mean(0)", "should be"),
    ],
    "11-3": [
        (
            "def limit(slope, variance):\n    return (slope.abs() / (math.pi / 8 * variance.square()).sqrt()).sigmoid()",
            "should be",
        ),
        ("def limit(slope, variance):\n    return (slope.abs() / (8 / math.pi * variance).sqrt()).sigmoid()", "should be"),
    ],
    "03-5": [("def accepted(logits_in, logits, keep):\n    return logits[:, -1] < 0", "should be")],
    "09-1": [("changed = {'energie'}", "Take the names"), ("changed = 3", "a set such as")],
    "09-3": [("def bound(x, r, mean, std_in, std_out, n_classes):\n    return torch.ones(len(x))", "should be")],
}


@pytest.mark.parametrize("path, setup, exercise", EXERCISES)
def test_other_right_answers_pass_and_other_wrong_ones_do_not(path, setup, exercise, request):
    name = request.node.callspec.id
    for code in RIGHT_TOO.get(name, []):
        assert make_exercises.judged(setup, code, exercise.check), code
    for code, fragment in WRONG_TOO.get(name, []):
        verdict = make_exercises.judged(setup, code, exercise.check)
        assert verdict.mark == WRONG and fragment in verdict.message, (code, verdict)


# --- containers, precisions, kinds of functions ---------------------------------------------------------------------------------


def solved(setup, exercise):
    """(the public check, the answer of the solution) of an exercise."""
    module, check, name = re.fullmatch(r"checks\.(\w+)\.(\w+)\((\w+)\)", exercise.check).groups()
    names = {}
    exec(f"{setup}\n{exercise.solution}", names)
    return getattr(getattr(checks, module), check), names[name]


def tensor(x):
    return torch.stack(list(map(tensor, x))) if isinstance(x, tuple | list) else torch.as_tensor(x).detach()


def listed(x):
    return tensor(x).tolist()


def of_type(dtype):
    """Each part of a result, of a tuple too, as a tensor of this type."""
    return lambda x: tuple(map(of_type(dtype), x)) if isinstance(x, tuple) else tensor(x).to(dtype)


SAME = {  # the same numbers in something else
    "lists": listed,
    "a tuple": lambda x: tuple(listed(x)) if tensor(x).ndim else (listed(x),),
    "numpy": lambda x: tensor(x).numpy(),
    "longdouble": lambda x: tensor(x).numpy().astype(np.longdouble),
    "objects": lambda x: np.array(listed(x), dtype=object),
    "one tensor": tensor,
    "float64": of_type(torch.float64),
    "float32": of_type(torch.float32),
    "requires grad": lambda x: tensor(x).double().requires_grad_(),
    "sparse": lambda x: tensor(x).reshape(tensor(x).shape or (1,)).to_sparse(),
    "a generator": lambda x: (part for part in (listed(x) if tensor(x).ndim else [listed(x)])),
}
COARSE = {
    "bfloat16": of_type(torch.bfloat16),
    "float16": of_type(torch.float16),
    "numpy's float16": lambda x: tensor(x).numpy().astype(np.float16),
}
OTHER = {  # what holds no real numbers, and what of it is shown
    "meta": (lambda x: tensor(x).to("meta"), "device='meta'"),
    "complex": (lambda x: tensor(x).to(torch.complex64), "j"),
    "text": (lambda x: "four", "'four'"),
    "a function": (lambda x: len, "built-in function len"),
}


@pytest.mark.parametrize("path, setup, exercise", EXERCISES)
def test_numbers_may_come_in_any_container_and_in_any_precision_that_holds_them(path, setup, exercise):
    check, answer = solved(setup, exercise)
    if isinstance(answer, tuple | set):  # of names: tried above
        return

    def judged(change):
        return check((lambda *case: change(answer(*case))) if callable(answer) else change(answer))

    for name, change in SAME.items():
        assert judged(change), (name, judged(change))
    for name, change in COARSE.items():
        verdict = judged(change)
        assert verdict or _TOO_COARSE in verdict.message, (name, verdict)
    for name, (change, fragment) in OTHER.items():
        verdict = judged(change)
        assert verdict.mark == WRONG and fragment in verdict.message, (name, verdict)
    if not callable(answer):
        for kind in (np.float64, np.float32, Fraction, Decimal, str):
            assert check(kind(float(answer))), kind
        for bracketed in ([float(answer)], np.array([[float(answer)]]), torch.tensor([float(answer)])):
            assert check(bracketed), bracketed
        assert check([None]).mark == check((...,)).mark == OPEN


def one_changed(x):
    """The last number greater by 1."""
    x = x.clone().reshape(-1)
    x[-1] += 1
    return x


NEAR_MISSES = {
    "a little more": lambda x: x + 5e-3,
    "a little greater": lambda x: 1.005 * x,
    "one entry": lambda x: one_changed(x).reshape(x.shape),
    "one too few": lambda x: x[:-1] if x.ndim else x + 1,
    "one too many": lambda x: torch.cat([x, x[-1:]]) if x.ndim else x - 1,
}


@pytest.mark.parametrize("path, setup, exercise", [p for p in EXERCISES if p.values[2].stub.startswith("def")])
def test_near_misses_are_no_hits(path, setup, exercise):
    check, answer = solved(setup, exercise)
    for name, change in NEAR_MISSES.items():
        verdict = check(lambda *case, change=change: change(tensor(answer(*case)).double()))
        assert verdict.mark == WRONG, (name, verdict)


@pytest.mark.parametrize("path, setup, exercise", EXERCISES)
def test_an_axis_too_many_is_told_in_words_or_harmless(path, setup, exercise):
    check, answer = solved(setup, exercise)
    if not callable(answer) or exercise.title.startswith("Three players"):
        return
    asked = []
    verdict = check(lambda *case: asked.append(tensor(answer(*case)).shape) or tensor(answer(*case))[..., None])
    if asked[0]:  # several numbers
        shapes = f"should have the shape {list(asked[0])}; it has {[*asked[0], 1]}"
        assert shapes in verdict.message and "The numbers are right" in verdict.message, verdict
    else:
        assert verdict, verdict


class AsModule(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, *case):
        return self.answer(*case)


def buffered(answer):
    """A function that writes every result into the same array, as far as its shape allows."""
    kept = {}

    def again(*case):
        result = tensor(answer(*case)).double()
        return kept.setdefault(result.shape, torch.empty_like(result)).copy_(result)

    return again


KINDS = {
    "partial": lambda answer: functools.partial(lambda answer, *case: answer(*case), answer),
    "a module": AsModule,
    "defaults": lambda answer: lambda *case, verbose=False: answer(*case),
    "a buffer": buffered,
}
FUNCTIONS = [p for p in EXERCISES if p.values[2].stub.startswith("def")]


@pytest.mark.parametrize("path, setup, exercise", FUNCTIONS)
def test_a_function_may_be_anything_that_can_be_called(path, setup, exercise):
    check, answer = solved(setup, exercise)
    for name, kind in KINDS.items():
        assert check(kind(answer)), (name, check(kind(answer)))
    first = []
    constant = check(lambda *case: first.append(tensor(answer(*case))) or first[0])
    assert constant.mark == WRONG, "what is right for the first case only"


@pytest.mark.parametrize("path, setup, exercise", EXERCISES)
def test_what_a_notebook_has_set_does_not_count(path, setup, exercise):
    check, answer = solved(setup, exercise)
    errors = np.geterr()
    try:
        torch.set_default_device("meta")
        torch.set_grad_enabled(False)
        np.seterr(all="raise")
        with torch.inference_mode():
            verdict = check(answer)
    finally:
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
        np.seterr(**errors)
    assert verdict, verdict


def text_of(path):
    return "\n\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")


# --- the tool itself ------------------------------------------------------------------------------------------------------------

GOOD = """
```python setup
x = 1
```

## One

Minutes: 7

How much?

```python stub
y = ...
```

```python check
y == x
```

Hint: More than none.

```python solution
y = 1
```

Why: Because.

```python wrong "too much"
y = 2
```
"""


def test_a_source_is_read_part_by_part():
    setup, (exercise,) = make_exercises.parse(GOOD)
    assert (setup, exercise.title, exercise.question, exercise.stub, exercise.check) == (
        "x = 1",
        "One",
        "How much?",
        "y = ...",
        "y == x",
    )
    assert (exercise.hints, exercise.solution, exercise.why) == (["More than none."], "y = 1", "Because.")
    assert exercise.wrong == [("y = 2", "too much")]
    assert make_exercises.judged(setup, exercise.solution, exercise.check) is True


@pytest.mark.parametrize(
    "part", ["Minutes: 7", "Hint: More than none.", "Why: Because.", "How much?", "```python stub\ny = ...\n```"]
)
def test_a_missing_part_is_named(part):
    with pytest.raises(ValueError, match=r"'One' has no (minutes|hints|why|question|stub)"):
        make_exercises.parse(GOOD.replace(part, ""))


def test_a_sheet_opens_with_its_minutes_and_folds_its_hints():
    opening, setup, question, stub = make_exercises.sheet(*make_exercises.parse(GOOD), "01_x", "X: why?").cells
    assert opening.source.startswith("# Exercises: X: why?") and "about 7 minutes" in opening.source
    assert (setup.source, stub.source) == ("x = 1", "y = ...\n\ny == x")
    assert "*7 minutes.* How much?" in question.source and "<details><summary>Hint</summary>" in question.source


def test_every_notebook_leads_to_its_exercises():
    for path in SOURCES:
        assert f"](exercises/{path.stem}.ipynb)" in text_of(make_exercises.NOTEBOOKS / f"{path.stem}.ipynb")
