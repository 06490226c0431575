from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import fastmtl
from fastmtl.data import DataError, MultiTaskData
from fastmtl.training import arrange, load_data
from fastmtl.training.inputs import check_fits, describe, fingerprint
from tests.training.conftest import MODALITIES, SEQUENCES


def flat(features=5):
    return MultiTaskData.from_arrays(torch.randn(10, features), torch.eye(2).repeat(5, 1))


def test_flat_features_are_a_sequence_of_one_step_for_mtmlan():
    data = flat()
    x = arrange(data, "mtmlan").x
    assert torch.equal(x, data.x.unsqueeze(1))


def test_a_single_tensor_is_a_modality_for_hgfn():
    data = flat()
    assert arrange(data, "hgfn").x == {"x": data.x}


def test_several_modalities_are_refused_for_mtmlan():
    data = fastmtl.data.load(MODALITIES)
    with pytest.raises(DataError, match=r"text, audio, video \(use hgfn, or keep one"):
        arrange(data, "mtmlan")


def test_one_modality_of_several_serves_mtmlan(make_config):
    config = make_config(data=MODALITIES, modalities="video")
    assert load_data(config, MODALITIES).x.shape == (60, 3, 6)
    config = make_config(data=MODALITIES, modalities="audio")
    assert load_data(config, MODALITIES).x.shape == (60, 1, 5)


def test_columns_become_modalities_for_hgfn(make_config):
    config = make_config("hgfn", modalities="left=0:2,right=2:6")
    assert load_data(config, SEQUENCES).modalities == {"left": (4, 2), "right": (4, 4)}


def test_lengths_go_where_no_sequence_is_left(make_config):
    spec = MODALITIES + "&min_frames=2"
    assert load_data(make_config("hgfn"), spec).lengths is not None
    assert load_data(make_config("hgfn", modalities="text,audio"), spec).lengths is None
    assert load_data(make_config(modalities="text"), spec).lengths is None


def test_the_split_is_drawn_with_the_seed(make_config):
    first, second = (load_data(make_config(seed=s), SEQUENCES).split for s in (1, 2))
    assert not torch.equal(first, second)
    assert torch.equal(first, load_data(make_config(seed=1), SEQUENCES).split)


def test_data_of_another_kind_does_not_fit():
    stored = describe(arrange(flat(), "mtmlan"))
    check_fits(arrange(flat(), "mtmlan"), stored)
    with pytest.raises(DataError, match="x: 5, got x: 6"):
        check_fits(arrange(flat(6), "mtmlan"), stored)
    renamed = replace(arrange(flat(), "mtmlan"), label_names=("a", "b"))
    with pytest.raises(
        DataError, match="the labels of the training data, task_0, task_1, got a, b"
    ):
        check_fits(renamed, stored)
    sequences = describe(arrange(fastmtl.data.load(MODALITIES), "hgfn"))
    flattened = fastmtl.data.load(MODALITIES)
    flattened.x["video"] = flattened.x["video"][:, 0]
    with pytest.raises(DataError, match="the sequences of the training data, video, got none"):
        check_fits(flattened, sequences)


def test_labels_without_names_are_those_of_the_run_in_their_order():
    named = replace(arrange(flat(), "mtmlan"), label_names=["sea", "sky"])
    check_fits(arrange(flat(), "mtmlan"), describe(named))
    y = torch.eye(5).repeat(2, 1)
    other = arrange(MultiTaskData.from_arrays(torch.randn(10, 5), y), "mtmlan")
    with pytest.raises(DataError, match="y: expected 2 columns as in the training data, got 5"):
        check_fits(other, describe(named))
    check_fits(other, describe(named), labels=False)
    with pytest.raises(DataError, match="label_names"):
        check_fits(replace(named, label_names=["a", "b"]), describe(named), labels=False)


def test_data_without_labels_fits():
    unlabelled = MultiTaskData.from_arrays(torch.randn(4, 5), None, for_training=False)
    check_fits(arrange(unlabelled, "mtmlan"), describe(arrange(flat(), "mtmlan")))


def test_the_fingerprint_sees_every_part():
    data = fastmtl.data.load(SEQUENCES)
    same = fastmtl.data.load(SEQUENCES)
    prints = [fingerprint(data)]
    assert fingerprint(same) == prints[0]
    x, y, lengths = data.x.clone(), data.y.clone(), data.lengths.clone()
    x[-1, 0, 0] += 1e-3
    y[-1, -1] = float("nan") if y[-1, -1] == y[-1, -1] else 1.0
    lengths[0] = 5 - lengths[0]
    for change in (
        {"x": x},
        {"y": y},
        {"lengths": lengths},
        {"lengths": None},
        {"split": data.split.flip(0)},
        {"label_names": data.label_names[::-1]},
    ):
        prints.append(fingerprint(replace(data, **change)))
    assert len(set(prints)) == len(prints)


def test_lengths_by_modality_reach_the_model_and_the_fingerprint():
    x = {"a": torch.randn(10, 3, 2), "b": torch.randn(10, 5, 2)}
    lengths = {"a": torch.full((10,), 3), "b": torch.arange(10) % 5 + 1}
    data = MultiTaskData.from_arrays(x, torch.eye(2).repeat(5, 1), lengths=lengths)
    assert arrange(data, "hgfn").lengths.keys() == lengths.keys()
    assert torch.equal(arrange(data.with_modalities(["b"]), "mtmlan").lengths, lengths["b"])
    one_less = {**data.lengths, "a": data.lengths["a"] - 1}
    assert fingerprint(replace(data, lengths=one_less)) != fingerprint(data)
