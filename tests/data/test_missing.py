"""Samples that lack some of their modalities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastmtl
from fastmtl.data import DataError, MultiTaskData, Standardizer, from_samples
from fastmtl.data.missing import absent_rows

N = 30
TEXT, VIDEO = [1, 4, 7, 20], [0, 2, 4 + 1, 21]


def fields(*, by_modality: bool = True) -> dict[str, Any]:
    """Text and video, of which some samples lack one: NaN, and for video the length 0 too."""
    rng = np.random.default_rng(0)
    text = rng.standard_normal((N, 4)).astype("f4")
    video = rng.standard_normal((N, 5, 3)).astype("f4")
    lengths = rng.integers(1, 6, N)
    text[TEXT], video[VIDEO] = np.nan, np.nan
    if by_modality:
        lengths[VIDEO[:2]] = 0
        video[VIDEO[:2]] = 7
    return {
        "x_text": text,
        "x_video": video,
        "lengths_video" if by_modality else "lengths": lengths,
        "y": rng.integers(0, 2, (N, 2)),
        "split": np.array((["train"] * 8 + ["val"] + ["test"]) * 3),
    }


@pytest.fixture(params=["load", "stream"])
def memory(request: Any) -> str:
    return str(request.param)


def written(folder: Path, arrays: dict[str, Any]) -> Path:
    np.savez(folder / "a.npz", **arrays)
    return folder / "a.npz"


def lacking(data: MultiTaskData, name: str) -> list[int]:
    absent = absent_rows(data.tensors()[name], data.lengths_of(name))
    return [] if absent is None else absent.nonzero().flatten().tolist()


@pytest.mark.parametrize("by_modality", [True, False])
def test_rows_are_missing(tmp_path: Path, memory: str, by_modality: bool) -> None:
    path = written(tmp_path, fields(by_modality=by_modality))
    data = fastmtl.data.load(path, memory=memory)
    assert lacking(data, "text") == TEXT
    assert lacking(data, "video") == VIDEO
    assert lacking(data.subset([1, 2, 3, 4]), "text") == [0, 3]
    told = [f"samples have no x_{name}" for name in ("text", "video")] if memory == "load" else []
    assert [line for line in told if line in " ".join(data.warnings)] == told


def test_standardisation_leaves_them_out(tmp_path: Path, memory: str) -> None:
    arrays = fields()
    data = fastmtl.data.load(written(tmp_path, arrays), memory=memory)
    fitted = Standardizer().fit(data)
    train = set(data.indices("train").tolist())
    text = arrays["x_text"][sorted(train - set(TEXT))].astype("f8")
    np.testing.assert_allclose(fitted.state_dict()["text.mean"], text.mean(0), rtol=1e-5)
    np.testing.assert_allclose(fitted.state_dict()["text.scale"], text.std(0), rtol=1e-5)
    steps = np.concatenate(
        [arrays["x_video"][i, : arrays["lengths_video"][i]] for i in sorted(train - set(VIDEO))]
    ).astype("f8")
    np.testing.assert_allclose(fitted.state_dict()["video.mean"], steps.mean(0), rtol=1e-5)
    np.testing.assert_allclose(fitted.state_dict()["video.scale"], steps.std(0), rtol=1e-5)
    done = fitted.transform(data)
    assert lacking(done, "text") == TEXT
    assert lacking(done, "video") == VIDEO


def test_what_no_training_sample_has(tmp_path: Path, memory: str) -> None:
    arrays = fields()
    arrays["x_text"][arrays["split"] == "train"] = np.nan
    arrays["x_video"][:] = 1
    arrays["lengths_video"][:] = 5
    data = fastmtl.data.load(written(tmp_path, arrays), memory=memory)
    with pytest.raises(ValueError, match=r"^data: expected a training sample that has text, got"):
        Standardizer().fit(data)


def test_other_rows_that_are_no_numbers(tmp_path: Path, memory: str) -> None:
    for name, at in (("x_text", (3, 1)), ("x_video", (3, 0, 1))):
        arrays = fields()
        arrays[name][at] = np.nan
        path = written(tmp_path, arrays)
        with pytest.raises(DataError, match=rf"{name}: expected finite numbers, got .* row 3"):
            fastmtl.data.load(path, memory=memory).tensors()
    arrays = fields()
    arrays["x_text"][3] = np.inf
    with pytest.raises(DataError, match=r"x_text: expected finite numbers, got .* row 3"):
        fastmtl.data.load(written(tmp_path, arrays), memory=memory).tensors()


def test_a_single_modality_is_not_missing(tmp_path: Path, memory: str) -> None:
    arrays = fields()
    path = written(tmp_path, {"x": arrays["x_text"], "y": arrays["y"]})
    with pytest.raises(DataError, match=r"x: expected finite numbers, got .* row 1, "):
        fastmtl.data.load(path, memory=memory).tensors()
    del arrays["x_text"]
    with pytest.raises(DataError, match=r"lengths_video: expected from 1 to 5 steps .* 0 at row 0"):
        fastmtl.data.load(written(tmp_path, arrays), memory=memory)


def test_a_sample_without_any_modality(tmp_path: Path) -> None:
    arrays = fields()
    message = r"x: expected at least one modality in every sample, got none in row "
    data = fastmtl.data.load(written(tmp_path, arrays))
    with pytest.raises(DataError, match=message + "1$"):
        data.with_modalities(["text"])
    arrays["x_text"][5] = np.nan
    with pytest.raises(DataError, match=message + "5$"):
        fastmtl.data.load(written(tmp_path, arrays))


def test_sequences_without_padding_may_be_empty(tmp_path: Path, memory: str) -> None:
    arrays = fields()
    steps = arrays.pop("lengths_video")
    steps[VIDEO] = 0
    valid = np.arange(5) < steps[:, None]
    arrays["x_video"] = arrays["x_video"][valid]
    arrays["offsets_video"] = np.cumsum([0, *steps])
    data = fastmtl.data.load(written(tmp_path, arrays), memory=memory)
    assert lacking(data, "video") == VIDEO


def samples() -> list[Any]:
    """Those of `fields`, one by one, with keys only for what is there."""
    arrays = fields()
    out = []
    for i in range(N):
        x = {}
        if i not in TEXT:
            x["text"] = arrays["x_text"][i]
        if i not in VIDEO:
            x["video"] = arrays["x_video"][i, : arrays["lengths_video"][i]]
        out.append((x, arrays["y"][i]))
    return out


@pytest.mark.parametrize("kind", [np.float32, np.int8])
def test_a_key_that_a_sample_has_not(memory: str, kind: Any) -> None:
    given = [({k: (9 * v).astype(kind) for k, v in x.items()}, y) for x, y in samples()]
    data = from_samples(given, memory=memory)
    assert lacking(data, "text") == TEXT
    assert lacking(data, "video") == VIDEO
    there = [i for i in range(N) if i not in TEXT]
    np.testing.assert_array_equal(
        data.tensors()["text"][there], np.stack([given[i][0]["text"] for i in there])
    )
    given[3] = ({}, given[3][1])
    with pytest.raises(DataError, match="x of sample 3: expected at least one modality, got none"):
        from_samples(given, memory=memory)


def test_a_key_that_a_sample_has_not_with_lengths_of_its_own(memory: str) -> None:
    given = [(x, y, {"video": 1} if "video" in x else {}) for x, y in samples()]
    data = from_samples(given, memory=memory)
    assert lacking(data, "video") == VIDEO
    assert data.lengths_of("video").max() == 1


def test_a_key_that_comes_up_when_samples_are_asked_for_again() -> None:
    class Changing(torch.utils.data.Dataset):
        again = False

        def __len__(self) -> int:
            return 10

        def __getitem__(self, i: int) -> Any:
            x = {"text": torch.ones(3), "audio": torch.ones(2)}
            return x | ({"video": torch.ones(2)} if self.again else {}), [i % 2]

    given = Changing()
    data = from_samples(given, memory="stream")
    given.again = True
    with pytest.raises(DataError, match="x of sample 0: expected some of the modalities text, au"):
        data.tensors()
