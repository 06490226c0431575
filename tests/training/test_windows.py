from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

import fastmtl
from fastmtl.training import Batches, Predictor, Trainer, load_data
from fastmtl.training.inputs import fingerprint
from fastmtl.training.windows import ahead

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """A multimodal set in int8, with lengths and missing labels."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (60, 3)).astype("f4")
    y[rng.random(y.shape) < 0.2] = np.nan
    arrays = {
        "x_text": rng.integers(-128, 128, (60, 4)).astype("i1"),
        "x_video": rng.integers(-128, 128, (60, 3, 6)).astype("i1"),
        "lengths": rng.integers(1, 4, 60),
        "y": y,
    }
    path = tmp_path / "set"
    path.mkdir()
    for name, value in arrays.items():
        np.save(path / f"{name}.npy", value)
    return path


@pytest.fixture(params=[1, 600, 1 << 20])
def window(request, monkeypatch):
    """Windows of one batch, of a few, and of all."""
    monkeypatch.setattr("fastmtl.training.windows.WINDOW_BYTES", request.param)


def test_batches_are_those_of_memory(folder, window):
    loaded, streamed = (fastmtl.data.load(folder, memory=m) for m in ("load", "stream"))
    order = torch.randperm(60)[:53]
    pairs = zip(Batches(loaded, CPU)(order, 8), Batches(streamed, CPU)(order, 8), strict=True)
    for ours, theirs in pairs:
        assert list(ours.x) == list(theirs.x)
        for name, value in ours.x.items():
            assert torch.equal(theirs.x[name], value)
        assert torch.equal(ours.lengths, theirs.lengths)
        assert torch.equal(ours.counts, theirs.counts)
    assert list(Batches(streamed, CPU)(torch.empty(0, dtype=torch.int64), 4)) == []


def test_a_run_with_lengths_by_modality(tmp_path, folder, make_config):
    (folder / "lengths.npy").rename(folder / "lengths_video.npy")
    rng = np.random.default_rng(1)
    np.save(folder / "x_audio.npy", rng.standard_normal((60, 5, 2)))
    np.save(folder / "lengths_audio.npy", rng.integers(1, 6, 60))
    found = []
    for memory in ("load", "stream"):
        config = make_config("hgfn", data=str(folder), memory=memory, threads=1, epochs=2)
        found.append(Trainer.from_config(config, tmp_path / memory).fit()["val"])
    assert found[0] == found[1]
    np.save(folder / "lengths_audio.npy", np.full(60, 5))
    config = make_config("hgfn", data=str(folder), threads=1, epochs=2)
    assert Trainer.from_config(config, tmp_path / "unpadded").fit()["val"] != found[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_a_gpu_are_those_of_memory(folder, window):
    device = torch.device("cuda")
    order = torch.randperm(60)[:53]
    made = []
    for memory in ("load", "stream"):
        data = fastmtl.data.load(folder, memory=memory)
        data = fastmtl.data.Standardizer().fit(data).transform(data)
        made.append(list(Batches(data, device)(order, 8)))
    for ours, theirs in zip(*made, strict=True):
        for name, value in ours.x.items():
            assert theirs.x[name].device.type == "cuda"
            torch.testing.assert_close(theirs.x[name], value)
        assert torch.equal(ours.lengths, theirs.lengths)


@pytest.mark.parametrize(("model", "modalities"), [("hgfn", None), ("mtmlan", "video"),
                                                   ("mtmlan", "text")])  # fmt: skip
@pytest.mark.parametrize("standardize", [True, False])
def test_a_run_is_the_same_to_the_bit(
    tmp_path, folder, make_config, window, model, modalities, standardize
):
    metrics, states = [], []
    for memory in ("load", "stream"):
        config = make_config(
            model, data=str(folder), modalities=modalities, memory=memory, threads=1, epochs=2,
            standardize=standardize,
        )  # fmt: skip
        trainer = Trainer.from_config(config, tmp_path / memory)
        metrics.append(trainer.fit())
        states.append(trainer.model.state_dict())
        del metrics[-1]["training"]
    assert metrics[0] == metrics[1]
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value)
    predictor = Predictor.load(tmp_path / "load", "cpu")
    found = [
        predictor.probabilities(load_data(config, str(folder))) for config in
        (make_config(model, modalities=modalities, memory=m) for m in ("load", "stream"))
    ]  # fmt: skip
    assert torch.equal(*found)


def test_a_run_in_memory_is_resumed_from_the_file(tmp_path, folder, make_config):
    options = {"data": str(folder), "threads": 1}
    Trainer.from_config(
        make_config("hgfn", memory="load", epochs=2, **options), tmp_path / "a"
    ).fit()
    resumed = Trainer.from_config(
        make_config("hgfn", memory="stream", epochs=3, **options), tmp_path / "a"
    ).fit(resume=True)
    whole = Trainer.from_config(
        make_config("hgfn", memory="load", epochs=3, **options), tmp_path / "b"
    ).fit()
    assert resumed["val"] == whole["val"]


def test_the_fingerprint_does_not_depend_on_where_features_are(folder):
    loaded, streamed = (fastmtl.data.load(folder, memory=m) for m in ("load", "stream"))
    assert fingerprint(loaded) == fingerprint(streamed)
    text = np.load(folder / "x_text.npy")
    text[-1, -1] ^= 1
    np.save(folder / "x_text.npy", text)
    assert fingerprint(fastmtl.data.load(folder, memory="stream")) != fingerprint(loaded)


def test_items_come_in_order_and_errors_where_they_were_raised():
    def items():
        yield from range(5)
        raise ValueError("broken")

    reader = ahead(items())
    assert [next(reader) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="broken"):
        next(reader)


def test_no_thread_is_left_where_one_stops_early():
    def endless():
        while True:
            yield torch.ones(1)

    before = threading.active_count()
    items = ahead(endless())
    next(items)
    assert threading.active_count() == before + 1
    items.close()
    assert threading.active_count() == before


def test_one_item_is_made_ahead():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    reader = ahead(items())
    next(reader)
    time.sleep(0.2)
    assert len(made) <= 3
    reader.close()


@pytest.mark.parametrize("memory", ["load", "stream"])
def test_samples_are_trained_on(tmp_path, make_config, memory):
    x, y = torch.randn(60, 4), torch.eye(3).repeat(20, 1)
    config = make_config("hgfn", memory=memory, threads=1)
    samples = torch.utils.data.TensorDataset(x, y)
    found = Trainer.from_config(config, tmp_path / "a", samples).fit()
    data = fastmtl.data.MultiTaskData.from_arrays(x, y, seed=config.seed)
    expected = Trainer.from_config(config, tmp_path / "b", data).fit()
    assert found["val"] == expected["val"]
    with pytest.raises(TypeError, match="data: expected a MultiTaskData or samples, got int"):
        Trainer.from_config(config, tmp_path / "c", 3)
