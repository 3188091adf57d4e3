// The living map: a ReLU network with two inputs, drawn exactly, in the page.
//
// A row of pixels is a straight line x = (x0 + dx·t, y). Along it every pre-activation of the first layer is slope·t + offset. A
// neuron changes sign at most once, so the row falls into pieces; from one piece to the next the second layer's slopes and offsets
// change by a multiple of one column of its weights. The same happens inside each piece with the second layer, and so on: at the
// last layer each piece is a straight line, read at its pixels' centres. Nothing is sampled, nothing is approximated. 440 rows take
// 5 ms at width 32, 18 at 100, 230 at 500; cutting the plane into cells, each with the neurons that bend in it, took 7, 20 and 205.
//
// What the page cannot compute, a slice through convolutions and pools, the kernel does: it sends the polytopes of a window, each
// with its affine map, and they are painted along the same rows.
//
// The file has five parts: 1 the network, 2 slices, 3 colours, 4 the view (zoom, pan, point, rays), 5 the widget around it
// (controls, text).

// ---- 1. the network ------------------------------------------------------------------------------------------------------------

const SMOOTH = { sigmoid: (z) => 1 / (1 + Math.exp(-z)), tanh: Math.tanh };

/**
 * A network from its layers' sizes [2, n, …, K], one leak per hidden layer (0 is ReLU; "sigmoid" and "tanh" are drawn, too, but
 * point by point), and its numbers: W (row by row), then b, layer by layer.
 */
function unpack(sizes, leaks, numbers) {
  let at = 0;
  const take = (n) => Float64Array.from(numbers.subarray(at, (at += n)));
  const layers = [];
  for (let l = 1; l < sizes.length; l++) {
    const [n, m] = [sizes[l - 1], sizes[l]];
    const weight = take(n * m), bias = take(m), columns = new numbers.constructor(n * m);
    for (let j = 0; j < m; j++) for (let i = 0; i < n; i++) columns[i * m + j] = weight[j * n + i];
    layers.push({ n, m, weight, bias, columns, leak: l < sizes.length - 1 ? leaks[l - 1] : 1 });
  }
  return { layers, sizes, outputs: sizes[sizes.length - 1], smooth: leaks.some((leak) => leak in SMOOTH) };
}

/** The logits at one point [x, y]; `rooms`, an array per layer, is written over. */
function forward({ layers, tiles }, point, rooms = layers?.map(({ m }) => new Float64Array(m))) {
  if (tiles) return tiles.findLast((tile) => tile.holds(point))?.at(point) ?? null; // of a slice: null where nothing is known
  let h = point;
  for (const [l, { n, m, weight, bias, leak }] of layers.entries()) {
    const z = rooms[l], bend = SMOOTH[leak];
    for (let j = 0, at = 0; j < m; j++) {
      let sum = bias[j];
      for (let i = 0; i < n; i++) sum += weight[at++] * h[i];
      z[j] = bend ? bend(sum) : sum < 0 ? sum * leak : sum;
    }
    h = z;
  }
  return Array.from(h);
}

/** The same network with K − 1 outputs, its logits less the last one: all that a picture needs. */
function differences(network) {
  if (network.tiles) return { slice: network, outputs: network.outputs - 1 };
  const layers = [...network.layers], { n, m, weight, bias } = layers.pop();
  const less = (values, size) => values.subarray(0, (m - 1) * size).map((v, i) => v - values[(m - 1) * size + (i % size)]);
  const numbers = Float64Array.from([...less(weight, n), ...less(bias, 1)]);
  const last = unpack([n, m - 1], [], numbers).layers[0];
  return { ...network, layers: [...layers, last], sizes: [...network.sizes.slice(0, -1), m - 1], outputs: m - 1 };
}

const softmax = (logits) => {
  const top = Math.max(...logits), e = logits.map((f) => Math.exp(f - top)), sum = e.reduce((a, b) => a + b);
  return e.map((v) => v / sum);
};

/**
 * Infinitely far away in direction u the logits are α·slope + offset: who leads there, and the confidence that remains.
 * A sum that is nothing but the rounding of its terms counts as 0; where a neuron's slope is 0 its offset decides whether it is on.
 * A smooth neuron saturates, so its slope is 0 from there on. Of a slice the kernel must have said it, else it is null.
 */
function farAway(network, u) {
  if (network.tiles) return network.far[u] ?? null;
  let a = u, c = [0, 0], sizeA = [0, 0];
  for (const { n, m, weight, bias, leak } of network.layers) {
    const slope = new Float64Array(m), offset = Float64Array.from(bias), size = new Float64Array(m);
    for (let j = 0; j < m; j++) {
      for (let i = 0; i < n; i++) {
        const w = weight[j * n + i];
        slope[j] += w * a[i]; offset[j] += w * c[i]; size[j] += Math.abs(w * a[i]);
      }
      if (Math.abs(slope[j]) <= 1e-13 * size[j]) slope[j] = 0;
      if (leak in SMOOTH) {
        offset[j] = SMOOTH[leak](slope[j] === 0 ? offset[j] : slope[j] * Infinity);
        slope[j] = size[j] = 0;
      } else if (slope[j] < 0 || (slope[j] === 0 && offset[j] <= 0)) { slope[j] *= leak; offset[j] *= leak; }
    }
    [a, c, sizeA] = [slope, offset, size];
  }
  if (network.smooth && a.every((v) => v === 0)) [a, c, sizeA] = [c, c, c.map(Math.abs)]; // constant far away: its logits decide
  const top = Math.max(...a), best = a.indexOf(top);
  const leaders = Array.from(a, (v, k) => k).filter((k) => top - a[k] <= 1e-13 * (sizeA[best] + sizeA[k]));
  const limit = Math.max(...softmax(a === c ? Array.from(c) : leaders.map((k) => c[k])));
  return { winner: leaders[0], tie: leaders.length > 1, leaders, limit };
}

/** Draws rows of one network: `row(x0, dx, y, logits, pattern)` fills K logits per pixel, and a code of the active neurons. */
class Rows {
  constructor(network, width) {
    this.network = network;
    this.width = width;
    const hidden = network.sizes.slice(1), [outputs, before = 0] = hidden.slice().reverse(), numbers = (n) => new Float64Array(n);
    [this.slope, this.offset, this.on, this.gains] = [0, 1, 2, 3].map(() => hidden.map(numbers));
    this.first = hidden.map(() => new Int32Array(width).fill(-1)); // the first neuron that changes at a pixel …
    [this.next, this.which] = [0, 1].map(() => hidden.map((n) => new Int32Array(n))); // … and the one after it; those to add
    this.out = numbers(outputs * before); // the last layer's weights, `leak` times that from a neuron that is off
    this.code = 0; // of the last hidden layer's neurons that are on
    let key = 0x9e3779b9; // a random number per neuron: the xor of the active ones names a polytope
    this.keys = hidden.map((n) => Int32Array.from({ length: n }, () => (key = Math.imul(key ^ (key >>> 15), 0x2c1b3c6d) + 0x85ebca6b | 0)));
  }

  row(x0, dx, y, logits, pattern) {
    const { layers, smooth, outputs } = this.network, { m, weight, bias } = layers[0];
    const sampled = (t) => logits.set(forward(this.network, [x0 + dx * t, y], this.slope), t * outputs);
    if (smooth) { for (let t = 0; t < this.width; t++) sampled(t); return; } // it has no pieces
    for (let j = 0; j < m; j++) {
      this.slope[0][j] = weight[2 * j] * dx;
      this.offset[0][j] = weight[2 * j] * x0 + weight[2 * j + 1] * y + bias[j];
    }
    if (layers.length > 2) this.enter(x0, dx, y);
    this.piece(0, 0, this.width, 0, logits, pattern);
  }

  /** The second layer at the row's left end, kept from row to row: only neurons whose kink lies between the two ends change. */
  enter(x0, dx, y) {
    const [{ weight, bias, leak }, { n, m, columns, bias: rest }] = this.network.layers, { slope, offset } = this;
    if (this.left?.x0 !== x0 || this.left.dx !== dx) {
      const [gain, along, up] = [n, m, m].map((size) => new Float64Array(size));
      this.left = { x0, dx, gain, along, up, at0: Float64Array.from(rest) };
    }
    const { gain, along, up, at0 } = this.left;
    for (let j = 0; j < n; j++) {
      const more = (offset[0][j] > 0 ? 1 : leak) - gain[j];
      if (more === 0) continue;
      const a = more * slope[0][j], b = more * weight[2 * j + 1], c = more * (weight[2 * j] * x0 + bias[j]);
      for (let k = 0, w; k < m; k++) { w = columns[j * m + k]; along[k] += w * a; up[k] += w * b; at0[k] += w * c; }
      gain[j] += more;
    }
    for (let k = 0; k < m; k++) { slope[1][k] = along[k]; offset[1][k] = up[k] * y + at0[k]; }
  }

  /** Pixels from … to − 1, on which layer l's pre-activations are slope·t + offset. */
  piece(l, from, to, code, logits, pattern) {
    const layers = this.network.layers, slope = this.slope[l], offset = this.offset[l], n = layers[l].m;
    if (l === layers.length - 1) { // nothing hidden
      for (let t = from, i = from * n; t < to; t++) for (let k = 0; k < n; k++) logits[i++] = slope[k] * t + offset[k];
      return;
    }
    if (l === layers.length - 2) return this.lastPiece(l, from, to, code, logits, pattern);
    const { bias } = layers[l + 1], leak = layers[l].leak, on = this.on[l], keys = this.keys[l];
    const first = this.first[l], next = this.next[l], which = this.which[l], gains = this.gains[l];
    let count = 0;
    for (let j = 0; j < n; j++) {
      const a = slope[j], c = offset[j], active = a * from + c > 0, later = a * (to - 1) + c > 0;
      on[j] = active ? 1 : 0;
      if (active) code ^= keys[j];
      if (active || leak !== 0) { which[count] = j; gains[count++] = active ? 1 : leak; }
      if (active !== later) this.turn(l, j, from, to, later);
    }
    if (l) { this.slope[l + 1].fill(0); this.offset[l + 1].set(bias); this.add(l, count); } // else `enter` has done it
    let begin = from;
    for (let t = from + 1; t < to; t++) {
      if (first[t] < 0) continue;
      this.piece(l + 1, begin, t, code, logits, pattern);
      count = 0;
      for (let j = first[t]; j >= 0; j = next[j]) {
        which[count] = j; gains[count++] = on[j] ? leak - 1 : 1 - leak;
        code ^= keys[j];
      }
      this.add(l, count);
      first[t] = -1;
      begin = t;
    }
    this.piece(l + 1, begin, to, code, logits, pattern);
  }

  /** Add to the next layer what `count` neurons, those in `which`, give it, times their `gains`: two at a time is quicker. */
  add(l, count) {
    const { columns, m } = this.network.layers[l + 1], which = this.which[l], gains = this.gains[l];
    const slope = this.slope[l], offset = this.offset[l], slope2 = this.slope[l + 1], offset2 = this.offset[l + 1];
    for (let q = 0; q < count; q += 2) {
      const i = which[q], j = q + 1 < count ? which[q + 1] : i, g = gains[q], h = q + 1 < count ? gains[q + 1] : 0;
      const a = g * slope[i], b = g * offset[i], c = h * slope[j], d = h * offset[j];
      for (let k = 0, at = i * m, to = j * m; k < m; k++) {
        const v = columns[at++], w = columns[to++];
        slope2[k] += v * a + w * c; offset2[k] += v * b + w * d;
      }
    }
  }

  /**
   * The same where the next layer is the last. From one piece to the next few neurons change, so each one's state is kept: 1 on,
   * −1 off, 0 not known yet. What the last layer gives is a sum per output, which changes with each of them.
   */
  lastPiece(l, from, to, code, logits, pattern) {
    const { layers } = this.network, n = layers[l].m, { m, bias } = layers[l + 1], { out } = this;
    const slope = this.slope[l], offset = this.offset[l], sums = this.slope[l + 1], rests = this.offset[l + 1];
    const first = this.first[l], next = this.next[l], on = this.on[l], changes = this.meet(l, from, to);
    for (let k = 1, at = n; k < m; k++) {
      let sum = 0, rest = bias[k];
      for (let j = 0; j < n; j++, at++) { sum += out[at] * slope[j]; rest += out[at] * offset[j]; }
      sums[k] = sum; rests[k] = rest;
    }
    for (let t = from, end; t < to; t = end) {
      for (end = changes ? t + 1 : to; end < to && first[end] < 0;) end++;
      for (let k = 0; k < m; k++) {
        const sum = sums[k], rest = rests[k];
        for (let u = t, at = t * m + k; u < end; u++, at += m) logits[at] = sum * u + rest;
      }
      if (pattern) pattern.fill(code ^ this.code, t, end);
      if (end === to) break;
      for (let j = first[end]; j >= 0; j = next[j]) this.switch(l, j, on[j] < 0, sums, rests);
      first[end] = -1;
    }
  }

  /** Where the neurons before the last layer change, in `first` and `next`, and what they give to its first output. */
  meet(l, from, to) {
    const slope = this.slope[l], offset = this.offset[l], on = this.on[l], { out } = this, last = to - 1, n = slope.length;
    let sum = 0, rest = this.network.layers[l + 1].bias[0], changes = false;
    for (let j = 0; j < n; j++) {
      const a = slope[j], c = offset[j], state = on[j];
      if (state * (a * from + c) <= 0 || state * (a * last + c) <= 0) { // perhaps another state, here or before the end
        const active = a * from + c > 0;
        this.switch(l, j, active);
        if (a * last + c > 0 !== active) { this.turn(l, j, from, to, !active); changes = true; }
      }
      sum += out[j] * a; rest += out[j] * c;
    }
    [this.slope[l + 1][0], this.offset[l + 1][0]] = [sum, rest];
    return changes;
  }

  /** Neuron j changes at one pixel from from + 1 to to − 1: the first at which its new sign, `later`, holds. */
  turn(l, j, from, to, later) {
    const a = this.slope[l][j], c = this.offset[l][j], first = this.first[l];
    let t = Math.min(Math.max(Math.ceil(-c / a), from + 1), to - 1);
    while (t > from + 1 && (a * (t - 1) + c > 0) === later) t--;
    while (t < to - 1 && (a * t + c > 0) !== later) t++;
    this.next[l][j] = first[t];
    first[t] = j;
  }

  /** Neuron j before the last layer is on from now on, or off; the outputs' sums change with it. */
  switch(l, j, active, sums, rests) {
    const { n, m, weight } = this.network.layers[l + 1], gain = active ? 1 : this.network.layers[l].leak;
    if (active !== this.on[l][j] > 0) this.code ^= this.keys[l][j];
    this.on[l][j] = active ? 1 : -1;
    for (let k = 0, at = j; k < m; k++, at += n) {
      const more = gain * weight[at] - this.out[at];
      this.out[at] += more;
      if (sums) { sums[k] += more * this.slope[l][j]; rests[k] += more * this.offset[l][j]; }
    }
  }
}

/** All logits [height·width·K] of a window, row 0 on top, pixel centres; and the polytopes' codes. */
function fields(network, { x, y, half }, width, height) {
  const step = (2 * half) / width, rows = painterOf(network, width), k = network.outputs;
  const logits = new Float64Array(width * height * k), pattern = new Int32Array(width * height);
  for (let r = 0; r < height; r++) {
    rows.row(x - half + step / 2, step, y + (height / 2 - r - 0.5) * step,
      logits.subarray(r * width * k, (r + 1) * width * k), pattern.subarray(r * width, (r + 1) * width));
  }
  return { logits, pattern };
}

const painterOf = (network, width) => (network.slice ? new Scan(network.slice, width) : new Rows(network, width));

// ---- 2. slices -----------------------------------------------------------------------------------------------------------------

/** A network of which the kernel tells, tile by tile, what it has found: `Points` or `Cells`, each of a square {x, y, half}. */
class Slice {
  constructor(outputs) { Object.assign(this, { outputs, tiles: [], far: {}, count: 0 }); }

  /** Ordered from coarse to exact, and of the oldest only so many as a walk back may need. */
  add(tile) {
    tile.number = ++this.count;
    const kept = this.tiles.filter((old) => tile.number - old.number < 12 && !(old.unit > tile.unit && old.is(tile)));
    this.tiles = [...kept, tile].sort((a, b) => b.unit - a.unit || a.number - b.number);
  }

  /** The tile that shows the whole window as well as it can be shown. */
  whole(window) {
    return this.tiles.findLast((tile) => tile.last && (tile.unit ? tile.is(window) : tile.around(window)));
  }
}

class Tile {
  constructor(square, outputs) { Object.assign(this, square, { outputs }); }

  is({ x, y, half }) { return x === this.x && y === this.y && half === this.half; }

  around({ x, y, half }) { return Math.max(Math.abs(x - this.x), Math.abs(y - this.y)) + half <= this.half * (1 + 1e-9); }

  holds([x, y]) { return this.around({ x, y, half: 0 }); }
}

/** The logits at side × side places, the middles of equal squares, row by row from the top; `unit` is the side of such a square. */
class Points extends Tile {
  constructor(square, outputs, [logits]) {
    super(square, outputs);
    Object.assign(this, { logits: new Float32Array(logits), unit: (2 * square.half) / square.side });
  }

  /** Where the logits of the place that holds a point begin; −1 outside the square. */
  place(x, y) {
    const column = Math.floor((x - this.x + this.half) / this.unit), row = Math.floor((this.y + this.half - y) / this.unit);
    return Math.min(column, row) < 0 || Math.max(column, row) >= this.side ? -1 : (row * this.side + column) * this.outputs;
  }

  at([x, y]) {
    const i = this.place(x, y);
    return i < 0 ? null : Array.from(this.logits.subarray(i, i + this.outputs));
  }

  row(x0, dx, y, logits, pattern, known) {
    const last = this.outputs - 1;
    for (let t = 0; t < known.length; t++) {
      const i = this.place(x0 + dx * t, y);
      if (i < 0) continue;
      for (let k = 0; k < last; k++) logits[t * last + k] = this.logits[i + k] - this.logits[i + last];
      known[t] = 1;
      if (pattern) pattern[t] = 0;
    }
  }
}

/** The polytopes of the square: polygon p is corners starts[p] … starts[p + 1], its map K times slope x, slope y and offset. */
class Cells extends Tile {
  constructor(square, outputs, [starts, corners, maps]) {
    super(square, outputs);
    const numbers = square.double ? new Float64Array(maps) : new Float32Array(maps);
    Object.assign(this, { starts: new Uint32Array(starts), corners: new Float64Array(corners), maps: numbers, unit: 0 });
    // which polygons meet each of some strips of the square, from its lower side up
    const count = this.starts.length - 1, n = (this.strips = Math.ceil(2 * Math.sqrt(count))), ends = new Uint32Array(n + 1);
    const spans = Array.from({ length: count }, (_, p) => {
      let low = Infinity, high = -Infinity;
      for (let i = this.starts[p]; i < this.starts[p + 1]; i++) {
        const y = this.corners[2 * i + 1];
        low = Math.min(low, y); high = Math.max(high, y);
      }
      return [this.strip(low), this.strip(high)];
    });
    for (const [from, to] of spans) for (let s = from; s <= to; s++) ends[s + 1]++;
    for (let s = 0; s < n; s++) ends[s + 1] += ends[s];
    const next = ends.slice(), members = new Uint32Array(ends[n]);
    spans.forEach(([from, to], p) => { for (let s = from; s <= to; s++) members[next[s]++] = p; });
    Object.assign(this, { ends, members });
  }

  strip(y) {
    return Math.min(Math.max(Math.floor(((y - this.y + this.half) / (2 * this.half)) * this.strips), 0), this.strips - 1);
  }

  /**
   * Tell the pixels from … to − 1 of a row whose centres, x0 + dx·t, lie in polygon p. Two polygons meet a row at the same
   * number where they share an edge, as each takes it from below: no pixel is left out, none is in both.
   */
  scan(x0, dx, y, width, tell) {
    const { starts, corners, ends, members } = this, s = this.strip(y);
    for (let m = ends[s]; m < ends[s + 1]; m++) {
      const p = members[m], first = starts[p], last = starts[p + 1] - 1;
      let left = Infinity, right = -Infinity;
      for (let i = first, j = last; i <= last; j = i++) {
        const up = corners[2 * j + 1] < corners[2 * i + 1], a = 2 * (up ? j : i), b = 2 * (up ? i : j); // from a up to b
        if (corners[a + 1] > y || corners[b + 1] <= y) continue;
        const share = (y - corners[a + 1]) / (corners[b + 1] - corners[a + 1]), x = corners[a] + share * (corners[b] - corners[a]);
        if (x < left) left = x;
        if (x > right) right = x;
      }
      const from = Math.max(0, Math.ceil((left - x0) / dx)), to = Math.min(width, Math.ceil((right - x0) / dx));
      if (from < to) tell(p, from, to);
    }
  }

  at([x, y]) {
    let found = null;
    this.scan(x, this.half, y, 1, (p) => { found = p; });
    if (found === null) return null;
    const at = found * 3 * this.outputs, { maps } = this;
    return Array.from({ length: this.outputs }, (_, k) => maps[at + 3 * k] * x + maps[at + 3 * k + 1] * y + maps[at + 3 * k + 2]);
  }

  row(x0, dx, y, logits, pattern, known) {
    const { maps } = this, last = this.outputs - 1;
    this.scan(x0, dx, y, known.length, (p, from, to) => {
      const at = 3 * this.outputs * p, end = at + 3 * last;
      for (let k = 0; k < last; k++) {
        const [a, b, c] = [0, 1, 2].map((i) => maps[at + 3 * k + i] - maps[end + i]), slope = a * dx, offset = a * x0 + b * y + c;
        for (let t = from; t < to; t++) logits[t * last + k] = slope * t + offset;
      }
      known.fill(1, from, to);
      pattern?.fill(this.number * 1e6 + p, from, to);
    });
  }
}

/** What the kernel sends of a tile, and its buffers. */
const tileOf = (square, outputs, buffers) => new (square.side ? Points : Cells)(square, outputs, buffers);

/** Draws rows of a slice, as `Rows` those of a network; `known` says at which pixels of the last row anything is known. */
class Scan {
  constructor(slice, width) { Object.assign(this, { slice, known: new Uint8Array(width) }); }

  row(x0, dx, y, logits, pattern) {
    this.known.fill(0);
    pattern?.fill(-1);
    for (const tile of this.slice.tiles) tile.row(x0, dx, y, logits, pattern, this.known);
  }
}

// ---- 3. colours ----------------------------------------------------------------------------------------------------------------

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const pixel = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;

/**
 * A function from K − 1 `differences` at place i of an array to a pixel.
 * kind "bands": the winner's confidence in three bands, reject in its own colour · "classes": the winner, pale ·
 * "shades": the winner, the paler the less sure.
 */
function painter({ kind, bands, limits, pale, full, rejected, least }, outputs, reject) {
  const inside = outputs - reject, [low, high] = limits, band = bands.map((c) => pixel(rgb(c))), grey = pixel(rgb(rejected));
  const own = (colours) => Array.from({ length: outputs }, (_, k) => rgb(colours[k < inside ? k : colours.length - 1]));
  const flat = own(pale).map(pixel), deep = own(full);
  let best, parts; // who wins, and the confidence is one of so many parts
  const look = (f, i) => {
    let top = 0;
    best = outputs - 1;
    for (let k = outputs - 2; k >= 0; k--) if (f[i + k] >= top) { top = f[i + k]; best = k; }
    parts = Math.exp(-top);
    for (let k = 0; k < outputs - 1; k++) parts += Math.exp(f[i + k] - top);
  };
  if (kind === "bands" && outputs === 2 && !reject) { // the same, without an exponential per pixel
    const [a, b] = limits.map((p) => Math.log(p / (1 - p)));
    return (f, i) => { const lead = Math.abs(f[i]); return band[lead > b ? 2 : lead > a ? 1 : 0]; };
  }
  return (f, i) => {
    look(f, i);
    if (kind === "classes") return flat[best];
    if (kind === "bands") return best >= inside ? grey : band[parts * high < 1 ? 2 : parts * low < 1 ? 1 : 0];
    const sure = outputs < 2 ? 1 : (1 / parts - 1 / outputs) / (1 - 1 / outputs);
    return pixel(deep[best].map((v) => Math.round(255 - (least + (1 - least) * sure) * (255 - v))));
  };
}

// ---- 4. the view ---------------------------------------------------------------------------------------------------------------

const MARGIN = { left: 62, right: 16, top: 6, bottom: 46 }, RING = 10; // in CSS pixels
const ZOOM = { least: 1e-6, most: 1e6 };

/** A canvas with the map of one network: the picture, what lies around and upon it, and where in the plane it looks. */
class View {
  constructor(canvas, spec) {
    Object.assign(this, { canvas, spec, network: null, ring: null, reject: 0, note: {}, painted: [], job: 0 });
    Object.assign(this, { edges: false, ray: null, pointer: null, window: { ...spec.window }, moved: () => {} });
    this.context = canvas.getContext("2d");
  }

  /** Sizes in device pixels: `side` of the square map, `scale` device pixels per CSS pixel. */
  fit(cssWidth) {
    const scale = window.devicePixelRatio || 1, around = MARGIN.left + MARGIN.right + 2 * RING;
    const side = Math.max(120, Math.min(cssWidth - around, this.spec.size, Math.max(240, window.innerHeight - 330))); // in sight at once
    Object.assign(this, { scale, cssWidth, pageHeight: window.innerHeight, side: Math.round(side * scale) });
    const [w, h] = [side + around, side + MARGIN.top + MARGIN.bottom + 2 * RING];
    Object.assign(this.canvas.style, { width: `${w}px`, height: `${h}px` });
    Object.assign(this.canvas, { width: Math.round(w * scale), height: Math.round(h * scale) });
    [this.left, this.top] = [MARGIN.left, MARGIN.top].map((margin) => Math.round((margin + RING) * scale));
    this.image = new ImageData(this.side, this.side);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.rows = null;
    this.draw();
  }

  show(network, ring, reject) {
    if (this.network !== network) { // the picture of the other one is not finished
      Object.assign(this, { rows: null, drawn: differences(network), fresh: true, job: this.job + 1 });
    }
    Object.assign(this, { network, ring, reject });
    this.soon();
  }

  /** One picture per frame, however many events there are. */
  soon() {
    this.waiting ??= requestAnimationFrame(() => { this.waiting = null; this.draw(); });
  }

  /** Paint every eighth row at once, then the rows between while there is time, a slice per frame. */
  draw() {
    if (!this.side) return;
    if (this.scale !== (window.devicePixelRatio || 1)) { this.fit(this.cssWidth); return; }
    const job = ++this.job, { side, network } = this;
    if (!network) { this.pixels.fill(0xffffffff); this.finish(job); return; } // a plane to paint on
    const hatch = (at) => (at % (10 * this.scale) < 2 * this.scale ? 0xffbbbbbb : 0xffffffff);
    const k = this.drawn.outputs, logits = new Float64Array(side * k), paint = painter(this.spec.look, k + 1, this.reject);
    const codes = this.edges && !network.smooth ? new Int32Array(side * side) : null, order = [];
    this.rows ??= painterOf(this.drawn, side);
    for (const [start, step, height] of [[0, 8, 8], [4, 8, 4], [2, 4, 2], [1, 2, 1]]) {
      for (let r = start; r < side; r += step) order.push([r, height]);
    }
    const { x, y, half } = this.window, step = (2 * half) / side;
    const oneRow = (r, height) => {
      const { pixels } = this;
      this.rows.row(x - half + step / 2, step, y + half - (r + 0.5) * step, logits, codes?.subarray(r * side, (r + 1) * side));
      const { known } = this.rows, hatched = (t) => known && !known[t]; // where nothing is known
      for (let t = 0, at = r * side, i = 0; t < side; t++, i += k) pixels[at++] = hatched(t) ? hatch(r + t) : paint(logits, i);
      for (let copy = 1; copy < height && r + copy < side; copy++) pixels.copyWithin((r + copy) * side, r * side, (r + 1) * side);
    };
    let next = 0;
    const slice = (budget) => {
      if (job !== this.job) return;
      const end = performance.now() + budget;
      while (next < order.length && (next < side / 8 && !network.smooth || performance.now() < end)) oneRow(...order[next++]);
      if (next < order.length) { this.decorate(); requestAnimationFrame(() => slice(28)); return; }
      if (codes) this.drawEdges(codes);
      this.finish(job);
    };
    slice(this.fresh ? 6 : 12); // the first sight of another network comes as soon as can be
    this.fresh = false;
  }

  finish(job) {
    this.decorate();
    this.done = job; // for those who wait
    this.canvas.dataset.drawn = String(job);
  }

  /** Where a pixel's polytope is not that of the pixel to its left or above, there is an edge. Crowds of edges stay away. */
  drawEdges(codes) {
    const { side, pixels } = this, found = [];
    for (let at = 0; at < side * side; at++) {
      if ((at % side && codes[at] !== codes[at - 1]) || (at >= side && codes[at] !== codes[at - side])) found.push(at);
    }
    const contrast = (p) => ((p & 255) + ((p >> 8) & 255) + ((p >> 16) & 255) < 330 ? 0xffffffff : 0xff606060);
    if (found.length < 0.35 * side * side) for (const at of found) pixels[at] = contrast(pixels[at]);
  }

  // -- places: device pixels of the canvas and points of the plane --
  toPlane([px, py]) {
    const { x, y, half } = this.window;
    return [x - half + ((px - this.left) / this.side) * 2 * half, y + half - ((py - this.top) / this.side) * 2 * half];
  }

  toCanvas([px, py]) {
    const { x, y, half } = this.window;
    return [this.left + ((px - x + half) / (2 * half)) * this.side, this.top + ((y + half - py) / (2 * half)) * this.side];
  }

  holds([px, py]) {
    return px >= this.left && py >= this.top && px <= this.left + this.side && py <= this.top + this.side;
  }

  /** Show the picture as far as it is, and everything around and upon it: axes, the ring, discs, points, the ray. */
  decorate() {
    if (!this.image) return; // not in the page yet
    const c = this.context, { side, left, top, scale } = this;
    this.ink = getComputedStyle(this.canvas).color || "black";
    c.clearRect(0, 0, this.canvas.width, this.canvas.height);
    c.putImageData(this.image, left, top);
    if (this.ring) this.drawRing(RING * scale);
    Object.assign(c, { strokeStyle: this.ink, lineWidth: scale });
    c.strokeRect(left - scale / 2, top - scale / 2, side + scale, side + scale);
    this.drawAxes();
    c.save(); c.beginPath(); c.rect(left, top, side, side); c.clip();
    const points = [...(this.spec.points ?? []), ...(this.note.points ?? []), ...this.painted];
    for (const p of points) this.marker(p, points.length < 10 && !this.spec.paint);
    (this.spec.discs ?? []).forEach(([x, y, r], k) => {
      const [px, py] = this.toCanvas([x, y]), radius = (r / (2 * this.window.half)) * side;
      this.twice(() => c.arc(px, py, radius, 0, 7), 2.5, this.spec.look.full[k]);
    });
    for (const [k, path] of this.spec.outlines ?? []) {
      this.twice(() => path.forEach((p) => c.lineTo(...this.toCanvas(p))), 2.5, this.spec.look.full[k]);
    }
    if (this.ray) {
      const [u, v] = this.ray, [x, y] = this.toCanvas([0, 0]), far = 4 * (side + Math.hypot(x - left, y - top)) / Math.hypot(u, v);
      this.twice(() => { c.moveTo(x, y); c.lineTo(x + u * far, y - v * far); }, 2.5, this.spec.look.accent);
    }
    if (this.pointer) {
      const [x, y] = this.toCanvas(this.pointer), s = 9 * scale;
      this.twice(() => { c.moveTo(x - s, y); c.lineTo(x + s, y); c.moveTo(x, y - s); c.lineTo(x, y + s); }, 1.5, "black");
    }
    c.restore();
    const star = this.note.star && this.toCanvas(this.note.star);
    if (star && this.holds(star)) this.drawStar(star, 10 * scale);
  }

  /** A path, white and wide below, in its colour above: seen on any ground. */
  twice(path, width, colour) {
    const c = this.context;
    for (const [style, wide] of [["white", width + 2.5], [colour, width]]) {
      Object.assign(c, { strokeStyle: style, lineWidth: wide * this.scale });
      c.beginPath(); path(); c.stroke();
    }
  }

  /** The frame: a direction, seen from the map's middle, in the colour of the class that wins it, far away. */
  drawRing(thick) {
    const c = this.context, { left, top, side } = this, middle = [left + side / 2, top + side / 2], { start, who } = this.ring;
    c.save(); c.beginPath();
    c.rect(left - thick, top - thick, side + 2 * thick, side + 2 * thick);
    c.rect(left, top, side, side);
    c.clip("evenodd");
    start.forEach((angle, i) => {
      const end = i + 1 < start.length ? start[i + 1] : start[0] + 2 * Math.PI;
      c.fillStyle = who[i] < 0 ? "black" : this.colour(who[i]);
      c.beginPath(); c.moveTo(...middle); c.arc(...middle, 2 * side, -angle, -(end + 2e-3), true); c.fill();
    });
    c.restore();
  }

  /** The full colour of output k: the last one is grey where it is reject. */
  colour(k) {
    const { full } = this.spec.look;
    return full[this.reject && k === this.network.outputs - 1 ? full.length - 1 : k];
  }

  drawAxes() {
    const c = this.context, { left, top, side, scale } = this, { x, y, half } = this.window, edge = (RING + 1) * scale;
    Object.assign(c, { fillStyle: this.ink, font: `${15 * scale}px sans-serif` });
    const step = niceStep((2 * half) / 5), digits = Math.min(12, Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
    const label = (v) => {
      if (Math.abs(v) < step / 1e6) return "0";
      return (Math.abs(v) >= 1e5 ? v.toExponential().replace("e+", "e") : v.toFixed(digits)).replace("-", "−");
    };
    const ticks = (middle) => {
      const first = Math.ceil((middle - half) / step), last = Math.floor((middle + half) / step);
      return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
    };
    Object.assign(c, { textAlign: "center", textBaseline: "top" });
    for (const v of ticks(x)) {
      const at = this.toCanvas([v, y])[0];
      c.fillRect(at, top + side + edge, scale, 4 * scale);
      c.fillText(label(v), at, top + side + edge + 6 * scale);
    }
    Object.assign(c, { textAlign: "right", textBaseline: "middle" });
    for (const v of ticks(y)) {
      const at = this.toCanvas([x, v])[1], text = label(v), room = left - edge - 22 * scale;
      c.fillRect(left - edge - 4 * scale, at, 4 * scale, scale);
      c.fillText(text, left - edge - 6 * scale, at, room);
    }
    Object.assign(c, { textAlign: "center", textBaseline: "bottom" });
    c.fillText(this.spec.axes[0], left + side / 2, this.canvas.height);
    c.save(); c.translate(16 * scale, top + side / 2); c.rotate(-Math.PI / 2);
    c.fillText(this.spec.axes[1], 0, 0);
    c.restore();
  }

  /** A point [x, y, k] with the marker of its class: colour and shape; k < 0 is OOD, a cross. */
  /** A point with the colour and shape of its class; a few points are large, with the number of their class beside them. */
  marker([px, py, k], few) {
    const c = this.context, [x, y] = this.toCanvas([px, py]), s = (few ? 7 : this.spec.paint ? 5 : 3.2) * this.scale;
    const cross = () => { c.moveTo(x - s, y - s); c.lineTo(x + s, y + s); c.moveTo(x - s, y + s); c.lineTo(x + s, y - s); };
    if (k < 0) return this.twice(cross, 1.2, "black");
    c.beginPath();
    if (k % 4 === 0) c.arc(x, y, s, 0, 7);
    if (k % 4 === 1) c.rect(x - s, y - s, 2 * s, 2 * s);
    if (k % 4 === 2) { c.moveTo(x, y - s); c.lineTo(x + s, y + s); c.lineTo(x - s, y + s); c.closePath(); }
    if (k % 4 === 3) { c.moveTo(x, y - s); c.lineTo(x + s, y); c.lineTo(x, y + s); c.lineTo(x - s, y); c.closePath(); }
    Object.assign(c, { fillStyle: this.spec.look.markers[k % 10], strokeStyle: "white", lineWidth: 0.8 * this.scale });
    c.fill(); c.stroke();
    if (few) {
      Object.assign(c, { font: `bold ${15 * this.scale}px sans-serif`, fillStyle: "black", lineWidth: 4 * this.scale });
      Object.assign(c, { textAlign: "left", textBaseline: "middle", lineJoin: "round" });
      for (const paint of ["strokeText", "fillText"]) c[paint](k, x + 2 * s, y);
    }
  }

  drawStar([x, y], size) {
    const c = this.context;
    c.beginPath();
    for (let i = 0; i < 10; i++) {
      const r = i % 2 ? 0.42 * size : size, angle = (Math.PI * i) / 5;
      c.lineTo(x + r * Math.sin(angle), y - r * Math.cos(angle));
    }
    Object.assign(c, { fillStyle: this.spec.look.accent, strokeStyle: "white", lineWidth: 1.5 * this.scale });
    c.closePath(); c.fill(); c.stroke();
  }

  // -- hands --
  zoom(factor, [x, y] = [this.window.x, this.window.y]) {
    const half = Math.min(Math.max(this.window.half * factor, ZOOM.least), ZOOM.most), f = half / this.window.half;
    this.move({ x: x + (this.window.x - x) * f, y: y + (this.window.y - y) * f, half });
  }

  pan(dx, dy) {
    this.move({ ...this.window, x: this.window.x + dx, y: this.window.y + dy });
  }

  move(to) {
    this.window = { ...to };
    this.moved();
    this.soon();
  }
}

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((m) => m * power >= rough * (1 - 1e-9));
}

// ---- 5. the widget: controls above, text below, hands upon the map ------------------------------------------------------------

const STYLE = `
.ood-map { color: var(--jp-ui-font-color1, #222); font: 16px/1.4 var(--jp-ui-font-family, sans-serif); max-width: 100%; }
.ood-map .row { display: flex; flex-wrap: wrap; gap: 4px 18px; align-items: center; margin: 3px 0; }
.ood-map label { display: inline-flex; gap: 6px; align-items: center; }
.ood-map input[type=range] { width: 10em; } .ood-map output { min-width: 3.2em; font-variant-numeric: tabular-nums; }
.ood-map button, .ood-map select { font: inherit; color: inherit; background: var(--jp-layout-color2, #eee);
  border: 1px solid #888; border-radius: 3px; padding: 1px 9px; cursor: pointer; }
.ood-map button[aria-pressed=true] { outline: 3px solid #D55E00; }
.ood-map canvas { display: block; cursor: crosshair; color: inherit; touch-action: pan-x pan-y; }
.ood-map canvas:focus { touch-action: none; } .ood-map canvas:focus-visible { outline: 2px solid #D55E00; }
.ood-map .map { max-width: 100%; } .ood-map .key { width: 0; min-width: 100%; font-size: 94%; gap: 0 14px; }
.ood-map .tools { gap: 4px 6px; } .ood-map .tools button { padding: 1px 6px; }
.ood-map .side { flex: 1 1 240px; max-width: 360px; min-width: 0; align-self: flex-start; } .ood-map .side img { max-width: 100%; }
.ood-map i { display: inline-block; width: 13px; height: 13px; border: 1px solid #777; margin-right: 5px; vertical-align: -1px; }
.ood-map .here { height: 2.8em; overflow: auto; font-size: 94%; font-variant-numeric: tabular-nums; max-width: 60em; }
.ood-map .said { font-size: 110%; min-height: 5.6em; margin: 4px 0; } @media (max-width: 600px) { .ood-map .here { height: 5.6em; } }`;

const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

/** Histograms of confidences, as SVG: `bars` = {low, series: [[name, colour, shares of the points], …]}; the first is filled. */
function histogram({ low, series }) {
  const [w, h, x0, y0] = [300, 190, 44, 10], n = series[0][2].length, top = Math.max(0.1, ...series.flatMap((s) => s[2]));
  const px = (i) => x0 + (i / n) * w, py = (v) => y0 + h * (1 - v / top);
  const path = (shares) => `M${px(0)} ${py(0)}` + shares.map((v, i) => `L${px(i)} ${py(v)}L${px(i + 1)} ${py(v)}`).join("") + `L${px(n)} ${py(0)}`;
  const text = (x, y, anchor, t, more = "") => `<text x="${x}" y="${y}" text-anchor="${anchor}" fill="currentColor" ${more}>${t}</text>`;
  const percent = (v) => `${Math.round(100 * v)} %`;
  const curves = series.map(([, colour, shares], i) => `<path d="${path(shares)}" fill="${i ? "none" : colour}" fill-opacity=".75"
    stroke="${i ? "currentColor" : colour}" stroke-width="${i ? 2.5 : 1}" ${i > 1 ? 'stroke-dasharray="6 4"' : ""}/>`);
  const names = series.map(([name, colour], i) => `<rect x="${x0 + i * 150}" y="${y0 + h + 48}" width="14" height="14"
    fill="${i ? "none" : colour}" stroke="${i ? "currentColor" : colour}" stroke-width="2.5"/>${text(x0 + 20 + i * 150, y0 + h + 60, "start", name)}`);
  return `<svg viewBox="0 0 ${x0 + w + 12} ${y0 + h + 70}" width="100%" font-size="15" role="img" aria-label="histogram of confidences">
    ${curves.join("")}<path d="M${x0} ${y0}V${y0 + h}H${x0 + w}" fill="none" stroke="currentColor"/>${names.join("")}
    ${[low, (low + 1) / 2, 1].map((v, i) => text(x0 + (w * i) / 2, y0 + h + 18, "middle", v)).join("")}
    ${[0, top].map((v) => text(x0 - 5, py(v) + 5, "end", percent(v))).join("")}
    ${text(x0 + w / 2, y0 + h + 38, "middle", "confidence of the test points")}</svg>`;
}

/**
 * Draw the widget's state in `el`. The state (a widget's model, or that of `still`):
 * spec      what does not change: controls, presets, the networks' shapes, look, discs, points, window, title
 * weights   bytes: the networks' numbers, one after another; those that are missing come when asked for · rings, one per network
 * position  the controls' places, a whole number each · window {x, y, half} · painted [[x, y, class or −1], …]
 * notes     {position: {text, star, bars, points, picture}}; those that are missing come when asked for
 * tiles     [{of: number of the network, tile, buffers}]: what is known of slices; what is missing comes when asked for
 */
function render({ model, el }) {
  let end = draw({ model, el });
  const anew = () => { // other networks than before: the cross, the edges and the focus stay
    const { pointer, edges, canvas } = el.firstChild.oodView, held = document.activeElement === canvas;
    end(); el.replaceChildren();
    end = draw({ model, el }, { pointer, edges });
    if (held) el.querySelector("canvas").focus({ preventScroll: true });
  };
  model.on("change:spec", anew);
  return () => { model.off("change:spec", anew); end(); };
}

function draw({ model, el }, before = {}) {
  const spec = model.get("spec"), notes = { ...model.get("notes") }, asked = new Set();
  let networks = {}, rings = { ...model.get("rings") };
  const ownBytes = (bytes) => bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  const numbersOf = (bytes) => (spec.double ? new Float64Array(ownBytes(bytes)) : new Float32Array(ownBytes(bytes)));
  let numbers = numbersOf(model.get("weights"));
  const network = (i) => { // unpacked when first shown; undefined while it is not here
    const { sizes, leaks, at } = spec.networks[i] ?? { at: null };
    if (!networks[i] && at !== null && numbers.length) networks[i] = unpack(sizes, leaks, numbers.subarray(at));
    return networks[i];
  };
  let alone = false; // once the kernel has gone the map goes on without it
  const tell = (act) => { try { act(); } catch { alone = true; } };
  const ask = (kind, what) => {
    const question = { [kind]: what }, words = JSON.stringify(question);
    if (asked.has(words)) return;
    asked.add(words);
    tell(() => model.send(question));
  };

  // what stands in the page
  const root = element("div", { className: "ood-map" });
  root.dataset.lmSuppressShortcuts = "true"; // JupyterLab's keys are not meant here
  const canvas = element("canvas", { tabIndex: 0 });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", spec.title);
  const here = element("div", { className: "here" }), said = element("p", { className: "said" }), chart = element("div");
  said.hidden = !spec.speaks;
  for (const live of [here, said]) live.setAttribute("aria-live", "polite");
  said.setAttribute("role", "status");
  const view = Object.assign(new View(canvas, spec), before);
  const button = (text, act, title = "") => {
    const made = element("button", { type: "button", textContent: text, title });
    made.addEventListener("click", act);
    return made;
  };
  const put = (name, value) => { model.set(name, value); tell(() => model.save_changes()); };

  // controls: a place per control, a whole number
  const fields = spec.controls.map((control, i) => {
    const slides = control.kind === "slider", text = element("output");
    const field = slides
      ? element("input", { type: "range", min: 0, max: control.options.length - 1, step: 1 })
      : element("select", {}, ...control.options.map((name, v) => element("option", { value: v, textContent: name })));
    field.title = control.tooltip;
    field.addEventListener("input", () => put("position", model.get("position").map((old, j) => (j === i ? Number(field.value) : old))));
    return {
      row: element("label", {}, control.label, field, ...(slides ? [text] : [])),
      set: (v) => { field.value = v; text.value = control.options[v]; field.setAttribute("aria-valuetext", control.options[v]); },
    };
  });
  const clear = () => { view.ray = view.pointer = null; };
  const presets = spec.presets.map(({ name, position, window: to, title }) => button(name, () => {
    clear();
    put("position", [...position]);
    view.move({ x: 0, y: 0, half: to });
  }, title));
  const edges = element("input", { type: "checkbox", checked: view.edges });
  edges.addEventListener("change", () => { view.edges = edges.checked; view.soon(); });
  const patch = (colour) => (colour ? [element("i", { style: `background: ${colour}` })] : []);
  const key = element("div", { className: "row key" }, ...spec.key.map(([colour, name]) => element("span", {}, ...patch(colour), name)));
  const starred = element("span", { textContent: "★ most confident OOD point", hidden: true }), state = element("span");
  state.className = "state";
  key.append(starred, ...(spec.networks.some(({ slice }) => slice) ? [state] : []));
  const painting = spec.paint ? paintTools(model, view, button, put) : null;
  const extras = spec.networks.length ? [element("label", { title: "draw the borders between polytopes" }, edges, "polytopes")] : [];
  root.append(element("style", { textContent: STYLE }), element("div", { className: "row" }, ...fields.map((f) => f.row)),
    element("div", { className: "row" }, ...presets, ...extras), ...(painting ? [painting.row] : []),
    element("div", { className: "row" }, element("div", { className: "map" }, canvas, key), element("div", { className: "side" }, said, chart)),
    here);
  root.addEventListener("keydown", (event) => event.stopPropagation());

  // what is said of a point, and far along the ray
  const short = (v) => String(Number(v.toPrecision(4))).replace("-", "−");
  const named = (k) => (view.reject && k === view.network.outputs - 1 ? "reject" : `class ${k}`);
  const describe = () => {
    const point = view.pointer ?? view.hovered, lines = [], logits = view.network && point && forward(view.network, point);
    if (logits) {
      const p = softmax(logits), best = logits.indexOf(Math.max(...logits));
      lines.push(`(${point.map(short).join(", ")}): ${named(best)}, confidence ${p[best].toFixed(4)}, logits ${logits.map(short).join(" · ")}`);
    } else if (painting && point) lines.push(`(${point.map(short).join(", ")}): Enter places a point, or erases`);
    if (view.network && view.ray) {
      const far = farAway(view.network, view.ray) ?? { unknown: alone ? "that needs a running kernel" : "…" };
      const who = far.tie ? `tie of ${far.leaders.map(named).join(", ")}` : `k* = ${named(far.winner)}`;
      lines.push(`Along the ray, at infinity: ${far.unknown ?? `${who}, limit of the confidence ${far.limit.toFixed(4)}`}`);
    }
    const sampled = view.network?.smooth ? " Sigmoids and tanh have no polytopes: they are sampled at every pixel." : "";
    here.replaceChildren(...(lines.length ? lines : [spec.hint + sampled]).map((line) => element("div", { textContent: line })));
  };
  const again = () => { view.decorate(); describe(); };
  const againSoon = () => { view.again ??= requestAnimationFrame(() => { view.again = null; again(); }); };

  // what the kernel finds of a slice in this window is asked for; it forgets the question before
  const slice = (i) => (networks[i] ??= new Slice(spec.networks[i].outputs));
  const take = (i, tile, buffers) => slice(i).add(tileOf(tile, spec.networks[i].outputs, buffers.map(ownBytes)));
  for (const { of, tile, buffers } of model.get("tiles") ?? []) take(of, tile, buffers);
  let current, wanted = "", soon = null;
  const look = () => {
    const sliced = spec.networks[current]?.slice, found = sliced && networks[current]?.whole(view.window);
    const question = { look: { of: current, window: view.window } }, words = JSON.stringify(question);
    if (sliced && !found && wanted !== words) { wanted = words; tell(() => model.send(question)); }
    state.textContent = !sliced ? "" : found?.says ?? (alone ? "This window is not computed: that needs a running kernel." : "…");
    if (sliced) root.setAttribute("aria-busy", String(!found && !alone));
  };
  const lookSoon = (delay) => { clearTimeout(soon); soon = setTimeout(look, delay); };

  // the present state: networks and notes that are not here yet are asked for, nearest first; the picture before stays so long
  let zoomed = null;
  const update = () => {
    const position = model.get("position"), place = position.join(","), size = position[spec.zoomed];
    position.forEach((v, i) => fields[i].set(v));
    if (zoomed !== null && size !== zoomed) view.move({ x: 0, y: 0, half: spec.halves[size] });
    zoomed = size ?? null;
    const at = (place) => spec.places[place.filter((_, j) => j !== spec.zoomed).join(",")], i = at(position);
    current = i;
    const beside = position.flatMap((v, j) => [v - 1, v + 1].map((w) => at(position.map((u, k) => (k === j ? w : u)))));
    const missing = beside.find((k) => k !== undefined && !networks[k] && !spec.networks[k].slice && spec.networks[k].at === null); // soon
    if (network(i) && missing !== undefined) setTimeout(ask, 300, "network", missing);
    if (view.ray && network(i)?.tiles) ask("ray", { of: i, point: view.ray });
    if (network(i)) view.show(network(i), rings[i], spec.networks[i].reject);
    else if (spec.networks[i] && !spec.networks[i].slice) ask("network", i);
    lookSoon(20); // a preset moves the window next
    const note = notes[place];
    if (spec.speaks) ask("note", place); // also where it is here already: the kernel then prepares those around it
    root.setAttribute("aria-busy", String(i !== undefined && (!network(i) || Boolean(spec.networks[i].slice)))); // till one has looked
    view.note = note ?? {};
    said.textContent = note ? note.text : !spec.speaks ? "" : alone ? "The numbers of this position need a running kernel." : "…";
    starred.hidden = !note?.star;
    edges.disabled = Boolean(view.network?.smooth);
    if (note?.bars) chart.innerHTML = histogram(note.bars);
    else if (note?.picture) chart.replaceChildren(element("img", { src: note.picture, alt: note.text }));
    chart.style.opacity = spec.speaks && !note ? 0.35 : 1; // the chart of the position before
    againSoon();
  };

  // pointers: one points or drags, two pinch
  const down = new Map();
  let travelled = 0, pinch = 0, grabbed = null;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * view.scale, (event.clientY - box.top) * view.scale];
  };
  const apart = ([a, b]) => Math.max(1, Math.hypot(a[0] - b[0], a[1] - b[1]));
  canvas.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse") canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, at(event));
    travelled = down.size > 1 ? 99 * view.scale : 0;
    if (down.size === 2) pinch = apart([...down.values()]);
    grabbed = painting && down.size === 1 ? painting.near(at(event)) : null;
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = at(event), old = down.get(event.pointerId);
    if (!old) {
      if (event.pointerType !== "mouse") return;
      view.hovered = view.holds(now) ? view.toPlane(now) : null;
      againSoon();
      return;
    }
    down.set(event.pointerId, now);
    const both = [...down.values()], unit = (2 * view.window.half) / view.side;
    travelled += Math.hypot(now[0] - old[0], now[1] - old[1]);
    if (both.length === 2) {
      view.zoom(pinch / apart(both), view.toPlane([0, 1].map((i) => (both[0][i] + both[1][i]) / 2)));
      pinch = apart(both);
    } else if (travelled > 3 * view.scale) {
      if (grabbed !== null) painting.drag(grabbed, view.toPlane(now));
      else view.pan((old[0] - now[0]) * unit, (now[1] - old[1]) * unit);
    }
  });
  const cast = (point) => {
    view.pointer = point;
    view.ray = point && Math.hypot(...point) > 0 ? point : null;
    if (view.ray && view.network?.tiles) ask("ray", { of: current, point: view.ray });
    again();
  };
  const up = (event) => {
    const there = down.get(event.pointerId);
    if (!down.delete(event.pointerId) || event.type !== "pointerup") return;
    if (travelled > 3 * view.scale) { if (grabbed !== null) painting.drop(); return; }
    canvas.focus({ preventScroll: true });
    if (!view.holds(there)) cast(null);
    else if (painting) painting.act(view.toPlane(there), grabbed);
    else cast(view.toPlane(there));
  };
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, up);
  canvas.addEventListener("pointerleave", () => { view.hovered = null; againSoon(); });
  // the page scrolls unless the map has been chosen, or Ctrl is held
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey) return;
    event.preventDefault();
    view.zoom(1.2 ** Math.sign(event.deltaY), view.toPlane(at(event)));
  }, { passive: false });
  const home = () => {
    clear();
    view.move(spec.zoomed === null ? spec.window : { x: 0, y: 0, half: spec.halves[model.get("position")[spec.zoomed]] });
  };
  canvas.addEventListener("dblclick", () => { if (!painting) home(); });
  canvas.addEventListener("keydown", (event) => {
    const step = view.window.half / (painting ? 20 : 8), { x, y } = view.window, middle = () => view.pointer ?? [x, y];
    const go = (dx, dy) => {
      if (painting) view.pointer = [middle()[0] + dx, middle()[1] + dy];
      else { view.pan(dx, dy); view.pointer = [view.window.x, view.window.y]; }
    };
    const act = {
      ArrowLeft: () => go(-step, 0), ArrowRight: () => go(step, 0), ArrowUp: () => go(0, step), ArrowDown: () => go(0, -step),
      "+": () => view.zoom(1 / 1.25), "=": () => view.zoom(1 / 1.25), "-": () => view.zoom(1.25), Home: home,
      Enter: () => (painting ? painting.act(middle(), painting.near(view.toCanvas(middle()))) : cast(middle())), Escape: clear,
      ...(painting ? painting.keys(middle) : {}),
    }[(event.ctrlKey || event.metaKey ? "Ctrl+" : "") + event.key];
    if (!act) return;
    event.preventDefault();
    act();
    again();
  });

  // the kernel's part
  let later = null; // while it waits, the kernel's echo of an earlier window does not count
  view.moved = () => { // another view of the same map follows at once, the kernel when the hand rests
    const own = () => model.set("window", view.window); own();
    clearTimeout(later); later = setTimeout(() => { later = null; own(); tell(() => model.save_changes()); look(); }, 300), againSoon();
  };
  const heard = {
    "change:position": update,
    "change:notes": () => { Object.assign(notes, model.get("notes")); update(); },
    "change:weights": () => {
      [numbers, networks, rings] = [numbersOf(model.get("weights")), {}, { ...model.get("rings") }];
      update();
    },
    "change:painted": () => { painting?.changed(); view.painted = model.get("painted"); againSoon(); },
    "change:window": () => {
      const to = model.get("window");
      if (!later && ["x", "y", "half"].some((name) => to[name] !== view.window[name])) { view.window = { ...to }; view.soon(); }
    },
    "msg:custom": ({ note, place, sent, ring, of, tile, ray, far, anew }, buffers) => {
      if (note) notes[place] = note;
      if (anew) { networks = {}; asked.clear(); }
      if (tile) take(of, tile, buffers);
      if (ring && of !== undefined) rings[of] = ring;
      if (far) slice(of).far[ray] = far;
      if (tile?.last || anew) wanted = "";
      if (sent !== undefined) {
        networks[sent] = unpack(spec.networks[sent].sizes, spec.networks[sent].leaks, numbersOf(buffers[0]));
        rings[sent] = ring;
      }
      update();
    },
  };
  for (const [event, act] of Object.entries(heard)) model.on(event, act);
  Object.assign(view, { painted: model.get("painted"), window: { ...model.get("window") } });
  el.append(root);
  const fitted = () => { // to the width of its place and, where the page is zoomed or made smaller, to its height
    const width = Math.floor(root.clientWidth);
    if (width && (width !== view.cssWidth || view.pageHeight !== window.innerHeight)) { view.fit(width); describe(); }
  };
  const sized = new ResizeObserver(fitted);
  sized.observe(root);
  window.addEventListener("resize", fitted);
  update();
  root.oodView = Object.assign(view, { notes }); // for tests
  return () => {
    sized.disconnect();
    clearTimeout(soon);
    window.removeEventListener("resize", fitted);
    view.job++;
    for (const [event, act] of Object.entries(heard)) model.off(event, act);
  };
}

/** What one paints with: a tool per class, OOD, erase; undo and clear. Points are [x, y, class], −1 for OOD. */
function paintTools(model, view, button, put) {
  const points = () => model.get("painted"), tools = [...Array(view.spec.paint).keys(), -1, null];
  const kept = (model.oodPainting ??= { history: [], now: points(), tool: 0 }); // outlives what `draw` makes
  const change = (to) => put("painted", to);
  const undo = () => { if (kept.history.length) change(kept.now = kept.history.pop()); };
  const changed = () => { if (points() !== kept.now) kept.history.push(kept.now); kept.now = points(); }; // by the kernel, too
  const name = (k) => (k === null ? "erase" : k < 0 ? "OOD" : `class ${k}`);
  const buttons = tools.map((k, i) => button(name(k), () => choose(i), k === null ? "key e" : k < 0 ? "key o" : `key ${k}`));
  const choose = (i) => { kept.tool = i; buttons.forEach((b, j) => b.setAttribute("aria-pressed", String(i === j))); };
  const without = (i) => points().filter((_, j) => j !== i);
  const near = (place) => { // the number of the point at a place of the canvas
    const far = points().map((p) => { const [x, y] = view.toCanvas(p); return Math.hypot(x - place[0], y - place[1]); });
    const best = far.indexOf(Math.min(...far));
    return best >= 0 && far[best] < 9 * view.scale ? best : null;
  };
  const drag = (i, point) => {
    view.painted = points().map((p, j) => (i === j ? [...point, p[2]] : p));
    view.decorate();
  };
  const drop = () => change(view.painted);
  let held = null;
  choose(kept.tool);
  return {
    row: element("div", { className: "row tools" }, ...buttons, button("undo", undo, "Ctrl+Z"), button("clear", () => change([]))),
    near, drag, drop, changed,
    act: (point, i) => {
      const k = tools[kept.tool];
      if (k === null) { if (i !== null) change(without(i)); } else change([...points(), [...point, k]]);
    },
    keys: (middle) => ({
      ...Object.fromEntries(tools.map((k, i) => [k === null ? "e" : k < 0 ? "o" : String(k), () => choose(i)])),
      m: () => { // take hold of the point at the cross, or put it down
        if (held === null) held = near(view.toCanvas(middle()));
        else { drag(held, middle()); drop(); held = null; }
      },
      Delete: () => { const i = near(view.toCanvas(middle())); if (i !== null) change(without(i)); },
      "Ctrl+z": undo,
    }),
  };
}

/** A model for pages without a kernel, from the state that `LivingMap.still` gives: what `render` asks of a widget's. */
function still(state) {
  const listeners = {}, hear = (event, ...what) => (listeners[event] ?? []).slice().forEach((f) => f(...what));
  const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const tiles = state.tiles?.map((tile) => ({ ...tile, buffers: tile.buffers.map(bytes) }));
  return {
    hear,
    get: (name) => (name === "weights" ? bytes(state[name]) : name === "tiles" ? tiles : state[name]),
    set: (name, value) => { state[name] = value; hear(`change:${name}`); },
    on: (event, f) => (listeners[event] ??= []).push(f),
    off: (event, f) => { listeners[event] = listeners[event].filter((g) => g !== f); },
    save_changes: () => {},
    send: () => { throw new Error("there is no kernel"); },
  };
}

export default { render, still, unpack, forward, farAway, fields, differences, Slice, tileOf };
