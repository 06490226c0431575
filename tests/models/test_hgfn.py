from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fastmtl.models import HGFN, FusionBaseline
from fastmtl.nn import GroupedFocalLoss, fusion_levels
from tests.tolerances import assert_close

FEATURES = {"text": 7, "audio": 3, "video": 4}


def model(**arguments: Any) -> HGFN:
    arguments = {"sequence_modalities": ["audio", "video"], **arguments}
    return HGFN(FEATURES, 3, hidden_size=6, head_size=5, attention_size=3, **arguments)


def inputs(batch: int = 4) -> dict[str, Tensor]:
    return {
        "text": torch.randn(batch, 7),
        "audio": torch.randn(batch, 9, 3),
        "video": torch.randn(batch, 6, 4),
    }


def test_order_of_the_input_dict_changes_nothing() -> None:
    hgfn, x = model(), inputs()
    assert hgfn(dict(reversed(x.items()))).equal(hgfn(x))


def test_lengths_by_modality() -> None:
    hgfn, x = model(), inputs()
    lengths = torch.tensor([6, 1, 3, 5])
    both = hgfn(x, lengths)
    assert hgfn(x, {"audio": lengths, "video": lengths}).equal(both)
    video = hgfn(x, {"video": lengths})
    assert not video.equal(both)
    assert hgfn(x, {"video": lengths, "audio": None}).equal(video)
    assert_close(hgfn.to_torch()(x, {"video": lengths}), video.double(), scale=3)
    assert hgfn(x, {}).equal(hgfn(x))


def test_fusion_weights() -> None:
    hgfn, x = model(), inputs()
    weights = hgfn.fusion_weights(x, torch.tensor([6, 1, 3, 5]))
    sizes = [3, *(len(level.edges) for level in fusion_levels(3))]
    assert [tuple(weight.shape) for weight in weights] == [(4, size) for size in sizes]
    assert not any(weight.requires_grad for weight in weights)
    for weight in weights[1:]:
        assert_close(weight.sum(1), torch.ones(4))


def test_fusion_weights_by_name() -> None:
    hgfn, x = model(), inputs()
    weights, named = hgfn.fusion_weights(x), hgfn.fusion_weights(x, named=True)
    assert [list(level) for level in named] == [
        ["text", "audio", "video"],
        ["text+audio", "text+video", "audio+video"],
        [
            "(text+audio)+(text+video)",
            "(text+audio)+(audio+video)",
            "(text+video)+(audio+video)",
            "(text+audio)+video",
            "(text+video)+audio",
            "(audio+video)+text",
        ],
    ]
    for level, own in zip(weights, named, strict=True):
        assert torch.stack(list(own.values()), 1).equal(level)


def test_attention_of_each_sequence() -> None:
    hgfn, x = model(), inputs()
    lengths = torch.tensor([6, 1, 3, 5])
    attention = hgfn.attention(x, {"video": lengths})
    assert {name: tuple(each.shape) for name, each in attention.items()} == {
        "audio": (4, x["audio"].shape[1]),
        "video": (4, 6),
    }
    for each in attention.values():
        assert_close(each.sum(1), torch.ones(4))
    beyond = torch.arange(6) >= lengths.unsqueeze(1)
    assert not attention["video"][beyond].any()
    assert attention["video"][~beyond].all()


def test_group_columns_are_those_of_their_task() -> None:
    hgfn, x = model(group_sizes=[2, 3, 5]), inputs()
    sizes = [2, 3, 5]
    loss = GroupedFocalLoss(sizes)
    targets = torch.stack([torch.randint(0, size, (4,)) for size in sizes], 1)
    loss(hgfn(x), targets).sum().backward()
    last = hgfn.task_weight("last").grad
    assert last is not None
    for task, size in enumerate(sizes):
        assert last[task, size:].eq(0).all()
        assert last[task, :size].ne(0).any(1).all()


def test_dropout_acts_in_training_alone() -> None:
    hgfn, x = model(dropout=0.5), inputs()
    assert not hgfn(x).equal(hgfn(x))
    hgfn.eval()
    assert hgfn(x).equal(hgfn(x))


def test_beside_the_levels_the_vectors_are_read_as_by_concatenation() -> None:
    model = HGFN(FEATURES, 3, residual=True)
    levels, vectors = model.shared.weight.detach().split([3 * 128, 3 * 128], 1)
    for weights, read in ((vectors, 3 * 128), (levels, 6 * 128)):
        assert float(weights.abs().max()) == pytest.approx(read**-0.5, rel=0.01)
        assert float(weights.std()) == pytest.approx((3 * read) ** -0.5, rel=0.05)


@pytest.mark.parametrize("kind", ["hgfn", "cfc", "matf", "gfn"])
def test_nothing_hands_on_what_dropout_takes_from_a_modality(kind: str) -> None:
    sizes: dict[str, Any] = {"hidden_size": 64, "dropout": 0.5}
    network: Any = HGFN(FEATURES, 3, residual=True, similarity_norm=True, **sizes)
    if kind != "hgfn":
        network = FusionBaseline(FEATURES, 3, fusion=kind, **sizes)
    vectors: list[Tensor] = []
    for encoder in network.encoders:
        encoder.register_forward_hook(lambda module, inputs, output: vectors.append(output))
    logits = network({name: torch.randn(16, size) for name, size in FEATURES.items()})
    for grad in torch.autograd.grad(logits.square().sum(), vectors):
        assert 0.4 < float(grad.eq(0).float().mean()) < 0.6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": None}, r"x: expected the modalities \['text', 'audio', 'video'\], got"),
        ({"other": torch.zeros(4, 2)}, r"x: expected the modalities .*'other'"),
        ({"text": torch.zeros(4, 6)}, r"x\['text'\]: expected a \(B, 7\) tensor, got shape"),
        ({"text": torch.zeros(4, 2, 7)}, r"x\['text'\]: expected a \(B, 7\) tensor"),
        ({"video": torch.zeros(4, 4)}, r"x\['video'\]: expected a \(4, L, 4\) tensor"),
        ({"video": torch.zeros(3, 6, 4)}, r"x\['video'\]: expected a \(4, L, 4\) tensor"),
        ({"video": torch.zeros(4, 0, 4)}, r"lengths of 'video': expected sequences of at least"),
    ],
)
def test_wrong_inputs(change: dict[str, Tensor | None], message: str) -> None:
    x = {name: value for name, value in {**inputs(), **change}.items() if value is not None}
    with pytest.raises(ValueError, match=f"^{message}"):
        model()(x)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (torch.tensor([6, 1, 3, 7]), r"lengths of 'video': expected lengths from 1 to 6"),
        (torch.tensor([6, 1, 3]), r"lengths of 'audio': expected \(B,\) = \(4,\)"),
        ({"text": torch.tensor([1, 1, 1, 1])}, r"lengths: expected lengths of the sequences"),
        ({"sound": torch.tensor([1, 1, 1, 1])}, r"lengths: expected lengths of the sequences"),
    ],
)
def test_wrong_lengths(lengths: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        model()(inputs(), lengths)


def test_lengths_without_a_sequence() -> None:
    hgfn = HGFN({"text": 7}, 2)
    with pytest.raises(ValueError, match=r"^lengths: expected None, since no modality"):
        hgfn({"text": torch.zeros(4, 7)}, torch.tensor([1, 1, 1, 1]))


def test_wrong_types() -> None:
    with pytest.raises(TypeError, match=r"^x: expected a dict of tensors, got Tensor"):
        model()(torch.zeros(4, 7))
    with pytest.raises(TypeError, match=r"^x\['text'\]: expected a tensor, got list"):
        model()({**inputs(), "text": [1.0]})
    with pytest.raises(TypeError, match=r"^modalities: expected a dict"):
        HGFN(["text"], 2)
    with pytest.raises(TypeError, match=r"^modalities: expected names that are strings, got 1"):
        HGFN({1: 7}, 2)
    with pytest.raises(TypeError, match=r"^sequence_modalities: expected a list of names"):
        HGFN({"text": 7}, 2, sequence_modalities="text")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"modalities": {}}, "modalities"),
        ({"modalities": {"text": 0}}, r"modalities\['text'\]"),
        ({"num_tasks": 0}, "num_tasks"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"head_size": 0}, "head_size"),
        ({"theta": -0.5}, "theta"),
        ({"max_level": 0}, "max_level"),
        ({"sequence_modalities": ["video"]}, "sequence_modalities"),
        ({"group_sizes": [2]}, "group_sizes"),
        ({"group_sizes": [2, 0]}, "group_sizes"),
        ({"dropout": -0.1}, "dropout"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        HGFN(**{"modalities": {"text": 7}, "num_tasks": 2, **arguments})
