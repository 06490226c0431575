"""Random calls of the ops: what a case is, how hypothesis draws one, and how it is called."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from hypothesis import strategies as st

from fastmtl.ops import (
    fusion_edge_weights,
    graph_fusion,
    task_grad_gramian,
    task_grad_norms,
)
from tests.problems import (
    Problem,
    focal_loss_problem,
    gradvac_problem,
    graph_fusion_problem,
    grouped_focal_loss_problem,
    least_norm_problem,
    multilabel_loss_problem,
    nonnegative_qp_problem,
    pcgrad_problem,
    stacked_norms_problem,
    task_grads_problem,
    task_gru_problem,
)
from tests.views import VIEWS

Size = tuple[int, int, int, int]
DTYPES = {"float32": torch.float32, "float64": torch.float64} | {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
REDUCTIONS = ("task", "sum", "mean", "none")
GAMMAS = (0.0, 1.0, 2.0, 0.5, 3.7)


def _lengths(size: Size) -> list[int]:
    """Some lengths up to the second size, as many as the first one has it."""
    return [1 + (7 * index) % max(size[1], 1) for index in range(1 + size[0] % 8)]


def _single_or_double(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


# A problem of every op from four sizes, a number for its options, and a dtype.
OPS: dict[str, Callable[[Size, int, torch.dtype], Problem]] = {
    "focal_loss": lambda s, o, dtype: focal_loss_problem(
        s[0] * (1 + s[2]), s[1], dtype, reduction=REDUCTIONS[o % 4], gamma=GAMMAS[o % 5]
    ),
    "multilabel_loss": lambda s, o, dtype: multilabel_loss_problem(
        *(s[0] * (1 + s[2]), s[1], dtype),
        reduction=REDUCTIONS[o % 4],
        clip=(0.0, 0.05)[o % 2],
        soft=o % 3 > 0,
        **{"by_task": True} if o % 5 else {"by_task": False, "gamma_pos": 1.0, "gamma_neg": 4.0},
    ),
    "grouped_focal_loss": lambda s, o, dtype: grouped_focal_loss_problem(
        s[0],
        [2 + s[1], 2 + s[2]][: 1 + o % 2],
        dtype,
        reduction=REDUCTIONS[o % 4],
        gamma=GAMMAS[o % 5],
    ),
    "stacked_norms": lambda s, o, dtype: stacked_norms_problem(
        *[(s[0], s[1]), (s[0], s[2], s[3]), (s[0],)][: 1 + o % 3], dtype=dtype
    ),
    "task_grad_norms": lambda s, o, dtype: task_grads_problem(
        task_grad_norms, s, dtype, bool(o % 2)
    ),
    "task_grad_gramian": lambda s, o, dtype: task_grads_problem(
        task_grad_gramian, s, dtype, bool(o % 2)
    ),
    "fusion_edge_weights": lambda s, o, dtype: graph_fusion_problem(
        fusion_edge_weights, (s[0], 2 + s[1] % 6, 1 + s[2], 0), dtype
    ),
    "graph_fusion": lambda s, o, dtype: graph_fusion_problem(
        graph_fusion, (s[0], 2 + s[1] % 6, 1 + s[2], s[3]), dtype
    ),
    "task_gru_layer": lambda s, o, dtype: task_gru_problem(
        *(1 + s[2] % 4, 1 + o % 2, 1 + s[3] % 130, _lengths(s), dtype, 1 + s[1] % 9),
        shared=bool(o % 3),
        gap=o % 4,
        recompute=o % 5 == 0,
    ),
    "least_norm_weights": lambda s, o, dtype: least_norm_problem(
        1 + s[0] % 30, _single_or_double(dtype), 1 + o
    ),
    "nonnegative_qp": lambda s, o, dtype: nonnegative_qp_problem(
        1 + s[0] % 30, 1 + s[1] % 9, _single_or_double(dtype)
    ),
    "pcgrad_weights": lambda s, o, dtype: pcgrad_problem(1 + s[0] % 60, _single_or_double(dtype)),
    "gradvac_weights": lambda s, o, dtype: gradvac_problem(
        1 + s[0] % 60, _single_or_double(dtype), beta=(1 + o % 5) / 5
    ),
}
# The ways a case is tried (tests/fuzz/ways.py), and what is done to the values of one leaf.
WAYS = ("exact", "values", "lazy", "registered", "wrong", "refused", "vmap", "grad", "jvp")
VALUES = ("zero", "nan", "inf", "-inf", "huge", "tiny", "largest")


@dataclass(frozen=True)
class Case:
    """A call of an op, and the way that it is tried."""

    op: str
    where: str  # as for tests.conftest.running_on
    way: str
    size: Size
    option: int
    dtype: str
    view: str
    value: str
    place: int  # of what is changed
    seed: int

    def problem(self) -> Problem:
        """The call; always the same one."""
        torch.manual_seed(self.seed)
        problem = OPS[self.op](self.size, self.option, DTYPES[self.dtype])
        if self.view == "dense" or any(leaf.dim() < 2 for leaf in problem.tensors().values()):
            return problem
        return problem.put(**{k: VIEWS[self.view](v) for k, v in problem.tensors().items()})

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @staticmethod
    def of_json(text: str) -> Case:
        fields = json.loads(text)
        return Case(**fields | {"size": tuple(fields["size"])})


_small = st.integers(0, 9)
_sizes = st.one_of(
    st.tuples(_small, _small, _small, _small),
    st.tuples(*[st.integers(0, 40)] * 4),
    # Around the blocks that kernels work in.
    st.builds(
        lambda size, place, large: (*size[:place], large, *size[place + 1 :]),
        st.tuples(_small, _small, _small, _small),
        st.integers(0, 3),
        st.sampled_from([63, 65, 127, 129, 257, 511, 513, 1025]),
    ),
)


def cases(places: list[str]) -> st.SearchStrategy[Case]:
    """Cases on any of the places."""
    return st.builds(
        Case,
        op=st.sampled_from(list(OPS)),
        where=st.sampled_from(places),
        way=st.sampled_from(WAYS),
        size=_sizes,
        option=st.integers(0, 30),
        dtype=st.sampled_from(list(DTYPES)),
        view=st.sampled_from(["dense", *VIEWS]),
        value=st.sampled_from(VALUES),
        place=st.integers(0, 30),
        seed=st.integers(0, 1000),
    )
