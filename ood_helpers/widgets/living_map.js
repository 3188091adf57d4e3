// The living map: a ReLU network with two inputs, drawn exactly, in the page.
//
// A row of pixels is a straight line x = (x0 + dx·t, y). Along it every pre-activation of the first layer is slope·t + offset. A
// neuron changes sign at most once, so the row falls into pieces; from one piece to the next the second layer's slopes and offsets
// change by a multiple of one column of its weights. The same happens inside each piece with the second layer, and so on: at the
// last layer each piece is a straight line, read at its pixels' centres. Nothing is sampled, nothing is approximated.
//
// The file has four parts: 1 the network, 2 colours, 3 the view (zoom, pan, point, rays), 4 the widget around it (controls, text).

// ---- 1. the network ------------------------------------------------------------------------------------------------------------

/** A network from its layers' sizes [d, n, …, K], one leak per hidden layer, and its numbers: W (row by row), then b, layer by layer. */
function unpack(sizes, leaks, numbers) {
  let at = 0;
  const take = (n) => Float64Array.from(numbers.subarray(at, (at += n)));
  const layers = [];
  for (let l = 1; l < sizes.length; l++) {
    const [n, m] = [sizes[l - 1], sizes[l]];
    const weight = take(n * m), bias = take(m), columns = new Float64Array(n * m);
    for (let j = 0; j < m; j++) for (let i = 0; i < n; i++) columns[i * m + j] = weight[j * n + i];
    layers.push({ n, m, weight, bias, columns, leak: l < sizes.length - 1 ? leaks[l - 1] : 1 });
  }
  return { layers, sizes, outputs: sizes[sizes.length - 1] };
}

/** The logits at one point [x, y]. */
function forward(network, point) {
  let h = point;
  for (const { n, m, weight, bias, leak } of network.layers) {
    const z = Float64Array.from(bias);
    for (let j = 0; j < m; j++) {
      for (let i = 0; i < n; i++) z[j] += weight[j * n + i] * h[i];
      if (z[j] < 0) z[j] *= leak;
    }
    h = z;
  }
  return Array.from(h);
}

const softmax = (logits) => {
  const top = Math.max(...logits), e = logits.map((f) => Math.exp(f - top)), sum = e.reduce((a, b) => a + b);
  return e.map((v) => v / sum);
};

/**
 * Infinitely far away in direction u the logits are α·slope + offset: who leads there, and the confidence that remains.
 * A sum that is nothing but the rounding of its terms counts as 0; where a neuron's slope is 0 its offset decides whether it is on.
 */
function farAway(network, u) {
  let a = u, c = [0, 0], sizeA = [0, 0];
  for (const { n, m, weight, bias, leak } of network.layers) {
    const slope = new Float64Array(m), offset = Float64Array.from(bias), size = new Float64Array(m);
    for (let j = 0; j < m; j++) {
      for (let i = 0; i < n; i++) {
        const w = weight[j * n + i];
        slope[j] += w * a[i]; offset[j] += w * c[i]; size[j] += Math.abs(w * a[i]);
      }
      if (Math.abs(slope[j]) <= 1e-13 * size[j]) slope[j] = 0;
      if (slope[j] < 0 || (slope[j] === 0 && offset[j] <= 0)) { slope[j] *= leak; offset[j] *= leak; }
    }
    [a, c, sizeA] = [slope, offset, size];
  }
  const top = Math.max(...a), best = a.indexOf(top);
  const leaders = Array.from(a, (v, k) => k).filter((k) => top - a[k] <= 1e-13 * (sizeA[best] + sizeA[k]));
  const limit = Math.max(...softmax(leaders.map((k) => c[k])));
  return { winner: leaders[0], tie: leaders.length > 1, leaders, limit };
}

/** Draws rows of one network: `row(x0, dx, y, logits, pattern)` fills K logits per pixel, and a code of the active neurons. */
class Rows {
  constructor(network, width) {
    this.network = network;
    this.width = width;
    const hidden = network.sizes.slice(1);
    this.slope = hidden.map((n) => new Float64Array(n));
    this.offset = hidden.map((n) => new Float64Array(n));
    this.first = hidden.map(() => new Int32Array(width).fill(-1)); // the first neuron that changes at a pixel …
    this.next = hidden.map((n) => new Int32Array(n)); // … and the one after it
    this.on = hidden.map((n) => new Uint8Array(n));
    let key = 0x9e3779b9; // a random number per neuron: the xor of the active ones names a polytope
    this.keys = hidden.map((n) => Int32Array.from({ length: n }, () => (key = Math.imul(key ^ (key >>> 15), 0x2c1b3c6d) + 0x85ebca6b | 0)));
  }

  row(x0, dx, y, logits, pattern) {
    const { m, weight, bias } = this.network.layers[0];
    for (let j = 0; j < m; j++) {
      this.slope[0][j] = weight[2 * j] * dx;
      this.offset[0][j] = weight[2 * j] * x0 + weight[2 * j + 1] * y + bias[j];
    }
    this.piece(0, 0, this.width, 0, logits, pattern);
  }

  /** Pixels from … to − 1, on which layer l's pre-activations are slope·t + offset. */
  piece(l, from, to, code, logits, pattern) {
    const layers = this.network.layers, last = l === layers.length - 1;
    const slope = this.slope[l], offset = this.offset[l], n = layers[l].m;
    if (last) {
      for (let t = from, i = from * n; t < to; t++) for (let k = 0; k < n; k++) logits[i++] = slope[k] * t + offset[k];
      if (pattern) pattern.fill(code, from, to);
      return;
    }
    const { columns, bias, m } = layers[l + 1], leak = layers[l].leak;
    const slope2 = this.slope[l + 1], offset2 = this.offset[l + 1];
    const first = this.first[l], next = this.next[l], on = this.on[l], keys = this.keys[l];
    slope2.fill(0);
    offset2.set(bias);
    for (let j = 0; j < n; j++) {
      const a = slope[j], c = offset[j], active = a * from + c > 0, later = a * (to - 1) + c > 0;
      on[j] = active ? 1 : 0;
      if (active) code ^= keys[j];
      const gain = active ? 1 : leak;
      if (gain !== 0) add(slope2, offset2, columns, j * m, m, gain * a, gain * c);
      if (active !== later) { // it changes at one pixel between: the first at which the new sign holds
        let t = Math.min(Math.max(Math.ceil(-c / a), from + 1), to - 1);
        while (t > from + 1 && (a * (t - 1) + c > 0) === later) t--;
        while (t < to - 1 && (a * t + c > 0) !== later) t++;
        next[j] = first[t];
        first[t] = j;
      }
    }
    let begin = from;
    for (let t = from + 1; t < to; t++) {
      if (first[t] < 0) continue;
      this.piece(l + 1, begin, t, code, logits, pattern);
      for (let j = first[t]; j >= 0; j = next[j]) {
        const turn = on[j] ? leak - 1 : 1 - leak;
        add(slope2, offset2, columns, j * m, m, turn * slope[j], turn * offset[j]);
        code ^= keys[j];
      }
      first[t] = -1;
      begin = t;
    }
    this.piece(l + 1, begin, to, code, logits, pattern);
  }
}

function add(slope, offset, columns, at, m, a, c) {
  for (let k = 0; k < m; k++) {
    const w = columns[at + k];
    slope[k] += w * a;
    offset[k] += w * c;
  }
}

/** All logits [height·width·K] of a window, row 0 on top, pixel centres; and the polytopes' codes. */
function fields(network, { x, y, half }, width, height) {
  const step = (2 * half) / width, rows = new Rows(network, width), k = network.outputs;
  const logits = new Float64Array(width * height * k), pattern = new Int32Array(width * height);
  for (let r = 0; r < height; r++) {
    rows.row(x - half + step / 2, step, y + (height / 2 - r - 0.5) * step,
      logits.subarray(r * width * k, (r + 1) * width * k), pattern.subarray(r * width, (r + 1) * width));
  }
  return { logits, pattern };
}

// ---- 2. colours ----------------------------------------------------------------------------------------------------------------

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const pixel = ([r, g, b]) => ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;

/** A function from the logits at place i of an array to a pixel. `look` = {kind, bands, limits, classes, reject}. */
function painter(look, outputs) {
  const bands = look.bands.map((c) => pixel(rgb(c))), classes = look.classes.map((c) => pixel(rgb(c)));
  const [low, high] = look.limits, inside = outputs - (look.reject ? 1 : 0);
  return (f, i) => {
    let best = 0;
    for (let k = 1; k < outputs; k++) if (f[i + k] > f[i + best]) best = k;
    if (look.kind === "classes" || best >= inside) return classes[best];
    let sum = 0;
    for (let k = 0; k < outputs; k++) sum += Math.exp(f[i + k] - f[i + best]);
    return bands[sum * high < 1 ? 2 : sum * low < 1 ? 1 : 0]; // the confidence is 1 / sum
  };
}

// ---- 3. the view ---------------------------------------------------------------------------------------------------------------

const MARGIN = { left: 58, right: 14, top: 14, bottom: 46 }, RING = 9; // in CSS pixels
const ZOOM = { least: 1e-2, most: 1e6 };

class View {
  constructor(canvas, spec, changed) {
    Object.assign(this, { canvas, spec, changed, network: null, ring: null, edges: false, ray: null, pointer: null, job: 0 });
    this.window = { ...spec.window };
    this.context = canvas.getContext("2d");
    this.context.imageSmoothingEnabled = false;
  }

  /** Sizes in device pixels: `side` of the square map, `scale` device pixels per CSS pixel. */
  fit(cssWidth) {
    const scale = window.devicePixelRatio || 1;
    const side = Math.max(120, Math.min(cssWidth - MARGIN.left - MARGIN.right - 2 * RING, this.spec.size));
    this.scale = scale;
    this.side = Math.round(side * scale);
    const [w, h] = [side + MARGIN.left + MARGIN.right + 2 * RING, side + MARGIN.top + MARGIN.bottom + 2 * RING];
    Object.assign(this.canvas.style, { width: `${w}px`, height: `${h}px` });
    this.canvas.width = Math.round(w * scale);
    this.canvas.height = Math.round(h * scale);
    this.left = Math.round((MARGIN.left + RING) * scale);
    this.top = Math.round((MARGIN.top + RING) * scale);
    this.image = new ImageData(this.side, this.side);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.rows = null;
    this.draw();
  }

  show(network, ring) {
    if (this.network !== network) this.rows = null;
    Object.assign(this, { network, ring });
    this.draw();
  }

  /** Paint every fourth row at once, then the rows between while there is time, a slice per frame. */
  draw() {
    const job = ++this.job;
    if (!this.network || !this.side) return;
    const { side, network, spec } = this, k = network.outputs;
    this.rows ??= new Rows(network, side);
    this.paint = painter(spec.look, k);
    const order = [];
    for (let r = 0; r < side; r += 4) order.push([r, 4]);
    for (let r = 0; r < side; r++) if (r % 4) order.push([r, 1]);
    const logits = new Float64Array(side * k), codes = [new Int32Array(side), new Int32Array(side)];
    let next = 0;
    const slice = (budget) => {
      if (job !== this.job) return;
      const end = performance.now() + budget;
      while (next < order.length && (next < side / 4 || performance.now() < end)) this.oneRow(...order[next++], logits, codes[0]);
      if (next === order.length && this.edges) this.drawEdges(codes, logits);
      this.context.putImageData(this.image, this.left, this.top);
      this.decorate();
      this.frames = (this.frames ?? 0) + 1;
      if (next < order.length) requestAnimationFrame(() => slice(24));
      else { this.done = job; this.canvas.dataset.drawn = String(job); }
    };
    slice(12);
  }

  line(r) {
    const { x, y, half } = this.window, step = (2 * half) / this.side;
    return [x - half + step / 2, step, y + half - (r + 0.5) * step];
  }

  oneRow(r, height, logits, codes) {
    const { side, pixels, paint } = this, k = this.network.outputs;
    this.rows.row(...this.line(r), logits, codes);
    for (let t = 0, at = r * side, i = 0; t < side; t++, i += k) pixels[at++] = paint(logits, i);
    for (let copy = 1; copy < height && r + copy < side; copy++) pixels.copyWithin((r + copy) * side, r * side, (r + 1) * side);
  }

  /** Where a pixel's polytope is not that of the pixel to its left or above, there is an edge. Crowds of edges stay away. */
  drawEdges(codes, logits) {
    const { side, pixels } = this, found = [];
    for (let r = 0; r < side; r++) {
      const [now, before] = r % 2 ? codes : [codes[1], codes[0]];
      this.rows.row(...this.line(r), logits, now);
      for (let t = 1; t < side; t++) if (now[t] !== now[t - 1] || (r && now[t] !== before[t])) found.push(r * side + t);
    }
    if (found.length < 0.35 * side * side) for (const at of found) pixels[at] = 0xffffffff;
  }

  // -- places: device pixels of the canvas and points of the plane --
  toPlane(px, py) {
    const { x, y, half } = this.window;
    return [x - half + ((px - this.left) / this.side) * 2 * half, y + half - ((py - this.top) / this.side) * 2 * half];
  }

  toCanvas([px, py]) {
    const { x, y, half } = this.window;
    return [this.left + ((px - x + half) / (2 * half)) * this.side, this.top + ((y + half - py) / (2 * half)) * this.side];
  }

  /** Everything around and upon the map: axes, the ring of directions, discs, points, the ray. */
  decorate() {
    const c = this.context, { side, left, top, scale } = this, ring = RING * scale, css = getComputedStyle(this.canvas);
    const ink = css.color || "black";
    c.save();
    c.beginPath();
    c.rect(0, 0, this.canvas.width, this.canvas.height);
    c.rect(left, top, side, side);
    c.clip("evenodd");
    c.clearRect(0, 0, this.canvas.width, this.canvas.height);
    c.restore();
    if (this.ring) this.drawRing(ring);
    this.drawAxes(ink);
    c.save();
    c.beginPath();
    c.rect(left, top, side, side);
    c.clip();
    for (const { x, y, k } of this.spec.points ?? []) this.marker([x, y], k);
    (this.spec.discs ?? []).forEach((disc, k) => this.drawDisc(disc, k));
    if (this.ray) this.drawRay();
    if (this.pointer) this.cross(this.pointer, ink);
    c.restore();
  }

  drawRing(thick) {
    const c = this.context, { left, top, side } = this, middle = [left + side / 2, top + side / 2], far = side * 2;
    c.save();
    c.beginPath();
    c.rect(left - thick, top - thick, side + 2 * thick, side + 2 * thick);
    c.rect(left - 1, top - 1, side + 2, side + 2);
    c.clip("evenodd");
    const { start, who } = this.ring;
    start.forEach((angle, i) => {
      const width = (i + 1 < start.length ? start[i + 1] : start[0] + 2 * Math.PI) - angle;
      c.fillStyle = who[i] < 0 ? "black" : this.spec.look.full[who[i]];
      c.beginPath();
      c.moveTo(...middle);
      c.arc(...middle, far, -angle, -(angle + width + 2e-3), true);
      c.fill();
    });
    c.restore();
  }

  drawAxes(ink) {
    const c = this.context, { left, top, side, scale } = this, { x, y, half } = this.window, gap = (RING + 4) * scale;
    c.fillStyle = c.strokeStyle = ink;
    c.font = `${13 * scale}px sans-serif`;
    const step = niceStep((2 * half) / 5), digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const label = (v) => (Math.abs(v) >= 1e6 || (step < 1e-5 && v) ? v.toExponential(1) : v.toFixed(Math.min(digits, 12))).replace("-", "−");
    c.textAlign = "center";
    c.textBaseline = "top";
    for (let v = Math.ceil((x - half) / step) * step; v <= x + half * (1 + 1e-9); v += step) {
      const at = this.toCanvas([v, y])[0];
      c.fillRect(at, top + side + RING * scale, scale, 4 * scale);
      c.fillText(label(Math.abs(v) < step / 1e6 ? 0 : v), at, top + side + gap);
    }
    c.textAlign = "right";
    c.textBaseline = "middle";
    for (let v = Math.ceil((y - half) / step) * step; v <= y + half * (1 + 1e-9); v += step) {
      const at = this.toCanvas([x, v])[1];
      c.fillRect(left - (RING + 4) * scale, at, 4 * scale, scale);
      c.fillText(label(Math.abs(v) < step / 1e6 ? 0 : v), left - (RING + 6) * scale, at);
    }
    c.textAlign = "center";
    c.textBaseline = "bottom";
    c.fillText("x₁", left + side / 2, top + side + (MARGIN.bottom + RING - 6) * scale);
    c.save();
    c.translate(14 * scale, top + side / 2);
    c.rotate(-Math.PI / 2);
    c.fillText("x₂", 0, 0);
    c.restore();
  }

  drawDisc({ x, y, r }, k) {
    const c = this.context, [px, py] = this.toCanvas([x, y]), radius = (r / (2 * this.window.half)) * this.side;
    for (const [style, width] of [["white", 5], [this.spec.look.full[k], 2.5]]) {
      c.strokeStyle = style;
      c.lineWidth = width * this.scale;
      c.beginPath();
      c.arc(px, py, Math.min(radius, 1e5), 0, 2 * Math.PI);
      c.stroke();
    }
  }

  /** A point with the marker of its class: colour and shape; k < 0 is OOD. */
  marker(point, k) {
    const c = this.context, [x, y] = this.toCanvas(point), s = 3.2 * this.scale;
    c.fillStyle = c.strokeStyle = k < 0 ? "black" : this.spec.look.full[k];
    c.lineWidth = 1.2 * this.scale;
    c.beginPath();
    if (k < 0) { c.moveTo(x - s, y - s); c.lineTo(x + s, y + s); c.moveTo(x - s, y + s); c.lineTo(x + s, y - s); c.stroke(); return; }
    if (k % 4 === 0) c.arc(x, y, s, 0, 7);
    if (k % 4 === 1) c.rect(x - s, y - s, 2 * s, 2 * s);
    if (k % 4 === 2) { c.moveTo(x, y - s); c.lineTo(x + s, y + s); c.lineTo(x - s, y + s); }
    if (k % 4 === 3) { c.moveTo(x, y - s); c.lineTo(x + s, y); c.lineTo(x, y + s); c.lineTo(x - s, y); }
    c.fill();
  }

  drawRay() {
    const c = this.context, [u, v] = this.ray, [x, y] = this.toCanvas([0, 0]), far = 1e3 * this.side / Math.hypot(u, v);
    for (const [style, width] of [["white", 5], ["#D55E00", 2.5]]) {
      c.strokeStyle = style;
      c.lineWidth = width * this.scale;
      c.beginPath();
      c.moveTo(x, y);
      c.lineTo(x + u * far, y - v * far);
      c.stroke();
    }
  }

  cross(point, ink) {
    const c = this.context, [x, y] = this.toCanvas(point), s = 7 * this.scale;
    for (const [style, width] of [["white", 4], [ink, 1.5]]) {
      c.strokeStyle = style;
      c.lineWidth = width * this.scale;
      c.strokeRect(x - s / 2, y - s / 2, s, s);
    }
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
    this.window = to;
    this.changed();
    this.soon();
  }

  /** One picture per frame, however many events there are. */
  soon() {
    this.waiting ??= requestAnimationFrame(() => { this.waiting = null; this.draw(); });
  }
}

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((m) => m * power >= rough * (1 - 1e-9));
}

// ---- 4. the widget -------------------------------------------------------------------------------------------------------------

const STYLE = `
.ood-map { --ink: var(--jp-ui-font-color1, #222); color: var(--ink); font: 15px/1.4 var(--jp-ui-font-family, sans-serif); max-width: 100%; }
.ood-map .row { display: flex; flex-wrap: wrap; gap: 4px 18px; align-items: center; margin: 2px 0; }
.ood-map label { display: inline-flex; gap: 6px; align-items: center; }
.ood-map input[type=range] { width: 11em; } .ood-map output { min-width: 3.2em; }
.ood-map button, .ood-map select { font: inherit; color: #111; background: #eee; border: 1px solid #888; border-radius: 3px; padding: 2px 8px; }
.ood-map canvas { display: block; touch-action: none; outline-offset: -2px; cursor: crosshair; color: var(--ink); }
.ood-map .key { display: flex; flex-wrap: wrap; gap: 0 12px; font-size: 90%; }
.ood-map .key i { display: inline-block; width: 12px; height: 12px; border: 1px solid #777; margin-right: 4px; vertical-align: -1px; }
.ood-map .here { min-height: 1.4em; font-variant-numeric: tabular-nums; font-size: 95%; }
.ood-map .said { font-size: 110%; max-width: 56em; min-height: 2.8em; margin: 2px 0; }`;

const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

/**
 * Draw the widget's state in `el`. The state (a widget model, or `still` below):
 * spec        what does not change: controls, presets, networks' shapes, look, discs, points, window, title
 * weights     bytes, float32: every network's numbers, one after another
 * position    the controls' places, one whole number each · window {x, y, half} · sentences {place: text}
 */
function render({ model, el }) {
  const spec = model.get("spec"), bytes = model.get("weights");
  const numbers = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  const networks = spec.networks.map(() => null);
  const network = (i) => {
    const { sizes, leaks, at, count } = spec.networks[i];
    return (networks[i] ??= unpack(sizes, leaks, numbers.subarray(at, at + count)));
  };
  const root = element("div", { className: "ood-map" });
  const canvas = element("canvas", { tabIndex: 0 });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", spec.title);
  const here = element("div", { className: "here" }), said = element("p", { className: "said" });
  said.setAttribute("role", "status");
  said.setAttribute("aria-live", "polite");
  const view = new View(canvas, spec, () => { model.set("window", view.window); model.save_changes(); });
  view.window = { ...model.get("window") };

  // controls
  const setPosition = (position) => { model.set("position", position); model.save_changes(); };
  const fieldsOf = spec.controls.map((control, i) => {
    const many = control.kind === "slider";
    const field = many
      ? element("input", { type: "range", min: 0, max: control.options.length - 1, step: 1 })
      : element("select", {}, ...control.options.map((text, v) => element("option", { value: v, textContent: text })));
    const text = element("output");
    field.title = control.tooltip;
    field.addEventListener(many ? "input" : "change", () => {
      setPosition(model.get("position").map((old, j) => (j === i ? Number(field.value) : old)));
    });
    const row = element("label", {}, control.label, field, ...(many ? [text] : []));
    return { row, set: (v) => { field.value = v; text.value = control.options[v]; field.setAttribute("aria-valuetext", control.options[v]); } };
  });
  const presets = spec.presets.map(({ name, position, window: to }) => {
    const button = element("button", { type: "button", textContent: name });
    button.addEventListener("click", () => {
      view.ray = view.pointer = null;
      if (to) view.move({ ...to });
      setPosition([...position]);
      view.soon();
    });
    return button;
  });
  const edges = element("input", { type: "checkbox" });
  edges.addEventListener("change", () => { view.edges = edges.checked; view.draw(); });
  const tools = element("label", {}, edges, "polytopes");
  const key = element("div", { className: "key" }, ...spec.key.map(([color, name]) => {
    const patch = element("i");
    patch.style.background = color;
    return element("span", {}, patch, name);
  }));
  root.append(element("style", { textContent: STYLE }), element("div", { className: "row" }, ...fieldsOf.map((f) => f.row)),
    element("div", { className: "row" }, ...presets, tools), canvas, key, here, said);
  // JupyterLab takes keys for its cells, and the arrow keys of sliders with them
  root.addEventListener("keydown", (event) => event.stopPropagation());

  // what stands there for the present state
  const place = () => model.get("position").join(",");
  const describe = () => {
    said.textContent = model.get("sentences")[place()] ?? (spec.speaks ? "…" : "");
    const ringed = view.pointer;
    if (!ringed) { here.textContent = spec.hint; return; }
    const logits = forward(view.network, ringed), p = softmax(logits), best = logits.indexOf(Math.max(...logits));
    const short = (v) => String(Number(v.toPrecision(4))).replace("-", "−");
    const far = view.ray ? farAway(view.network, view.ray) : null;
    here.textContent = `(${ringed.map(short).join(", ")}): ${spec.names[best]}, confidence ${p[best].toFixed(4)}, logits ${logits.map(short).join(" · ")}`
      + (!far ? "" : ` — far along the ray ${far.tie ? `a tie of ${far.leaders.map((k) => spec.names[k]).join(", ")}` : `k* = ${spec.names[far.winner]}`}, limit ${far.limit.toFixed(4)}`);
  };
  const update = () => {
    model.get("position").forEach((v, i) => fieldsOf[i].set(v));
    const i = spec.places[place()];
    view.show(network(i), spec.rings[i]);
    describe();
  };

  // pointers: one drags or points, two pinch
  const down = new Map();
  let moved = 0, pinch = null;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * view.scale, (event.clientY - box.top) * view.scale];
  };
  const inMap = ([px, py]) => px >= view.left && py >= view.top && px < view.left + view.side && py < view.top + view.side;
  const perPixel = () => (2 * view.window.half) / view.side;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, at(event));
    moved = down.size > 1 ? 99 : 0;
    const two = [...down.values()];
    if (two.length === 2) pinch = Math.hypot(two[0][0] - two[1][0], two[0][1] - two[1][1]);
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = at(event), old = down.get(event.pointerId);
    if (old) {
      down.set(event.pointerId, now);
      const two = [...down.values()];
      if (two.length === 2) {
        const apart = Math.hypot(two[0][0] - two[1][0], two[0][1] - two[1][1]);
        view.zoom(pinch / Math.max(apart, 1), view.toPlane((two[0][0] + two[1][0]) / 2, (two[0][1] + two[1][1]) / 2));
        pinch = Math.max(apart, 1);
      } else {
        moved += Math.hypot(now[0] - old[0], now[1] - old[1]);
        if (moved > 3 * view.scale) view.pan(-(now[0] - old[0]) * perPixel(), (now[1] - old[1]) * perPixel());
      }
      return;
    }
    if (!view.ray && event.pointerType === "mouse") {
      view.pointer = inMap(now) ? view.toPlane(...now) : null;
      view.decoratedSoon ??= requestAnimationFrame(() => { view.decoratedSoon = null; redecorate(); });
      describe();
    }
  });
  const redecorate = () => { view.context.putImageData(view.image, view.left, view.top); view.decorate(); };
  const cast = (point) => {
    view.pointer = point;
    view.ray = point && Math.hypot(...point) > 0 ? point : null;
    redecorate();
    describe();
  };
  const up = (event) => {
    const there = down.get(event.pointerId);
    down.delete(event.pointerId);
    if (event.type === "pointerup" && there && moved <= 3 * view.scale) cast(inMap(there) && !view.ray ? view.toPlane(...there) : null);
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => { if (!view.ray && view.pointer) { view.pointer = null; redecorate(); describe(); } });
  // the page scrolls unless the map has been chosen, or Ctrl is held
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey) return;
    event.preventDefault();
    view.zoom(1.2 ** Math.sign(event.deltaY), view.toPlane(...at(event)));
  }, { passive: false });
  const home = () => { view.ray = view.pointer = null; view.move({ ...spec.window }); describe(); };
  canvas.addEventListener("dblclick", home);
  canvas.addEventListener("keydown", (event) => {
    const step = view.window.half / 8;
    const act = {
      ArrowLeft: () => view.pan(-step, 0), ArrowRight: () => view.pan(step, 0), ArrowUp: () => view.pan(0, step), ArrowDown: () => view.pan(0, -step),
      "+": () => view.zoom(1 / 1.25), "=": () => view.zoom(1 / 1.25), "-": () => view.zoom(1.25), Home: home,
      Enter: () => cast(view.ray ? null : [view.window.x, view.window.y]), Escape: () => cast(null),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  model.on("change:position", update);
  model.on("change:sentences", describe);
  model.on("change:window", () => {
    const to = model.get("window");
    if (["x", "y", "half"].some((name) => to[name] !== view.window[name])) { view.window = { ...to }; view.soon(); }
  });
  el.append(root);
  let width = 0;
  const sized = new ResizeObserver(() => {
    const now = Math.floor(root.clientWidth);
    if (now && now !== width) { width = now; view.fit(width); update(); }
  });
  sized.observe(root);
  root.oodView = view; // for tests
  return () => { sized.disconnect(); view.job++; };
}

/** A model for pages without a kernel: what `render` asks of a widget's. */
function still(state) {
  const listeners = {};
  return {
    get: (name) => state[name],
    set: (name, value) => { state[name] = value; (listeners[`change:${name}`] ?? []).forEach((f) => f()); },
    on: (name, f) => (listeners[name] ??= []).push(f),
    save_changes: () => {},
  };
}

export default { render, still, unpack, forward, farAway, fields };
