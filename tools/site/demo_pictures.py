"""Draw the positions of a notebook's demos, for a page without a kernel.

This runs in the notebook's own kernel: `make_site` puts a cell with `watch` before the first cell and one with `save` after the
last. In between the notebook does what it always does, and every `widgets.Demo` and `widgets.LivingMap` that it shows is kept. A
living map is drawn by the page itself, so of it networks and sentences are kept, of as many positions as fit. The networks are
kept as they are: 16 bits a weight, with a scale per row, halve them, but of the 193,600 pixels of real networks' pictures up to
18 then change, along the borders of the colours, by up to 165 of 255.
"""

import base64
import hashlib
import io
import itertools
import json
import math
from pathlib import Path

import numpy as np
from IPython.display import display
from PIL import Image
from scipy.ndimage import maximum_filter

from ood_helpers import widgets

MARK = "application/x-demo-number"  # an output of this kind says which demo a cell shows
MOST = 100  # positions drawn of one demo
BYTES = 390_000  # of one demo's pictures together
MAP_BYTES = 600_000  # of one map with all that belongs to it
MARGIN = 3  # pixels around what differs
# the best first: figures are mostly flat, and few colours keep them sharp; fine textures take less room with losses
ENCODINGS = [("lossless", 96), ("lossless", 48), ("lossless", 24), ("lossy", 60), ("lossy", 40)]
shown = []


def watch():
    """From now on keep every demo and map that a cell shows, and note its number in the cell's outputs."""

    def noting(show):
        def note(demo):
            show(demo)
            display({MARK: str(len(shown))}, raw=True)
            shown.append(demo)

        return note

    for kind in (widgets.Demo, widgets.LivingMap):
        kind._ipython_display_ = noting(kind._ipython_display_)


def save(folder):
    """Write the pictures of all demos shown so far into `folder`, and demos.json, a list that describes one demo each."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = [
        kept(demo, number, folder) if isinstance(demo, widgets.LivingMap) else described(demo, number, folder)
        for number, demo in enumerate(shown)
    ]
    (folder / "demos.json").write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")


def kept(living, number, folder):
    """Write what a living map needs in the page, and describe it. Of its positions as many are kept as fit into MAP_BYTES.

    Two thirds are for the most important ones, see `wanted`; with the rest go those whose networks are lightest.

    map       number of the script with the map's state; None where not even the first position fits
    here, of  how many positions are kept, and how many there are
    weight    kilobytes of the first position's network in the page
    """
    spec, picture = living.spec, webp(living.picture())
    anchors = [tuple(preset["position"]) for preset in spec["presets"]] or [tuple(living.position)]
    sizes = [len(control["options"]) for control in spec["controls"]]
    every = wanted(sizes, anchors, math.prod(sizes))
    room = MAP_BYTES - len(picture) - len(compact(spec)) - 5_000
    here, networks, notes, files = [], set(), {}, {}
    lightest = sorted(every, key=lambda place: weight(spec, network_of(spec, place)))
    for place, spared in [*((place, room // 3) for place in every), *((place, 0) for place in lightest)]:
        i = network_of(spec, place)
        size = 0 if i in networks else weight(spec, i)
        if place in here or size > room - (spared if here else 0):
            continue
        note, file = slim(living._note(place)) if spec["speaks"] else ({}, b"")
        size += len(compact(note)) + 20 + len(file) * (file not in files)
        if size > room - (spared if here else 0):
            continue
        if file:
            note["picture"] = files[file] = files.get(file) or written(file, number, folder)
        here.append(place)
        networks.add(i)
        notes[",".join(map(str, place))] = note
        room -= size
    described = {
        "map": None,
        "here": len(here),
        "of": len(every),
        "weight": round(weight(spec, network_of(spec, every[0])) / 1000),
    }
    if every[0] in here:
        state = living.still(here) | {"notes": notes if spec["speaks"] else {}}
        (folder / f"map-{number}.js").write_text(f"oodMaps[{number}] = {compact(state)}", encoding="utf-8")
        described["map"] = number
    return described | {"sentence": living.words(), "picture": written(picture, number, folder)}


def network_of(spec, place):
    """The number of the network at a position: the control of the window does not choose it."""
    return spec["places"].get(",".join(str(k) for j, k in enumerate(place) if j != spec["zoomed"]))


def weight(spec, i):
    """Bytes of a network in base64, with its ring. What a kernel finds of a slice is too much for a page."""
    if spec["networks"][i]["slice"]:
        return MAP_BYTES
    sizes = spec["networks"][i]["sizes"]
    return sum((n + 1) * m for n, m in itertools.pairwise(sizes)) * (8 if spec["double"] else 4) * 4 // 3 + 200


def slim(note):
    """What a map says at a position, but for its figure, which comes as the bytes of a file (none: empty)."""
    note = dict(note)
    if "points" in note:
        note["points"] = [[float(f"{x:.4g}"), float(f"{y:.4g}"), k] for x, y, k in note["points"]]
    file = base64.b64decode(note.pop("picture", ",").split(",")[1])
    return note, file and encoded(np.asarray(Image.open(io.BytesIO(file)).convert("RGB")), None, "lossless", 24)


def webp(png):
    """The same picture in fewer bytes."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, "webp", lossless=True)
    return buffer.getvalue()


def compact(value):
    return json.dumps(value, separators=(",", ":"))


def options(control):
    """[(text, value), …] of a slider or a choice."""
    return [o if isinstance(o, tuple) else (str(o), o) for o in control.options]


def position(demo):
    """The present position of a demo: the number of the chosen option of each control."""
    return tuple([value for _, value in options(c)].index(c.value) for c in demo.controls.values())


def presets(demo):
    """name -> position, Reset first, found by pressing the buttons. Leaves the demo as it was first."""
    buttons = demo.box.children[1].children
    found = {}
    for button in buttons:
        button.click()
        found[button.description] = position(demo)
    buttons[0].click()
    return found


def wanted(sizes, anchors, most=MOST):
    """Positions worth drawing, the most important first: at most `most` of them, but all of `anchors`.

    sizes    number of options of each control
    anchors  positions of the presets, the default one first

    First come the anchors, then what one moved control leads to from the default position, and from each preset; then two.
    """

    def moves(position):
        return min((sum(a != b for a, b in zip(position, anchor, strict=True)), n) for n, anchor in enumerate(anchors))

    return sorted(itertools.product(*map(range, sizes)), key=moves)[: max(most, len(set(anchors)))]


def drawn(demo, chosen):
    """Sentence and pixels [height, width, 3] of a demo at a position. An error of the demo's `update` is raised."""
    values = {name: options(c)[k][1] for (name, c), k in zip(demo.controls.items(), chosen, strict=True)}
    sentence = demo.update(**values)
    demo._draw()
    return sentence, np.asarray(demo.figure.canvas.buffer_rgba())[..., :3].copy()


def changed(pixels, base, step):
    """Where a picture differs from `base`, as a mask [height, width], in whole squares of `step` pixels and with a margin.

    In the margin both are alike: a page that shrinks the two pictures blends them at the mask's edge, and nothing shines through.
    """
    height, width = pixels.shape[:2]
    differs = (pixels != base).any(-1)
    padded = np.pad(differs, ((0, -height % step), (0, -width % step)))
    squares = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step).any((1, 3))
    return maximum_filter(squares.repeat(step, 0).repeat(step, 1)[:height, :width], size=2 * MARGIN + 1)


def with_few_colors(pixels, n):
    """Pixels [m, 3] in the n colours that they have most often, each in the nearest one.

    Flat areas keep their colour exactly: what is laid over the first picture must not show as a patch.
    """
    codes = pixels.astype(np.int64) @ (65536, 256, 1)
    every, which, count = np.unique(codes, return_inverse=True, return_counts=True)
    colors = np.stack([every >> 16, every >> 8 & 255, every & 255], 1).astype(np.float32)
    palette = colors[np.argsort(-count, kind="stable")[:n]]
    squares = (colors**2).sum(1)[:, None] - 2 * colors @ palette.T + (palette**2).sum(1)
    return palette[squares.argmin(1)].astype(np.uint8)[which]


def encoded(pixels, base, kind, quality):
    """What of a picture differs from `base` (None: all of it), as the bytes of a WebP that is transparent elsewhere.

    kind, quality  "lossless" with so many colours, or "lossy" with a quality from 0 to 100
    """
    lossless, pixels = kind == "lossless", pixels.copy()
    mask = np.full(pixels.shape[:2], True) if base is None else changed(pixels, base, step=1 if lossless else 16)
    if lossless and mask.any():
        pixels[mask] = with_few_colors(pixels[mask], quality)
    image = Image.fromarray(np.dstack([pixels * mask[..., None], mask * np.uint8(255)]))
    buffer = io.BytesIO()
    image.save(buffer, "webp", lossless=lossless, quality=60 if lossless else quality, alpha_quality=100)
    return buffer.getvalue()


def fitting(pictures, base, most=BYTES):
    """As many of `pictures` (pixels, the most important first) as fit into `most` bytes, encoded as what differs from `base`.

    The first of ENCODINGS that leaves none out is taken, or else the one that leaves out fewest. Equal files count once.
    """
    best = []
    for encoding in ENCODINGS:
        kept, size, seen = [], 0, set()
        for pixels in pictures:
            file = encoded(pixels, base, *encoding)
            size += len(file) * (file not in seen)
            if size > most:
                break
            seen.add(file)
            kept.append(file)
        best = max(best, kept, key=len)
        if len(best) == len(pictures):
            break
    return best


def described(demo, number, folder):
    """Write the pictures of one demo, and describe it.

    base       the picture of the first position
    positions  "0-3-1" -> [what of the picture there differs from `base`, the sentence there], for every position that is kept
    of         the number of all positions
    """
    anchors = presets(demo)
    sizes = [len(options(c)) for c in demo.controls.values()]
    chosen = wanted(sizes, list(anchors.values()))
    pictures = [drawn(demo, c) for c in chosen]
    first = pictures[0][1]
    base = encoded(first, None, *ENCODINGS[0])
    files = fitting([pixels for _, pixels in pictures], first, BYTES - len(base))
    kept = {}
    for at, (sentence, _), file in zip(chosen, pictures, files, strict=False):
        kept["-".join(map(str, at))] = [written(file, number, folder), sentence]
    controls = [
        {
            "label": c.description,
            "tip": c.tooltip,
            "kind": "choice" if type(c).__name__ == "Dropdown" else "slider",
            "options": [text for text, _ in options(c)],
        }
        for c in demo.controls.values()
    ]
    return {
        "controls": controls,
        "presets": anchors,
        "positions": kept,
        "of": math.prod(sizes),
        "base": written(base, number, folder),
        "width": first.shape[1],
        "height": first.shape[0],
    }


def written(file, number, folder):
    """Write a picture under a name of its own, and return the name."""
    name = f"{number}-{hashlib.sha256(file).hexdigest()[:12]}.webp"
    (folder / name).write_bytes(file)
    return name
