"""Each step of the painter of the living map is watched: broken, it draws another picture than the network's answer.

A mutation is a piece of living_map.js and what stands there instead. Each mutant draws the same few networks as Python does.
"""

from itertools import pairwise

import numpy as np
import pytest
from test_living_map_page import SOURCE

from ood_helpers import polytopes

pytestmark = pytest.mark.browser
SIDE, HALF = 48, 3.0
SCRIPT = """(networks) => {
    window.drawn = (source) => {
        const map = new Function(source.replace("export default", "return"))();
        return networks.map(({sizes, leaks, numbers}) => {
            const network = map.unpack(sizes, leaks, Float64Array.from(numbers)), square = {x: 0.1, y: -0.2, half: HALF};
            const [plain, less] = [network, map.differences(network)].map((n) => map.fields(n, square, SIDE, SIDE));
            const u = Array.from({length: 24}, (_, i) => [Math.cos(i / 3.8), Math.sin(i / 3.8)]);
            return {
                numbers: [...plain.logits, ...less.logits, ...map.forward(network, [0.3, 0.7])],
                codes: [[...plain.pattern], [...less.pattern]],
                far: JSON.stringify(u.map((v) => map.farAway(network, v))),
            };
        });
    };
    const alike = (a, b) => { // the same pixels share a code
        const pairs = new Set(a.map((code, i) => `${code} ${b[i]}`));
        return pairs.size === new Set(a).size && pairs.size === new Set(b).size;
    };
    window.same = (made, right) => made.every(({numbers, codes, far}, n) =>
        far === right[n].far && codes.every((own, i) => alike(own, right[n].codes[i])) &&
        numbers.every((v, i) => Math.abs(v - right[n].numbers[i]) <= 1e-9));
}""".replace("SIDE", str(SIDE)).replace("HALF", str(HALF))

MUTATIONS = {
    # the network
    "layers in another order": ("columns[i * m + j] = weight[j * n + i]", "columns[i * m + j] = weight[i * m + j]"),
    "no leak at a point": ("bend(sum) : sum < 0 ? sum * leak : sum;", "bend(sum) : sum < 0 ? 0 : sum;"),
    "differences to the first": ("v - values[(m - 1) * size + (i % size)]", "v - values[i % size]"),
    # the first layer along a row
    "slope of the wrong input": ("this.slope[0][j] = weight[2 * j] * dx;", "this.slope[0][j] = weight[2 * j + 1] * dx;"),
    "offset without y": ("weight[2 * j] * x0 + weight[2 * j + 1] * y + bias[j]", "weight[2 * j] * x0 + bias[j]"),
    "offset without bias": ("weight[2 * j + 1] * y + bias[j];", "weight[2 * j + 1] * y;"),
    "half a pixel off": ("rows.row(x - half + step / 2, step", "rows.row(x - half, step"),
    "rows upside down": ("y + (height / 2 - r - 0.5) * step", "y - (height / 2 - r - 0.5) * step"),
    # the second layer at a row's left end
    "a left end without y": ("offset[1][k] = up[k] * y + at0[k];", "offset[1][k] = at0[k];"),
    "a left end without slope": ("slope[1][k] = along[k];", "slope[1][k] = 0;"),
    "a left end without bias": ("at0: Float64Array.from(rest)", "at0: new Float64Array(m)"),
    "a left end without the first layer's bias": ("c = more * (weight[2 * j] * x0 + bias[j])", "c = more * weight[2 * j] * x0"),
    "a left end of the first row": ("if (more === 0) continue;", "if (gain[j] !== 0) continue;"),
    "a left end that forgets": ("      gain[j] += more;\n", ""),
    "a left end without leaks": ("(offset[0][j] > 0 ? 1 : leak) - gain[j]", "(offset[0][j] > 0 ? 1 : 0) - gain[j]"),
    # pieces
    "a next layer without bias": ("this.offset[l + 1].set(bias);", "this.offset[l + 1].fill(0);"),
    "slopes of the piece before": ("this.slope[l + 1].fill(0);", ""),
    "active neurons only": ("gains[count++] = active ? 1 : leak;", "gains[count++] = active ? 1 : 0;"),
    "kinks that are not met": ("      if (active !== later) ", "      if (false) "),
    "no steps back to the first pixel": ("while (t > from + 1 && (a * (t - 1) + c > 0) === later) t--;", "t = to - 1;"),
    "one kink a pixel": ("for (let j = first[t]; j >= 0; j = next[j]) {", "for (let j = first[t]; j >= 0; j = -1) {"),
    "one last kink a pixel": ("for (let j = first[end]; j >= 0; j = next[j])", "for (let j = first[end]; j >= 0; j = -1)"),
    "a kink the wrong way": ("on[j] ? leak - 1 : 1 - leak", "on[j] ? 1 - leak : leak - 1"),
    "pieces that overlap": ("      begin = t;\n", ""),
    "the last piece left out": ("    this.piece(l + 1, begin, to, code, logits, pattern);\n  }", "  }"),
    "a column of another neuron": ("at = i * m, to = j * m", "at = 0, to = j * m"),
    "the second of two neurons left out": ("slope2[k] += v * a + w * c;", "slope2[k] += v * a;"),
    "an odd one twice": ("h = q + 1 < count ? gains[q + 1] : 0", "h = gains[q]"),
    "an update of the slope only": ("offset2[k] += v * b + w * d;", ""),
    "nothing hidden, without slope": ("logits[i++] = slope[k] * t + offset[k];", "logits[i++] = offset[k];"),
    # the last hidden layer
    "outputs without slope": ("logits[at] = sum * u + rest;", "logits[at] = rest;"),
    "a first output without bias": ("rest = this.network.layers[l + 1].bias[0]", "rest = 0"),
    "other outputs without bias": ("let sum = 0, rest = bias[k];", "let sum = 0, rest = 0;"),
    "other outputs like the first": ("for (let k = 1, at = n; k < m; k++) {", "for (let k = 1, at = n; k < 0; k++) {"),
    "states at a piece's begin unseen": ("if (state * (a * from + c) <= 0 || state", "if (state"),
    "states at a piece's end unseen": ("c) <= 0 || state * (a * last + c) <= 0) {", "c) <= 0) {"),
    "last kinks that are not met": ("if (a * last + c > 0 !== active) {", "if (false) {"),
    "last kinks of slope only": (" rests[k] += more * this.offset[l][j];", ""),
    "last kinks a leak too much": ("const more = gain * weight[at] - this.out[at];", "const more = gain * weight[at];"),
    "no leak in the last piece": ("gain = active ? 1 : this.network.layers[l].leak;", "gain = active ? 1 : 0;"),
    # codes
    "codes without the first state": ("if (active) code ^= keys[j];", ""),
    "codes without kinks": ("        code ^= keys[j];\n      }", "      }"),
    "codes of the last layer missing": ("pattern.fill(code ^ this.code, t, end)", "pattern.fill(code, t, end)"),
    "one key for all": ("() => (key = Math.imul(key ^ (key >>> 15), 0x2c1b3c6d) + 0x85ebca6b | 0)", "() => 1"),
    # far away
    "far away the bias counts": ("slope[j] += w * a[i];", "slope[j] += w * a[i] + bias[j];"),
    "far away no leak": ("{ slope[j] *= leak; offset[j] *= leak; }", "{ slope[j] = 0; offset[j] = 0; }"),
    "far away neurons of slope 0 are on": ("|| (slope[j] === 0 && offset[j] <= 0)", ""),
    "a tie has one leader": ("const leaders = Array.from(a, (v, k) => k).filter(", "const leaders = [best].filter("),
}  # fmt: skip


def networks():
    """Networks that between them use every step: two and three outputs, depth 0 to 3, leaks, ties."""
    rng = np.random.default_rng(0)
    for sizes, leak in [
        ([2, 3], 0.0),
        ([2, 9, 2], 0.0),
        ([2, 9, 8, 2], 0.2),
        ([2, 8, 7, 6, 3], 0.1),
        ([2, 30, 30, 2], 0.0),
        ([2, 12, 12, 3], 0.0),
    ]:
        weights = [rng.normal(size=(m, n)) for n, m in pairwise(sizes)]
        yield weights, [rng.normal(size=len(w)) for w in weights], leak
    tied = [np.array([[1.0, 0], [0, 1], [-1, -1], [0, 0]]), np.array([[1.0, 0, 0, 3], [0, 0, 0, 1]])]
    yield tied, [np.array([0.3, 0.2, 0.1, -1.0]), np.zeros(2)], 0.0


def described(weights, biases, leak):
    numbers = np.concatenate([part.ravel() for pair in zip(weights, biases, strict=True) for part in pair])
    sizes = [2, *map(len, biases)]
    return {"sizes": sizes, "leaks": [leak] * (len(sizes) - 2), "numbers": numbers.tolist()}


@pytest.fixture(scope="module")
def page(browser):
    page = browser.new_page()
    page.goto("about:blank")
    page.evaluate(SCRIPT, [described(*network) for network in networks()])
    page.evaluate("source => { window.right = drawn(source); }", SOURCE)
    yield page
    page.close()


def test_what_is_not_broken_draws_what_python_says(page):
    step = 2 * HALF / SIDE
    column, row = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    points = np.stack([0.1 - HALF + step / 2 + step * column, -0.2 + (SIDE / 2 - row - 0.5) * step], axis=-1)
    for n, (weights, biases, leak) in enumerate(networks()):
        expected = polytopes.network.Network(weights, biases, [leak] * (len(weights) - 1))(points)
        logits = page.evaluate("n => right[n].numbers", n)[: expected.size]
        np.testing.assert_allclose(np.reshape(logits, expected.shape), expected, atol=1e-11)
    assert page.evaluate("source => same(drawn(source), right)", SOURCE)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_step_is_seen(page, mutation):
    piece, instead = MUTATIONS[mutation]
    assert piece in SOURCE
    seen = "source => { try { return !same(drawn(source), right); } catch { return true; } }"
    assert page.evaluate(seen, SOURCE.replace(piece, instead))
