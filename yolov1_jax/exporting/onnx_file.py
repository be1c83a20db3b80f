"""FILE.onnx: the traced network, each of JAX's operations as one or a few of ONNX.

What is written is the program that JAX runs, not a second description of the network; an operation
that is not known here ends the export. jax2onnx knows more of them, but excludes this project's
Orbax and converts a padded pooling wrongly.
"""

import json
import pathlib
import string
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend.core import ClosedJaxpr, Literal
from onnx import TensorProto, helper, numpy_helper

from yolov1_jax.exporting.network import Network

Value = np.ndarray | str  # a constant, or the name of a tensor of the graph
OPSET, IR_VERSION = 18, 8

# The same operation under another name; on arrays of one shape.
_SAME = {
    name: name.title()
    for name in ("abs", "add", "and", "div", "exp", "max", "min", "mul", "neg", "not", "or", "sub")
}
_SAME |= {"gt": "Greater", "ge": "GreaterOrEqual", "lt": "Less", "le": "LessOrEqual", "eq": "Equal"}
_SAME |= {"logistic": "Sigmoid", "stop_gradient": "Identity", "copy": "Identity"}
_REDUCTIONS = {"reduce_max": "ReduceMax", "reduce_min": "ReduceMin", "reduce_sum": "ReduceSum"}
_REDUCTIONS |= {"reduce_and": "ReduceMin"}


def write(path: pathlib.Path, network: Network) -> None:
    """Writes the network, and each of its metadata as JSON.

    Raises:
      NotImplementedError: an operation of the network is not known here.
    """
    images, graph = network.images(), _Graph()
    traced = jax.jit(network.function).trace(network.weights, images)
    values = _convert(graph, traced.jaxpr, [*jax.tree.leaves(network.weights), "images"])
    # JAX returns a dict in the order of its names.
    names = sorted(traced.out_info)
    graph.nodes += [
        helper.make_node("Identity", [graph.name(value)], [name])
        for name, value in zip(names, values, strict=True)
    ]

    def describe(name: str, array: Any) -> Any:
        shape = [side if isinstance(side, int) else str(side) for side in array.shape]
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(array.dtype))
        return helper.make_tensor_value_info(name, kind, shape)

    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "yolov1",
            [describe("images", images)],
            [describe(name, traced.out_info[name]) for name in names],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="yolov1_jax",
    )
    metadata = {name: json.dumps(value) for name, value in network.metadata.items()}
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    onnx.save(model, path)


class _Graph:
    """The nodes and constants so far."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def __call__(self, op: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; the name of its output, or their names."""
        read = [self.name(value) for value in inputs]
        names = [f"{op}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, read, names, **attributes))
        return names[0] if outputs == 1 else names

    def name(self, value: Any) -> str:
        """The name of a tensor or a new constant: a kernel as float16 where that loses nothing."""
        if isinstance(value, str):
            return value
        array, name = np.asarray(value), f"constant_{len(self.constants)}"
        is_kernel = array.ndim > 1 and array.dtype == np.float32
        is_half = is_kernel and np.array_equal(array.astype(np.float16), array)
        stored = array.astype(np.float16) if is_half else array
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(stored), name))
        return self("Cast", name, to=TensorProto.FLOAT) if is_half else name

    def reshape(self, x: Value, shape: Sequence[Any]) -> Value:
        """The batch may be a symbol."""
        return self("Reshape", x, [side if isinstance(side, int) else -1 for side in shape])


def _convert(graph: _Graph, closed: ClosedJaxpr, inputs: Sequence[Any]) -> list[Value]:
    """Adds a program to the graph: its outputs. What does not depend on the images is computed."""
    jaxpr = closed.jaxpr
    names = [*jaxpr.constvars, *jaxpr.invars]
    known: dict[Any, Any] = dict(zip(names, [*closed.consts, *inputs], strict=True))

    def read(atom: Any) -> Value:
        if isinstance(atom, Literal):
            return np.asarray(atom.val, atom.aval.dtype)  # type: ignore[attr-defined]
        return known[atom]

    for eqn in jaxpr.eqns:
        operation, values = eqn.primitive.name, [read(atom) for atom in eqn.invars]
        inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
        sides = [side for var in eqn.outvars for side in var.aval.shape]
        outputs: Any
        if eqn.params.get("name") == "keep_best":
            outputs = _keep_best(graph, *values)
        elif operation != "while" and inner is not None:
            outputs = _convert(graph, inner, values)
        elif not any(isinstance(one, str) for one in values) and all(
            isinstance(side, int) for side in sides
        ):
            outputs = jax.device_get(eqn.primitive.bind(*values, **eqn.params))
        elif operation in _OPERATIONS:
            outputs = _OPERATIONS[operation](graph, eqn, *values)
        else:
            raise NotImplementedError(f"{operation} has no translation to ONNX here: {eqn}"[:300])
        if not isinstance(outputs, list | tuple):
            outputs = [outputs]
        known |= dict(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


# --- Operations of JAX, see jax.lax for their parameters -----------------------------------------


def _convolution(graph: _Graph, eqn: Any, x: Value, kernel: np.ndarray) -> Value:
    p = eqn.params
    lhs, rhs, out = p["dimension_numbers"]
    low, high = zip(*p["padding"], strict=True)
    y = graph(
        "Conv",
        graph("Transpose", x, perm=lhs),
        kernel.transpose(rhs),
        strides=p["window_strides"],
        pads=[*low, *high],
        dilations=p["rhs_dilation"],
        group=p["feature_group_count"],
    )
    return graph("Transpose", y, perm=np.argsort(out).tolist())


def _dot(graph: _Graph, eqn: Any, x: Value, y: Value) -> Value:
    (contract_x, contract_y), (batch_x, batch_y) = eqn.params["dimension_numbers"]
    of_x = list(string.ascii_lowercase[: eqn.invars[0].aval.ndim])
    of_y = list(string.ascii_uppercase[: eqn.invars[1].aval.ndim])
    for i, j in zip((*contract_x, *batch_x), (*contract_y, *batch_y), strict=True):
        of_y[j] = of_x[i]
    gone = {of_x[i] for i in (*contract_x, *batch_x)}
    result = [of_x[i] for i in batch_x] + [one for one in of_x + of_y if one not in gone]
    equation = f"{''.join(of_x)},{''.join(of_y)}->{''.join(result)}"
    if equation == "ab,bB->aB":
        return graph("MatMul", x, y)
    return graph("Einsum", x, y, equation=equation)


def _broadcast(graph: _Graph, eqn: Any, x: Value) -> Value:
    shape, places = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    before: list[Any] = [1] * len(shape)
    for place, side in zip(places, eqn.invars[0].aval.shape, strict=True):
        before[place] = side
    if len(before) != len(places):
        x = graph.reshape(x, before)
    if tuple(before) == tuple(shape):
        return x
    sides = [
        [side] if isinstance(side, int) else graph("Shape", "images", start=0, end=1)
        for side in shape
    ]
    return graph("Expand", x, graph("Concat", *sides, axis=0))


def _slice(graph: _Graph, eqn: Any, x: Value) -> Value:
    p, axes = eqn.params, range(eqn.invars[0].aval.ndim)
    strides = p["strides"] or (1,) * len(axes)
    rows = zip(p["start_indices"], p["limit_indices"], axes, strides, strict=True)
    known = [row for row in rows if isinstance(row[1], int)]  # the batch may be a symbol
    return graph("Slice", x, *zip(*known, strict=True)) if known else x


def _gather(graph: _Graph, eqn: Any, x: Value, starts: Value) -> Value:
    """Only x[..., i:j] and x[..., i], which become a gather where the batch is a symbol."""
    p = eqn.params
    numbers, sizes = p["dimension_numbers"], p["slice_sizes"]
    if isinstance(starts, str) or starts.ndim != 1:
        raise NotImplementedError(f"this gather has no translation to ONNX here: {eqn}"[:300])
    axes = numbers.start_index_map
    ends = [int(start) + sizes[axis] for start, axis in zip(starts, axes, strict=True)]
    part = graph("Slice", x, np.asarray(starts, np.int64), ends, axes)
    return graph.reshape(part, eqn.outvars[0].aval.shape) if numbers.collapsed_slice_dims else part


def _pad(graph: _Graph, eqn: Any, x: Value, value: Value) -> Value:
    low, high, _ = zip(*eqn.params["padding_config"], strict=True)
    return graph("Pad", x, [*low, *high], value)


def _cast(graph: _Graph, eqn: Any, x: Value) -> Value:
    return graph("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(eqn.outvars[0].aval.dtype)))


def _argmax(graph: _Graph, eqn: Any, x: Value) -> Value:
    return _cast(graph, eqn, graph("ArgMax", x, axis=eqn.params["axes"][0], keepdims=0))


def _reduce(graph: _Graph, eqn: Any, x: Value) -> Value:
    operation = eqn.primitive.name
    if operation == "reduce_and":
        x = graph("Cast", x, to=TensorProto.INT32)
    return _cast(graph, eqn, graph(_REDUCTIONS[operation], x, eqn.params["axes"], keepdims=0))


def _sort(graph: _Graph, eqn: Any, key: Value, *others: Value) -> list[Value]:
    """TopK takes the first of equals, as a stable sort does."""
    p = eqn.params
    size = [eqn.invars[0].aval.shape[p["dimension"]]]
    options = {"axis": p["dimension"], "largest": 0, "sorted": 1}
    key, order = graph("TopK", key, size, outputs=2, **options)
    return [key, *(graph("GatherElements", one, order, axis=p["dimension"]) for one in others)]


_OPERATIONS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_SAME, lambda graph, eqn, *x: graph(_SAME[eqn.primitive.name], *x)),
    "argmax": _argmax,
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda graph, eqn, *x: graph("Concat", *x, axis=eqn.params["dimension"]),
    "conv_general_dilated": _convolution,
    "convert_element_type": _cast,
    "dot_general": _dot,
    "gather": _gather,
    "integer_pow": lambda graph, eqn, x: graph("Pow", x, np.array(eqn.params["y"], np.float32)),
    "pad": _pad,
    **dict.fromkeys(_REDUCTIONS, _reduce),
    "reshape": lambda graph, eqn, x: graph.reshape(x, eqn.outvars[0].aval.shape),
    "select_n": lambda graph, eqn, which, no, yes: graph("Where", which, yes, no),
    "slice": _slice,
    "sort": _sort,
    "square": lambda graph, eqn, x: graph("Mul", x, x),
    "squeeze": lambda graph, eqn, x: graph.reshape(x, eqn.outvars[0].aval.shape),
    "transpose": lambda graph, eqn, x: graph("Transpose", x, perm=eqn.params["permutation"]),
}


def _keep_best(graph: _Graph, boxes: Value, scores: Value, iou_threshold: Any) -> Value:
    """See `network.keep_best`. NonMaxSuppression gives (image, class, box)."""
    by_class = graph("Transpose", scores, perm=[0, 2, 1])
    every, lowest = np.array([2**31 - 1]), np.array([np.finfo(np.float32).min])
    places = graph("NonMaxSuppression", boxes, by_class, every, iou_threshold.reshape(1), lowest)
    zeros = graph("ConstantOfShape", graph("Shape", by_class))
    ones = graph(
        "Add", graph("ConstantOfShape", graph("Shape", places, start=0, end=1)), np.float32(1)
    )
    kept = graph("Cast", graph("ScatterND", zeros, places, ones), to=TensorProto.BOOL)
    return graph("Transpose", kept, perm=[0, 2, 1])
