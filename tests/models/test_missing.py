"""Samples that lack modalities: the fusions leave these out."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from fastmtl.models import HGFN, FusionBaseline
from fastmtl.models.fusions import ConcatFusion, GraphFusion, TensorFusion
from fastmtl.nn import HierarchicalGraphFusion
from tests.models.cases import CASES, cast
from tests.tolerances import assert_close

FUSIONS = {
    "cfc": ConcatFusion,
    "matf": TensorFusion,
    "gfn": GraphFusion,
    "hgfn": HierarchicalGraphFusion,
    "hgfn-all": lambda m, d: HierarchicalGraphFusion(
        m, d, similarity_norm=True, level_norm=True, residual=True
    ),
}
SIZE = 6


def subsets(count):
    every = range(count)
    return [kept for size in range(1, count + 1) for kept in combinations(every, size)]


def present_of(kept, count, batch):
    return torch.tensor([[i in kept for i in range(count)]] * batch)


def blocks(name, fused, modalities, kept):
    """The parts of a fused vector that a fusion of the kept modalities alone has, in order."""
    parts = list(fused.split(SIZE, 1))
    if name in ("cfc", "matf"):
        return torch.cat([parts[i] for i in kept], 1)
    levels = min(modalities, 3)
    own = parts[: min(len(kept), 3)]
    if name == "hgfn-all":
        own += [parts[levels + i] for i in kept]
    assert all(not part.any() for part in parts[len(kept) : levels])
    return torch.cat(own, 1)


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("kept", subsets(3))
def test_a_fusion_is_that_of_the_modalities_that_are_there(name, kept):
    """Exactly, where the attention unit or convolution sees the same neighbours."""
    if kept == (0, 2) and name != "cfc" and name != "gfn":
        pytest.skip("their neighbours differ")
    full = FUSIONS[name](3, SIZE).double()
    small = FUSIONS[name](len(kept), SIZE).double()
    weights = full.state_dict()
    if "gain" in weights:
        weights["gain"] = weights["gain"][: min(len(kept), 3)]
    small.load_state_dict({k: weights[k] for k in small.state_dict()})
    vertices = torch.randn(5, 3, SIZE, dtype=torch.float64)
    fused = full(vertices, present=present_of(kept, 3, 5))
    assert_close(blocks(name, fused, 3, kept), small(vertices[:, list(kept)]))


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_stands_for_an_absent_vertex_is_not_read(name, dtype):
    fusion = FUSIONS[name](4, SIZE).to(dtype)
    present = torch.tensor([[i in kept for i in range(4)] for kept in subsets(4)])
    vertices = torch.randn(len(present), 4, SIZE).to(dtype)
    results = []
    for filler in (0.0, 7.0, torch.nan, torch.inf):
        given = vertices.masked_fill(~present.unsqueeze(2), filler).requires_grad_()
        fused = fusion(given, present=present)
        grads = torch.autograd.grad(fused.float().square().sum(), [given, *fusion.parameters()])
        assert all(bool(grad.isfinite().all()) for grad in (fused, *grads))
        assert not bool(grads[0][~present].any())
        results.append((fused, *grads))
    for each in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(each, results[0], strict=True))


@pytest.mark.parametrize("name", FUSIONS)
def test_all_present_is_no_mask(name):
    fusion = FUSIONS[name](4, SIZE).double()
    vertices = torch.randn(3, 4, SIZE, dtype=torch.float64)
    assert_close(fusion(vertices, present=torch.ones(3, 4, dtype=torch.bool)), fusion(vertices))


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_gradients_of_the_graph(backend):
    import fastmtl

    fusion = HierarchicalGraphFusion(3, 4, similarity_norm=True, residual=True).double()
    present = torch.tensor([[True, False, True], [False, True, False], [True, True, True]])
    vertices = torch.randn(3, 3, 4, dtype=torch.float64, requires_grad=True)
    with fastmtl.use_backend(backend):
        assert torch.autograd.gradcheck(lambda v: fusion(v, present=present), vertices)


def test_weights_of_absent_vertices_and_edges_are_0():
    fusion = HierarchicalGraphFusion(3, SIZE)
    present = torch.tensor([[True, True, False], [False, True, False]])
    _, weights = fusion(torch.randn(2, 3, SIZE), return_weights=True, present=present)
    importance, pairs, triples = weights
    assert torch.equal(importance == 0, ~present)
    assert torch.equal(pairs, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    assert not bool(triples.any())


def inputs_with_absent(case, batch=6):
    """A batch of which every sample but the first lacks something, and what is there."""
    x, names = case.inputs(batch, dtype=torch.float64), list(case.features)
    present = {
        name: torch.tensor([i % (k + 2) != k + 1 for i in range(batch)])
        for k, name in enumerate(names[:-1])
    }
    return x, present


def poisoned(x, present, value):
    return {
        name: each
        if name not in present
        else each.masked_fill(~present[name].view(-1, *[1] * (each.dim() - 1)), value)
        for name, each in x.items()
    }


MULTIMODAL = [name for name, case in CASES.items() if len(case.features) > 1]


@pytest.mark.parametrize("name", MULTIMODAL)
def test_a_model_does_not_read_what_is_absent_and_is_its_twin(name):
    case = CASES[name]
    model = case.build().double()
    x, present = inputs_with_absent(case)
    lengths = case.lengths(6)
    logits = []
    for value in (0.0, torch.nan, torch.inf):
        model.zero_grad()
        logits.append(model(poisoned(x, present, value), lengths, present))
        logits[-1].sum().backward()
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters())
        assert torch.equal(logits[-1], logits[0])
    twin = model.to_torch()
    assert_close(twin(poisoned(x, present, torch.nan), lengths, present), logits[0])
    full = {name: torch.ones_like(each) for name, each in present.items()}
    assert_close(model(x, lengths, full), model(x, lengths))


@pytest.mark.parametrize("name", ["hgfn", "cfc", "gfn", "matf"])
def test_a_sample_is_what_it_is_without_the_others(name):
    sizes = {"text": 4, "audio": 3}
    options = {"num_tasks": 2, "hidden_size": 5}
    model = (
        HGFN(sizes, **options) if name == "hgfn" else FusionBaseline(sizes, fusion=name, **options)
    )
    x = {"text": torch.randn(4, 4), "audio": torch.randn(4, 3)}
    present = {"audio": torch.tensor([True, False, True, False])}
    together = model(x, None, present)
    for row in range(4):
        own = {key: value[row : row + 1] for key, value in x.items()}
        alone = {key: value[row : row + 1] for key, value in present.items()}
        assert_close(model(own, None, alone), together[row : row + 1])


def test_a_sample_without_any_modality_is_no_number():
    model = FusionBaseline({"text": 4, "audio": 3}, 2)
    x = {"text": torch.randn(2, 4), "audio": torch.randn(2, 3)}
    none = {name: torch.tensor([True, False]) for name in x}
    assert model(x, None, none).isnan().any(1).tolist() == [False, True]


def test_what_is_present_is_checked():
    model = HGFN({"text": 4, "audio": 3}, 2)
    x = {"text": torch.randn(2, 4), "audio": torch.randn(2, 3)}
    there = torch.ones(2, dtype=torch.bool)
    with pytest.raises(TypeError, match=r"^present: expected a dict of tensors, got Tensor"):
        model(x, None, there)
    with pytest.raises(ValueError, match=r"^present: expected some of \['text', 'audio'\], got"):
        model(x, None, {"video": there})
    with pytest.raises(TypeError, match=r"^present\['text'\]: expected bool, .*got torch.float32"):
        model(x, None, {"text": there.float()})
    with pytest.raises(
        ValueError, match=r"^present\['text'\]: expected .* = \(2,\), got shape \(1,"
    ):
        model(x, None, {"text": there[:1]})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", MULTIMODAL)
def test_on_a_gpu(name):
    case = CASES[name]
    model = case.build()
    x, present = inputs_with_absent(case)
    x, lengths = cast(x, torch.float32), case.lengths(6)
    expected = model(x, lengths, present)
    x, present = ({k: v.cuda() for k, v in each.items()} for each in (x, present))
    logits = model.cuda()(poisoned(x, present, torch.nan), lengths, present)
    torch.testing.assert_close(logits.cpu(), expected, rtol=1e-3, atol=1e-4)


def test_nothing_is_attended_in_what_is_absent():
    model = HGFN({"video": 3, "text": 2}, 2, hidden_size=4, sequence_modalities=["video"])
    x = {"video": torch.randn(2, 4, 3), "text": torch.randn(2, 2)}
    weights = model.eval().attention(x, present={"video": torch.tensor([True, False])})["video"]
    torch.testing.assert_close(weights.sum(1), torch.tensor([1.0, 0.0]))
