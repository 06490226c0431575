"""One fused op out of its reference: schema, fake, autograd, registration and choice of backend."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from fastmtl import backends
from fastmtl.ops._autograd import once_differentiable
from fastmtl.ops._law import Law

P = ParamSpec("P")
R = TypeVar("R")
Results = tuple[Tensor, ...]
_PLAIN = (Tensor, torch.nn.Parameter)


def traced(tensor: Tensor) -> bool:
    """Whether a call is recorded or has no values: under torch.compile, torch.export and
    torch.jit.trace, or with a tensor that has no memory of its own."""
    return (
        torch.compiler.is_compiling()
        or type(tensor) not in _PLAIN
        or (not tensor.is_cpu and tensor.is_meta)
        or torch._C._is_tracing()
    )


def transformed(*tensors: Tensor | None) -> bool:
    """Whether a transform of torch.func or a batched backward pass follows what is done to
    tensors: no kernel can read them."""
    return torch._C._are_functorch_transforms_active() or any(
        tensor is not None and torch._C._functorch.is_legacy_batchedtensor(tensor)
        for tensor in tensors
    )


class FusedOp(Generic[P, R]):
    """The op NAME, whose formula is `fastmtl.backends.reference.STEM.NAME`, called as that.

    The signatures of NAME_forward and NAME_backward beside the formula define the op, by the laws
    in `fastmtl.backends.reference`; an op without NAME_backward has no gradients. Eager calls go
    straight to a backend's pair, inside a torch.autograd.Function where a gradient is wanted: the
    dispatcher costs more than a small kernel. Calls that are `traced` go through the registered op
    torch.ops.fastmtl.NAME. Either way a second derivative is refused. Where a call or its gradient
    is `transformed`, the reference is.

    Args:
        formula: NAME. On the reference backend eager calls run it, differentiated by autograd.
        outputs: how many of NAME_forward's results are the op's own.
        kept: what backward reads of all the results, given them and the arguments; by default the
            last ones.
        fake: NAME_forward for tensors without values, where the reference's looks at them.
        guard: the checks of the arguments, for whoever calls the registered op: a graph, which
            knows values only when it runs, or anybody.
        transformable: whether the reference is made of operations that torch.func transforms.
    """

    def __init__(
        self,
        formula: Callable[P, R],
        *,
        outputs: int = 1,
        kept: Callable[[Results, tuple[Any, ...]], Results] | None = None,
        fake: Callable[..., Any] | None = None,
        guard: Callable[..., None] | None = None,
        transformable: bool = True,
    ) -> None:
        reference = sys.modules[formula.__module__]
        self.name = formula.__name__
        forward = getattr(reference, f"{self.name}_forward")
        backward = getattr(reference, f"{self.name}_backward", None)
        self._pair = backends.Kernels("reference", forward, backward)
        law = Law.of(forward, backward, outputs)
        own: Any = 0 if outputs == 1 else slice(0, outputs)
        self._law = law
        self._formula = formula
        self._transformable = transformable
        self._kept = kept
        self._own: Callable[[Any], R] = lambda results: results[own] if law.results > 1 else results
        self._apply: Callable[..., R] | None = self._function().apply if backward else None
        self._registered = self._register(forward, fake or forward, guard)
        if backward is not None:
            self._register_backward(backward, guard)

    # What a small input waits for is this method: it asks what is not usual where that costs
    # nothing, once a kernel has refused a tensor.
    def __call__(self, *arguments: P.args, **nothing: P.kwargs) -> R:
        law = self._law
        flat: tuple[Any, ...] = law.flat(arguments) if law.listed else arguments
        lead = flat[0]
        if traced(lead):
            return self._own(self._registered(*arguments))
        kernels = backends.kernels(self.name, "cpu" if lead.is_cpu else lead.device.type)
        if forward_ad._current_level >= 0:
            kernels = self._reference()
        if kernels.backend == "reference":
            return self._formula(*arguments, **nothing)
        differentiated = False
        for tensor in flat[law.tensors]:
            if tensor is not None:
                differentiated = differentiated or tensor.requires_grad
                if tensor.is_neg():
                    flat = tuple(a.resolve_neg() if isinstance(a, Tensor) else a for a in flat)
        try:
            if differentiated and self._apply is not None and torch.is_grad_enabled():
                return self._apply(kernels, *flat)
            return self._own(kernels.forward(*law.nested(flat) if law.listed else flat))
        except RuntimeError:
            if not transformed(*flat[law.tensors]):
                raise
        self._reference()
        return self._formula(*arguments, **nothing)

    def _reference(self) -> backends.Kernels:
        """What serves a call that is `transformed`."""
        if not self._transformable:
            raise RuntimeError(
                f"fastmtl.ops.{self.name}: transforms of torch.func, batched backward passes and "
                "forward-mode differentiation cannot follow it; take the network out of torch.nn "
                "that a layer's or model's to_torch() gives"
            )
        return self._pair

    def _function(self) -> Any:
        """The eager autograd function, named after the op."""
        law, choose, differentiate = self._law, self._kept, self._law.differentiate

        def forward(ctx: Any, kernels: backends.Kernels, *flat: Any) -> Any:
            arguments = law.nested(flat) if law.listed else flat
            found = kernels.forward(*arguments)
            results = found if law.results > 1 else (found,)
            law.save(ctx, choose(results, arguments) if choose else results[law.last], flat)
            ctx.kernels = kernels
            if law.takes_none:
                ctx.set_materialize_grads(False)
            return results[0] if law.outputs == 1 else found[: law.outputs]

        def backward(ctx: Any, *grads: Tensor | None) -> Any:
            if torch.is_grad_enabled():
                return once(ctx, *grads)
            for grad in grads:
                if grad is not None and grad.is_neg():
                    grads = tuple(g if g is None else g.resolve_neg() for g in grads)
            kernels: Any = ctx.kernels if forward_ad._current_level < 0 else self._reference()
            try:
                return None, *differentiate(kernels.backward, ctx, grads, 1)
            except RuntimeError:
                if not transformed(*grads):
                    raise
            kernels = self._reference()
            return None, *differentiate(kernels.backward, ctx, grads, 1)

        once = once_differentiable(backward)
        if choose is None and law.plain:
            forward, backward = self._plain_pair(backward)
        name = "".join(part.capitalize() for part in self.name.split("_"))
        body = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
        meta: Any = type(torch.autograd.Function)
        return meta(name, (torch.autograd.Function,), body)

    def _plain_pair(self, general: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
        """The same where one output, one tensor that is kept and one gradient are all there is, in
        as few steps as a small input can wait for; `general` sees to what is not usual."""
        tensors, without = self._law.tensors, self._law.without
        settings = slice(1 + len(without) - self._law.settings, None)

        def forward(ctx: Any, kernels: backends.Kernels, *flat: Any) -> Any:
            output, kept = kernels.forward(*flat)
            ctx.save_for_backward(kept, *flat[tensors])
            ctx.settings = flat[settings]
            ctx.kernels = kernels
            return output

        def backward(ctx: Any, grad: Tensor) -> Any:
            if torch.is_grad_enabled() or forward_ad._current_level >= 0 or grad.is_neg():
                return general(ctx, grad)
            try:
                return None, ctx.kernels.backward(grad, *ctx.saved_tensors, *ctx.settings), *without
            except RuntimeError:
                return general(ctx, grad)

        return forward, backward

    def _register(
        self,
        forward: Callable[..., Any],
        fake: Callable[..., Any],
        guard: Callable[..., None] | None,
    ) -> Any:
        """NAME in torch.library."""

        def run(*arguments: Any) -> Any:
            if guard is not None:
                guard(*arguments)
            kernels = backends.kernels(self.name, self._law.flat(arguments)[0].device.type)
            return _dense(kernels.forward(*arguments))

        op = _custom_op(f"fastmtl::{self.name}", run, forward)
        op.register_fake(lambda *arguments: _like(fake(*arguments)))
        return op

    def _register_backward(
        self, backward: Callable[..., Any], guard: Callable[..., None] | None
    ) -> None:
        """NAME_backward in torch.library, as the derivative of NAME."""
        law, choose, name = self._law, self._kept, f"{self.name}_backward"

        def run(*arguments: Any) -> Any:
            if guard is not None:
                guard(*arguments[law.outputs + law.kept : len(arguments) - law.takes_needs])
            kernels = backends.kernels(self.name, arguments[0].device.type)
            assert kernels.backward is not None
            return _dense(kernels.backward(*arguments))

        def fake(*arguments: Any) -> Any:
            inputs = arguments[law.outputs + law.kept :]
            if law.listed:
                return [leaf.new_empty(leaf.shape) for leaf in inputs[0]]
            needs = arguments[-1] if law.takes_needs else [True] * law.gradients
            pairs = zip(inputs, needs, strict=False)
            grads = tuple(leaf.new_empty(leaf.shape if need else 0) for leaf, need in pairs)
            return grads if law.gradients > 1 else grads[0]

        op = _custom_op(f"fastmtl::{name}", run, backward)
        op.register_fake(fake)

        def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            results = output if law.results > 1 else (output,)
            kept = choose(results, inputs) if choose else results[law.last]
            law.save(ctx, kept, law.flat(inputs))
            ctx.mark_non_differentiable(*results[law.outputs :])

        def differentiate(ctx: Any, *grads: Tensor) -> Any:
            return law.nested(law.differentiate(op, ctx, grads[: law.outputs], 0))

        self._registered.register_autograd(differentiate, setup_context=setup)


def _custom_op(name: str, run: Callable[..., Any], prototype: Callable[..., Any]) -> Any:
    schema = torch.library.infer_schema(prototype, mutates_args=())
    return torch.library.custom_op(name, run, mutates_args=(), schema=schema)


def _like(results: Any) -> Any:
    """Empty results, contiguous as the kernels return them."""
    if isinstance(results, Tensor):
        return results.new_empty(results.shape)
    return tuple(result.new_empty(result.shape) for result in results)


def _dense(results: Any) -> Any:
    """The reference's results too, which have the strides of its arguments."""
    if isinstance(results, Tensor):
        return results.contiguous()
    return type(results)(result.contiguous() for result in results)
