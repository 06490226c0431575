"""The GRU layer as ONNX has it; needs onnxscript."""

from __future__ import annotations

from typing import Any

from onnx import TensorProto
from onnxscript import opset18

# Its types are those of functions that are parsed, not of calls that record a graph.
op: Any = opset18


def task_gru_layer(
    x: Any,  # (R, I) or (T, R, I)
    weight_ih: Any,  # (T, dirs, 3h, I)
    weight_hh: Any,  # (T, dirs, 3h, h)
    bias_ih: Any,  # (T, dirs, 3h)
    bias_hh: Any,  # (T, dirs, 3h)
    starts: Any,  # (B,)
    lengths: Any,  # (B,)
    keep: bool,
) -> tuple[Any, Any, Any]:
    """The op's results without what backward reads: a GRU node a task.

    https://onnx.ai/onnx/operators/onnx__GRU.html: its gates stand in the order z, r, n, and with
    linear_before_reset its equations are those of torch.
    """
    tasks, directions, _, hidden = (int(size) for size in weight_hh.shape)
    rows = op.Shape(x, start=-2, end=-1)
    longest = op.ReduceMax(lengths, keepdims=0)
    time = op.Range(op.Constant(value_int=0), longest, op.Constant(value_int=1))
    time = op.Unsqueeze(time, _ints(1))
    at = op.Add(time, op.Unsqueeze(starts, _ints(0)))  # (L, B)
    inside = op.Less(time, op.Unsqueeze(lengths, _ints(0)))
    read = op.Min(at, op.Sub(rows, _ints(1)))
    # States of steps beyond a sequence go to a row behind the last, which is cut off.
    written = op.Unsqueeze(op.Where(inside, at, rows), _ints(2))
    zeros = op.Expand(
        op.Constant(value_float=0.0),
        op.Concat(op.Add(rows, _ints(1)), _ints(directions * hidden), axis=0),
    )
    counts = op.Cast(lengths, to=TensorProto.INT32)
    states = []
    for task in range(tasks):
        index = op.Constant(value_int=task)
        own = x if len(x.shape) == 2 else op.Gather(x, index, axis=0)
        weights = [
            _gates_in_order(op.Gather(weight, index, axis=0), hidden)
            for weight in (weight_ih, weight_hh, bias_ih, bias_hh)
        ]
        of_steps, _ = op.GRU(
            op.Gather(own, read, axis=0),
            *weights[:2],
            op.Concat(*weights[2:], axis=1),
            counts,
            None,
            direction="bidirectional" if directions == 2 else "forward",
            hidden_size=hidden,
            linear_before_reset=1,
        )  # (L, dirs, B, h)
        of_steps = op.Reshape(op.Transpose(of_steps, perm=[0, 2, 1, 3]), _ints(0, 0, -1))
        of_rows = op.Slice(op.ScatterND(zeros, written, of_steps), _ints(0), _ints(-1), _ints(0))
        states.append(op.Unsqueeze(of_rows, _ints(0)))
    nothing = op.Constant(value_floats=[0.0])
    return op.Concat(*states, axis=0), nothing, nothing


def _gates_in_order(weight: Any, hidden: int) -> Any:
    r, z, n = (
        op.Slice(weight, _ints(gate * hidden), _ints((gate + 1) * hidden), _ints(1))
        for gate in range(3)
    )
    return op.Concat(z, r, n, axis=1)


def _ints(*values: int) -> Any:
    return op.Constant(value_ints=list(values))
