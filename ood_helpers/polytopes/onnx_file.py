"""Networks in ONNX files, the format in which people exchange them, as torch modules. Needs the package `onnx` (extra `onnx`)."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional as F

_SHAPES = ("Shape", "Size")  # operators whose answer depends on no number
_RANDOM = ("Random", "Bernoulli", "Multinomial")  # how operators begin whose answer is another one each time
_CHECKED = 2  # points at which a file's own definition is evaluated beside the module


def onnx(path: str | Path, shape: Sequence[int] | None = None) -> "OnnxNetwork":
    """The network of an ONNX file as an nn.Module that every function here takes. Its `input_shape` is that of one input.

    shape  of one input, without the batch, where the file leaves it open
    What the module computes is compared with what the standard says (onnx.reference) at two points.
    Raises ImportError without the package `onnx`, and ValueError that names the node or tensor for files with several inputs or
    outputs, operators that are not known here, and sizes that are not given.
    """
    try:
        import onnx as package
        from onnx.reference import ReferenceEvaluator
        from onnx.reference.op_run import OpRun
    except ImportError as error:
        raise ImportError("reading ONNX files needs the package onnx: pip install 'ood_helpers[onnx]'") from error
    path = Path(path)
    content = path.read_bytes()
    try:
        file = package.load_model_from_string(content)
    except Exception as error:  # protobuf has errors of its own
        raise ValueError(f"{path} is no ONNX file; if it is compressed (.gz), unpack it first: gunzip {path.name}") from error
    try:
        package.external_data_helper.load_external_data_for_model(file, str(path.parent))
    except Exception as error:
        raise ValueError(f"{path}: its weights lie in files of their own beside it, which cannot be read: {error}") from error
    _sort(file.graph)
    model = OnnxNetwork(file, package, shape)
    steps = np.random.default_rng(0).integers(-8, 9, size=(_CHECKED, *model.fed_shape)) / 8

    class BatchNormalization(OpRun):  # the evaluator's own takes old files to be in training
        def _run(self, x, scale, bias, mean, var, epsilon=1e-5, **_):
            scale, bias, mean, var = (v.reshape(-1, *[1] * (x.ndim - 2)) for v in (scale, bias, mean, var))
            return ((x - mean) / np.sqrt(var + epsilon) * scale + bias,)

    for x in steps.astype(np.float32):
        try:
            with np.errstate(all="ignore"):
                wanted = ReferenceEvaluator(file, new_ops=[BatchNormalization]).run(None, {model.fed: x})[0].ravel()
        except Exception as error:  # whatever an evaluator of many operators raises
            raise ValueError(
                f"{path}: the package onnx cannot run it, so that nothing tells what it computes: {error}"
            ) from error
        with torch.no_grad():
            got = model(torch.from_numpy(x).reshape(1, *model.input_shape)).numpy().ravel()
        known = np.isfinite(wanted)
        room = 1e-3 * np.abs(wanted[known]) + 1e-4 * max(1, np.abs(wanted[known]).max(initial=0))
        if got.shape != wanted.shape or not (np.abs(got[known] - wanted[known]) <= room).all():
            raise ValueError(
                f"{path}: what was read is not what the file computes; its operators are used in a way not known here"
            )
    return model


def _sort(graph):
    """Put each node behind those that it needs: not every file does."""
    known = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer} | {""}
    ordered, left = [], list(graph.node)
    while left:
        ready = [node for node in left if known.issuperset(node.input)]
        if not ready:
            raise ValueError(f"node {left[0].name or left[0].output[0]} ({left[0].op_type}): its inputs are nowhere computed")
        ordered += ready
        known.update(name for node in ready for name in node.output)
        left = [node for node in left if not known.issuperset(node.output)]
    del graph.node[:]
    graph.node.extend(ordered)


class OnnxNetwork(nn.Module):
    """The nodes of an ONNX graph one after another, for one input at a time: files often fix the batch. x [n, *input_shape]

    Whatever does not depend on the numbers of the input is computed once, by the standard's own evaluator.
    """

    def __init__(self, file, package, shape):
        super().__init__()
        self.constants, self.nodes, self.shapes, graph = {}, [], {}, file.graph
        for tensor in graph.initializer:
            self._keep(tensor.name, package.numpy_helper.to_array(tensor))
        inputs = [value for value in graph.input if value.name not in self.constants]
        if len(inputs) != 1 or len(graph.output) != 1:
            names = [value.name for value in (inputs if len(inputs) != 1 else graph.output)]
            raise ValueError(
                f"the network must have one input and one output; it has {', '.join(names)}. Export it with one of them, or cut "
                "that part out of the file: onnx.utils.extract_model(file, new_file, [input], [output])"
            )
        self.fed, self.answer = inputs[0].name, graph.output[0].name
        self.fed_shape, self.input_shape = _shapes(inputs[0], shape)
        values, changing = {"": None, self.fed: torch.zeros(self.fed_shape)}, {self.fed}
        for node in graph.node:
            given = {name: values[name] if name in values else getattr(self, self.constants[name]) for name in node.input}
            if node.op_type in _SHAPES or (changing.isdisjoint(node.input) and not node.op_type.startswith(_RANDOM)):
                for name, array in zip(node.output, _constant(node, given, file, package), strict=True):
                    self._keep(name, array)
                continue
            options = {a.name: package.helper.get_attribute_value(a) for a in node.attribute}
            options = {key: value.decode() if isinstance(value, bytes) else value for key, value in options.items()}
            self.nodes.append((node.op_type, _shown(node), list(node.input), list(node.output), options))
            self.shapes |= {name: tuple(value.shape) for name, value in given.items() if value is not None}
            with torch.no_grad():
                values |= self._step(self.nodes[-1], given)
            changing.update(node.output)
        self.eval()

    def _keep(self, name, array):
        key = f"constant_{len(self.constants)}"
        array = np.array(array)  # a copy that can be written to
        if array.dtype.kind not in "fiub":
            raise ValueError(f"constant {name} holds {array.dtype}, no numbers")
        self.register_buffer(key, torch.from_numpy(array.astype(np.float32) if array.dtype.kind == "f" else array))
        self.constants[name] = key

    def forward(self, x):
        if isinstance(x, fx.Proxy) or len(x) == 1:
            return self._run(x)
        return torch.cat([self._run(one[None]) for one in x])

    def _run(self, x):
        values = {"": None} | {name: getattr(self, key) for name, key in self.constants.items()}
        values[self.fed] = x.reshape(self.fed_shape) if self.fed_shape != (1, *self.input_shape) else x
        for node in self.nodes:
            if isinstance(x, fx.Proxy):
                x.tracer.within = node[1]
            values |= self._step(node, values)
        answer = values[self.answer]
        return answer.reshape(1, -1)

    def _step(self, node, values):
        """The outputs of a node by their names."""
        kind, shown, inputs, outputs, options = node
        if kind not in _OPERATORS:
            raise ValueError(
                f"{shown} is not understood; docs/your_network.md lists the operators that are. Write it with these, or cut the "
                "file before it: onnx.utils.extract_model(file, new_file, [input], [output])"
            )
        sizes = [self.shapes.get(key) for key in inputs]
        try:
            found = _OPERATORS[kind](_Node(sizes, options, len(outputs)), *(values[key] for key in inputs))
        except (KeyError, TypeError, RuntimeError, IndexError, AttributeError) as error:
            raise ValueError(f"{shown} is not understood: {type(error).__name__}: {error}") from error
        return dict(zip(outputs, found if isinstance(found, tuple | list) else [found], strict=False))


def _shown(node):
    return f"node {node.name or node.output[0]} ({node.op_type})"


def _constant(node, given, file, package):
    """What a node gives that does not depend on the numbers of the input, by the standard's own evaluator."""
    from onnx.reference import ReferenceEvaluator

    names = [[package.helper.make_empty_tensor_value_info(name) for name in part if name] for part in (node.input, node.output)]
    graph = package.helper.make_graph([node], "constant", *names)
    alone = package.helper.make_model(graph, opset_imports=file.opset_import, functions=file.functions)
    try:
        return ReferenceEvaluator(alone).run(None, {name: value.numpy() for name, value in given.items() if value is not None})
    except Exception as error:  # whatever an evaluator of many operators raises
        raise ValueError(f"{_shown(node)} cannot be computed: {type(error).__name__}: {error}") from error


def _shapes(value, shape):
    """What a file is fed with for one input, and the shape of that input; a first axis of 1 or of open size is the batch."""
    sizes = [size.dim_value for size in value.type.tensor_type.shape.dim]  # 0 where open
    batch = len(sizes) > 1 and sizes[0] in (0, 1)
    rest = tuple(sizes[1:] if batch else sizes)
    if shape is not None:
        rest = tuple(shape)
    if not rest or not all(rest):
        raise ValueError(f"input {value.name}: the file leaves its size open, {sizes}; give shape, that of one input")
    return ((1, *rest) if batch else rest), rest


class _Node:
    """What an operator may need to know beside its inputs: their shapes, its options, how many outputs it has."""

    def __init__(self, sizes, options, outputs):
        self.sizes, self.options, self.outputs = sizes, options, outputs

    def get(self, name, default=None):
        return self.options.get(name, default)


def _ints(tensor):
    return [int(i) for i in tensor.reshape(-1)]


def _axes(node, axes, default=None):
    found = node.get("axes") if axes is None else _ints(axes)
    return default if found is None else list(found)


def _pads(node, dims, kernel=None):
    """Padding before and after each axis of the picture, also where the file says SAME."""
    kind = node.get("auto_pad", "NOTSET")
    if kind in ("NOTSET", "VALID"):
        pads = node.get("pads", [0] * (2 * dims)) if kind == "NOTSET" else [0] * (2 * dims)
        return list(zip(pads[:dims], pads[dims:], strict=True))
    pads = []
    steps, wide = node.get("strides", [1] * dims), node.get("dilations", [1] * dims)
    for n, k, s, d in zip(node.sizes[0][-dims:], kernel, steps, wide, strict=True):
        more = max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
        pads.append((more // 2, more - more // 2) if kind == "SAME_UPPER" else (more - more // 2, more // 2))
    return pads


def _padded(x, pads):
    """x with zeros around, where the padding differs between the sides; and what is left for the operator to pad."""
    if all(before == after for before, after in pads):
        return x, tuple(before for before, _ in pads)
    return F.pad(x, [side for pair in reversed(pads) for side in pair]), (0,) * len(pads)


def _conv(node, x, weight, bias=None):
    dims = weight.dim() - 2
    x, pad = _padded(x, _pads(node, dims, weight.shape[2:]))
    ones = [1] * dims
    run = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    return run(x, weight, bias, tuple(node.get("strides", ones)), pad, tuple(node.get("dilations", ones)), node.get("group", 1))


def _conv_transpose(node, x, weight, bias=None):
    dims = weight.dim() - 2
    pads, ones = _pads(node, dims), [1] * dims
    if any(before != after for before, after in pads) or node.get("output_shape") or node.get("auto_pad", "NOTSET") != "NOTSET":
        raise KeyError("padding that differs between the sides")
    run = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[dims - 1]
    more = tuple(node.get("output_padding", [0] * dims))
    pad = tuple(before for before, _ in pads)
    return run(
        x, weight, bias, tuple(node.get("strides", ones)), pad, more, node.get("group", 1), tuple(node.get("dilations", ones))
    )


def _max_pool(node, x):
    kernel = node.get("kernel_shape")
    dims, ones = len(kernel), [1] * len(kernel)
    pads = _pads(node, dims, kernel)
    if any(before != after for before, after in pads) or node.outputs > 1:
        raise KeyError("padding that differs between the sides, or places as a second output")
    run = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[dims - 1]
    steps, wide = tuple(node.get("strides", ones)), tuple(node.get("dilations", ones))
    return run(x, tuple(kernel), steps, tuple(pad for pad, _ in pads), wide, bool(node.get("ceil_mode", 0)))


def _average_pool(node, x):
    kernel = node.get("kernel_shape")
    pads = _pads(node, len(kernel), kernel)
    counted = bool(node.get("count_include_pad", 0))
    if any(before != after for before, after in pads):
        if not counted:
            raise KeyError("padding that differs between the sides and is not counted")
        x, pads = F.pad(x, [side for pair in reversed(pads) for side in pair]), [(0, 0)] * len(kernel)
    run = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    steps = tuple(node.get("strides", [1] * len(kernel)))
    return run(x, tuple(kernel), steps, tuple(pad for pad, _ in pads), bool(node.get("ceil_mode", 0)), counted)


def _gemm(node, a, b, c=None):
    a, b = (m.transpose(0, 1) if node.get(f"trans{name}", 0) else m for m, name in ((a, "A"), (b, "B")))
    y = torch.matmul(a, b) if node.get("alpha", 1.0) == 1 else torch.matmul(a, b) * node.get("alpha")
    return y if c is None else y + (c if node.get("beta", 1.0) == 1 else c * node.get("beta"))


def _reshape(node, x, shape):
    sizes = _ints(shape)
    return x.reshape([node.sizes[0][i] if size == 0 and not node.get("allowzero", 0) else size for i, size in enumerate(sizes)]
                     if node.sizes[0] is not None else sizes)  # fmt: skip


def _flatten(node, x):
    axis = node.get("axis", 1)
    sizes = node.sizes[0] if node.sizes[0] is not None else tuple(x.shape)
    return x.reshape([math.prod(sizes[:axis]), math.prod(sizes[axis:])])


def _slice(node, x, starts=None, ends=None, axes=None, steps=None):
    starts, ends = (node.get(name) if given is None else _ints(given) for name, given in (("starts", starts), ("ends", ends)))
    axes = _axes(node, axes, list(range(len(starts))))
    steps = [1] * len(starts) if steps is None else _ints(steps)
    rank = len(node.sizes[0]) if node.sizes[0] is not None else x.dim()
    index = [slice(None)] * rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step > 0:
            index[axis] = slice(start, min(end, 2**62), step)
            continue
        n = node.sizes[0][axis]  # backwards -n - 1 stands before the first one, where Python would write None
        kept = range(n)[slice(start, None if end < -n else end, step)]
        x = x.index_select(axis, torch.tensor(kept, dtype=torch.long))
    return x[tuple(index)]


def _gather(node, x, indices):
    axis = node.get("axis", 0)
    if indices.dim() == 0:
        return x.select(axis, int(indices))
    y = x.index_select(axis, indices.reshape(-1))
    if indices.dim() == 1:
        return y
    sizes = list(node.sizes[0])
    axis %= len(sizes)
    return y.reshape([*sizes[:axis], *indices.shape, *sizes[axis + 1 :]])


def _squeeze(node, x, axes=None):
    axes = _axes(node, axes)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(node, x, axes=None):
    axes = _axes(node, axes)
    rank = len(node.sizes[0] if node.sizes[0] is not None else x.shape) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _split(node, x, sizes=None):
    axis = node.get("axis", 0)
    sizes = node.get("split") if sizes is None else _ints(sizes)
    if sizes is None:
        n = node.sizes[0][axis]
        each = -(-n // node.outputs)
        sizes = [min(each, n - i * each) for i in range(node.outputs)]
    parts = x.split(list(sizes), axis)
    return tuple(parts[i] for i in range(len(sizes)))


def _pad(node, x, pads=None, value=None, axes=None):
    pads = list(node.get("pads")) if pads is None else _ints(pads)
    half = len(pads) // 2
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}[node.get("mode", "constant")]
    if axes is not None:
        raise KeyError("axes")
    sides = [side for i in reversed(range(half)) for side in (pads[i], pads[half + i])]
    while mode != "constant" and sides[-2:] == [0, 0]:
        sides = sides[:-2]
    value = node.get("value", 0.0) if value is None else float(value)
    return F.pad(x, sides, mode, value) if mode == "constant" else F.pad(x, sides, mode)


def _clip(node, x, low=None, high=None):
    low, high = (node.get(name) if given is None else float(given) for name, given in (("min", low), ("max", high)))
    return x if low is None and high is None else x.clamp(low, high)


def _cast(node, x):
    kind = node.get("to")
    if kind in (1, 11):  # float, double: all is computed in the precision of the input
        return x if isinstance(x, fx.Proxy) or x.is_floating_point() else x.to(torch.float32)
    return x.to({6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16, 16: torch.bfloat16}[kind])


def _resize(node, x, *rest):
    scales = next((given for given in reversed(rest) if given is not None), None)
    scales = torch.tensor(node.get("scales")) if scales is None else scales
    mode = {"nearest": "nearest", "linear": "bilinear"}[node.get("mode", "nearest")]
    sizes = node.sizes[0]
    if scales.is_floating_point():
        sizes = [round(float(n * s)) for n, s in zip(sizes, scales, strict=True)]
    else:
        sizes = _ints(scales)
    aligned = {"align_corners": node.get("coordinate_transformation_mode") == "align_corners"} if mode == "bilinear" else {}
    return F.interpolate(x, tuple(sizes[2:]), None, mode, **aligned)


def _reduced(name):
    def reduce(node, x, axes=None):
        axes = _axes(node, axes)
        rank = len(node.sizes[0])
        return getattr(x, name)(dim=list(range(rank)) if axes is None else axes, keepdim=bool(node.get("keepdims", 1)))

    return reduce


def _folded(function):
    def fold(node, first, *others):
        for other in others:
            first = function(first, other)
        return first

    return fold


def _unary(function):
    return lambda node, x: function(x)


def _hard_sigmoid(node, x):
    return (node.get("alpha", 0.2) * x + node.get("beta", 0.5)).clamp(0.0, 1.0)


def _dropout(node, x, ratio=None, training=None):
    if training is not None and bool(training):
        raise TypeError("in training mode it drops values at random; export the network after model.eval()")
    return x


def _norm(node, x, scale, shift, mean, var):
    return F.batch_norm(x, mean, var, scale, shift, False, 0.0, node.get("epsilon", 1e-5))


def _prelu(node, x, slope):
    return torch.relu(x) - slope * torch.relu(-x)


_OPERATORS = {
    "Add": _folded(torch.add), "Sub": _folded(torch.sub), "Mul": _folded(torch.mul), "Div": _folded(torch.div),
    "Sum": _folded(torch.add), "Max": _folded(torch.maximum), "Min": _folded(torch.minimum), "MatMul": _folded(torch.matmul),
    "Neg": _unary(torch.neg), "Abs": _unary(torch.abs), "Relu": _unary(torch.relu), "Identity": _unary(lambda x: x),
    "Sigmoid": _unary(torch.sigmoid), "Tanh": _unary(torch.tanh), "Exp": _unary(torch.exp), "Log": _unary(torch.log),
    "Sqrt": _unary(torch.sqrt), "Sign": _unary(torch.sign), "Sin": _unary(torch.sin), "Cos": _unary(torch.cos),
    "Erf": _unary(torch.erf), "Floor": _unary(torch.floor), "Round": _unary(torch.round), "Softplus": _unary(F.softplus),
    "Elu": _unary(F.elu), "Pow": _folded(torch.pow), "Reciprocal": _unary(torch.reciprocal), "Not": _unary(torch.logical_not),
    "Softmax": lambda node, x: torch.softmax(x, node.get("axis", -1)),
    "LogSoftmax": lambda node, x: torch.log_softmax(x, node.get("axis", -1)),
    "LeakyRelu": lambda node, x: F.leaky_relu(x, node.get("alpha", 0.01)),
    "PRelu": _prelu, "Clip": _clip, "HardSigmoid": _hard_sigmoid, "Gemm": _gemm, "Conv": _conv,
    "ConvTranspose": _conv_transpose, "BatchNormalization": _norm, "MaxPool": _max_pool, "AveragePool": _average_pool,
    "GlobalAveragePool": lambda node, x: x.mean(dim=list(range(2, len(node.sizes[0]))), keepdim=True),
    "GlobalMaxPool": lambda node, x: x.amax(dim=list(range(2, len(node.sizes[0]))), keepdim=True),
    "Flatten": _flatten, "Reshape": _reshape, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Split": _split, "Slice": _slice,
    "Transpose": lambda node, x: x.permute(node.get("perm") or list(reversed(range(len(node.sizes[0]))))),
    "Concat": lambda node, *xs: torch.cat(xs, node.get("axis")),
    "Gather": _gather, "Pad": _pad, "Cast": _cast, "Resize": _resize, "Upsample": _resize,
    "Dropout": _dropout,
    "Expand": lambda node, x, shape: x + torch.zeros(_ints(shape)) if isinstance(x, fx.Proxy) else x.broadcast_to(_ints(shape)),
    "ReduceMean": _reduced("mean"), "ReduceSum": _reduced("sum"), "ReduceMax": _reduced("amax"), "ReduceMin": _reduced("amin"),
}  # fmt: skip
