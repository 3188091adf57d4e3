"""Networks from ONNX files. The package `onnx` is an optional extra: without it only the error message is tested."""

import gzip
import re
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from torch import nn

from ood_helpers import models, polytopes, widgets
from ood_helpers.polytopes.onnx_file import _OPERATORS


def test_without_the_package_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'ood_helpers\[onnx\]'"):
        polytopes.onnx(tmp_path / "network.onnx")


def saved(tmp_path, nodes, sizes, constants, output=(1, 3)):
    """A file with these nodes: (operator, inputs, outputs, options)."""
    package = pytest.importorskip("onnx")
    helper, kind = package.helper, package.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, outputs, **options) for operator, inputs, outputs, options in nodes],
        "network",
        [helper.make_tensor_value_info("x", kind, sizes)],
        [helper.make_tensor_value_info("y", kind, output)],
        [package.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = tmp_path / "network.onnx"
    package.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


CHAIN = [
    ("Sub", ["x", "mean"], ["a"], {}),
    ("Flatten", ["a"], ["b"], {}),
    ("Gemm", ["b", "w", "c"], ["d"], {"transB": 1}),
    ("Relu", ["d"], ["e"], {}),
    ("MatMul", ["e", "v"], ["y"], {}),
]
CONSTANTS = {"mean": numbers(1, 1, 2, 2), "w": numbers(5, 4, seed=1), "c": numbers(5, seed=2), "v": numbers(5, 3, seed=3)}


def test_a_chain_is_read_as_matrices(tmp_path):
    model = polytopes.onnx(saved(tmp_path, CHAIN, [1, 1, 2, 2], CONSTANTS))
    network, x = polytopes.read(model), numbers(20, 4, seed=4).astype(float)
    w, c, v, mean = (CONSTANTS[key].astype(float) for key in ("w", "c", "v", "mean"))
    wanted = np.maximum((x - mean.ravel()) @ w.T + c, 0) @ v
    np.testing.assert_allclose(network(x), wanted, atol=1e-12)
    assert network.widths == [5] and model.input_shape == (1, 2, 2)
    pieces = polytopes.line(model, x[0].reshape(1, 2, 2), x[1].reshape(1, 2, 2))
    np.testing.assert_allclose(pieces.logits(1.0), wanted[1], atol=1e-12)


def test_convolutions_pools_and_skips_are_read_as_steps(tmp_path):
    nodes = [
        ("Conv", ["x", "k"], ["a"], {"pads": [1, 1, 1, 1]}),
        ("Relu", ["a"], ["b"], {}),
        ("Add", ["x", "b"], ["c"], {}),
        ("MaxPool", ["c"], ["d"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Reshape", ["d", "shape"], ["e"], {}),
        ("Gemm", ["e", "w"], ["y"], {"transB": 1, "alpha": 0.5}),
    ]
    constants = {"k": numbers(2, 2, 3, 3), "shape": np.array([1, -1]), "w": numbers(3, 8, seed=1)}
    model = polytopes.onnx(saved(tmp_path, nodes, [1, 2, 4, 4], constants))
    start, end = numbers(2, 2, 4, 4, seed=2).astype(float)
    pieces = polytopes.line(model, start, end)
    package = pytest.importorskip("onnx")
    evaluator = package.reference.ReferenceEvaluator(str(tmp_path / "network.onnx"))
    for t in np.linspace(0, 1, 9):
        wanted = evaluator.run(None, {"x": (start + t * (end - start)).astype(np.float32)[None]})[0][0]
        np.testing.assert_allclose(pieces.logits(t), wanted, atol=1e-4)


def test_what_is_not_known_is_named(tmp_path):
    for operator, message in (
        ("Hardmax", r"node e \(Hardmax\) is not understood"),
        ("Sigmoid", r"node e \(Sigmoid\): expected"),
    ):
        nodes = [*CHAIN[:3], (operator, ["d"], ["e"], {}), CHAIN[4]]
        with pytest.raises(ValueError, match=message):
            polytopes.read(polytopes.onnx(saved(tmp_path, nodes, [1, 1, 2, 2], CONSTANTS)))
    nodes = [*CHAIN[:3], ("Dropout", ["d", "", "train"], ["e"], {}), CHAIN[4]]
    with pytest.raises(ValueError, match=r"node e \(Dropout\).*model.eval\(\)"):
        polytopes.onnx(saved(tmp_path, nodes, [1, 1, 2, 2], {**CONSTANTS, "train": np.array(True)}))
    with pytest.raises(ValueError, match="leaves its size open"):
        polytopes.onnx(saved(tmp_path, CHAIN, ["n", 1, "h", 2], CONSTANTS))
    model = polytopes.onnx(saved(tmp_path, CHAIN, ["n", 1, "h", 2], CONSTANTS), shape=(1, 2, 2))
    assert polytopes.read(model).in_dim == 4


def test_what_does_not_depend_on_the_input_may_be_computed_by_any_operator(tmp_path):
    """Exporters write shapes and masks with operators that no network needs: here a batch of 1, and a mask of 0 and 1."""
    nodes = [
        ("Shape", ["x"], ["all"], {}),
        ("Slice", ["all", "zero", "one"], ["batch"], {}),
        ("Concat", ["batch", "rest"], ["shape"], {"axis": 0}),
        ("Reshape", ["x", "shape"], ["a"], {}),
        ("Range", ["from", "to", "by"], ["places"], {}),
        ("Equal", ["places", "two"], ["there"], {}),
        ("Not", ["there"], ["elsewhere"], {}),
        ("Cast", ["elsewhere"], ["mask"], {"to": 1}),
        ("Mul", ["a", "mask"], ["b"], {}),
        ("Gemm", ["b", "w"], ["c"], {"transB": 1}),
        ("Where", ["there", "places", "places"], ["unused"], {}),
        ("Relu", ["c"], ["d"], {}),
        ("MatMul", ["d", "v"], ["y"], {}),
    ]
    constants = {
        **{"zero": np.array([0]), "one": np.array([1]), "rest": np.array([4]), "two": np.array(2), "v": CONSTANTS["v"]},
        **{"from": np.array(0), "to": np.array(4), "by": np.array(1), "w": CONSTANTS["w"]},
    }
    model, x = (
        polytopes.onnx(saved(tmp_path, nodes, ["n", 2, 2], constants, output=("n", 3))),
        numbers(20, 4, seed=4).astype(float),
    )
    wanted = np.maximum((x * [1, 1, 0, 1]) @ CONSTANTS["w"].astype(float).T, 0) @ CONSTANTS["v"].astype(float)
    np.testing.assert_allclose(polytopes.read(model)(x), wanted, atol=1e-12)


def test_numbers_that_are_drawn_anew_each_time_are_no_constants(tmp_path):
    nodes = [*CHAIN[:3], ("RandomNormal", [], ["noise"], {"shape": [1, 5]}), ("Add", ["d", "noise"], ["e"], {}), CHAIN[4]]
    with pytest.raises(ValueError, match=r"node noise \(RandomNormal\) is not understood"):
        polytopes.onnx(saved(tmp_path, nodes, [1, 1, 2, 2], CONSTANTS))


@pytest.mark.parametrize(
    "start, end, step", [(-1, -5, -1), (3, 0, -1), (-1, -(2**63), -2), (2, -9, -1), (0, 2**63 - 1, 2), (1, -1, 1)]
)
def test_slices_run_forwards_and_backwards(tmp_path, start, end, step):
    nodes = [
        ("Slice", ["x", "start", "end", "axis", "step"], ["a"], {}),
        ("Relu", ["a"], ["b"], {}),
        ("MatMul", ["b", "v"], ["y"], {}),
    ]
    x = numbers(20, 4, seed=4).astype(float)
    kept = x[:, start : end if end >= -4 and step < 0 and end != -5 else None if step < 0 else end : step]
    v = numbers(kept.shape[1], 3)
    constants = {name: np.array([value]) for name, value in (("start", start), ("end", end), ("axis", 1), ("step", step))}
    network = polytopes.read(polytopes.onnx(saved(tmp_path, nodes, [1, 4], {**constants, "v": v})))
    np.testing.assert_allclose(network(x), np.maximum(kept, 0) @ v.astype(float), atol=1e-12)


def test_files_of_another_kind_and_with_several_outputs_are_refused(tmp_path):
    package = pytest.importorskip("onnx")
    path = saved(tmp_path, CHAIN, [1, 1, 2, 2], CONSTANTS)
    packed = tmp_path / "network.onnx.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match=r"no ONNX file.*gunzip network.onnx.gz"):
        polytopes.onnx(packed)
    with pytest.raises(FileNotFoundError):
        polytopes.onnx(tmp_path / "missing.onnx")
    file = package.load(path)
    file.graph.output.append(package.helper.make_tensor_value_info("d", package.TensorProto.FLOAT, (1, 5)))
    package.save(file, path)
    with pytest.raises(ValueError, match=r"it has y, d\..*extract_model"):
        polytopes.onnx(path)


def test_weights_in_a_file_of_their_own_are_read_or_missed(tmp_path):
    package = pytest.importorskip("onnx")
    path = saved(tmp_path, CHAIN, [1, 1, 2, 2], CONSTANTS)
    package.save(package.load(path), path, save_as_external_data=True, location="weights", size_threshold=0)
    assert polytopes.read(polytopes.onnx(path)).in_dim == 4
    (tmp_path / "weights").unlink()
    with pytest.raises(ValueError, match="which cannot be read"):
        polytopes.onnx(path)


def test_where_the_file_gives_no_number_nothing_is_compared(tmp_path):
    """0 / 0 at points at which all is off: the rest of the outputs counts."""
    nodes = [("Relu", ["x"], ["a"], {}), ("Div", ["a", "a"], ["b"], {}), ("MatMul", ["b", "v"], ["y"], {})]
    model = polytopes.onnx(saved(tmp_path, nodes, [1, 4], {"v": numbers(4, 3)}))
    with pytest.raises(ValueError, match=r"node b \(Div\)"):
        polytopes.read(model)


def test_a_file_without_its_softmax_keeps_its_shape_and_the_names_of_its_nodes(tmp_path):
    nodes = [*CHAIN[:-1], ("MatMul", ["e", "v"], ["z"], {}), ("Softmax", ["z"], ["y"], {"axis": 1})]
    model = polytopes.onnx(saved(tmp_path, nodes, [1, 1, 2, 2], CONSTANTS))
    with pytest.raises(ValueError, match=r"node y \(Softmax\): gives probabilities.*without_softmax"):
        polytopes.read(model)
    plain = polytopes.onnx(saved(tmp_path, CHAIN, [1, 1, 2, 2], CONSTANTS))
    x = numbers(20, 4, seed=4).astype(float)
    np.testing.assert_array_equal(polytopes.read(polytopes.without_softmax(model))(x), polytopes.read(plain)(x))


def test_the_page_lists_the_operators_that_can_be_read():
    page = (Path(__file__).parents[1] / "docs" / "your_network.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith("Operators of ONNX files: "))
    bent = "Cos Elu Erf Exp Floor Log LogSoftmax Not Pow Reciprocal Round Sigmoid Sign Sin Softmax Softplus Sqrt Tanh"
    assert set(re.findall(r"`(\w+)`", line)) == set(_OPERATORS) - set(bent.split())


def test_notebook_10_loads_a_file_of_either_kind(tmp_path):
    notebook = nbformat.read(Path(__file__).parents[1] / "notebooks" / "10_a_world_of_your_own.ipynb", as_version=4)
    names = {"torch": torch, "nn": nn, "polytopes": polytopes}
    exec(next(cell.source for cell in notebook.cells if cell.id == "read"), names)
    network, x = models.mlp(width=7, n_classes=3, depth=3), torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    torch.save(network.state_dict(), tmp_path / "network.pt")
    assert torch.equal(names["load"](tmp_path / "network.pt")(x), network(x))

    v, c = numbers(5, 2), numbers(5, seed=1)
    nodes = [("Gemm", ["x", "v", "c"], ["a"], {"transB": 1}), ("Relu", ["a"], ["b"], {}), ("MatMul", ["b", "w"], ["y"], {})]
    onnx = saved(tmp_path, nodes, [1, 2], {"v": v, "c": c, "w": numbers(5, 3, seed=2)})
    drawn, wanted = widgets.LivingMap(names["load"](onnx)), np.maximum(x[:1].numpy() @ v.T + c, 0) @ numbers(5, 3, seed=2)
    np.testing.assert_allclose(drawn.network(x[:1]).detach(), wanted, atol=1e-6)
