"""The specification: every op in plain PyTorch, on any device, with explicit backward formulas.

A file holds the ops of `fastmtl/ops` of the same name. For each there are three functions:

    OP(*arguments) -> outputs
        the formula as one would write it in PyTorch, differentiated by autograd
    OP_forward(*arguments) -> outputs, kept
    OP_backward(*grads, *kept, *arguments) -> gradients
        what every backend implements; an op without gradients has no backward

Their signatures are laws that `fastmtl.ops._op` builds on. Tensors come before settings. `kept` is
what backward reads of the forward pass beside its arguments: the last of what forward returns.
`grads` belong to the outputs; of type `Tensor | None`, they are None for an output that nobody
differentiates. Gradients are those of the first arguments. A last parameter `needs` of OP_backward
tells which of them are wanted; the others are empty.
"""


def why_not(device: str) -> str:
    """Why this backend does not run on a type of device: it runs on all."""
    return ""
