"""Lengths of sequences that differ by modality."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastmtl.data import DataError, MultiTaskData, Standardizer, load, load_npz
from tests.data.test_stored import same

N = 20


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "x_audio": rng.standard_normal((N, 6, 2)),
        "x_video": rng.standard_normal((N, 3, 4)),
        "x_text": rng.standard_normal((N, 5)),
        "y": np.tile([[0, 1], [1, 0]], (N // 2, 1)),
        "lengths_audio": rng.integers(1, 7, N),
        "lengths_video": rng.integers(1, 4, N),
    }


def write(folder: Path, **fields: Any) -> Path:
    folder.mkdir(exist_ok=True)
    np.savez(folder / "a.npz", **{**arrays(), **fields})
    return folder / "a.npz"


def refuses(folder: Path, message: str, **fields: Any) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_npz(write(folder, **fields))
    assert "\n" not in str(caught.value)


def test_each_modality_is_padded_by_its_own(tmp_path: Path) -> None:
    fields = arrays()
    data = load_npz(write(tmp_path))
    assert isinstance(data.lengths, dict)
    for name in ("audio", "video"):
        lengths = fields[f"lengths_{name}"]
        assert data.lengths[name].tolist() == lengths.tolist()
        for row, (there, given) in enumerate(
            zip(data.tensors()[name], fields[f"x_{name}"], strict=True)
        ):
            valid = lengths[row]
            np.testing.assert_array_equal(there[:valid], given[:valid].astype("f4"))
            assert not there[valid:].any()
    assert data.lengths_of("text") is None


def test_those_of_some_modalities_do(tmp_path: Path) -> None:
    fields = arrays()
    data = MultiTaskData.from_arrays(
        {name: fields[f"x_{name}"] for name in ("audio", "video")},
        fields["y"],
        lengths={"audio": fields["lengths_audio"]},
    )
    assert data.lengths_of("video") is None
    assert data.tensors()["video"].ne(0).all()


def test_they_go_with_rows_and_modalities(tmp_path: Path) -> None:
    data = load_npz(write(tmp_path))
    rows = torch.tensor([4, 2])
    part, whole = data.subset(rows).lengths_of("audio"), data.lengths_of("audio")
    assert part is not None
    assert whole is not None
    assert torch.equal(part, whole[rows])
    assert list(data.with_modalities(["video", "text"]).lengths or {}) == ["video"]
    assert data.with_modalities(["text"]).lengths is None


def test_padded_steps_are_left_out_of_the_standardisation(tmp_path: Path) -> None:
    data = load_npz(write(tmp_path))
    audio = data.lengths_of("audio")
    assert audio is not None
    rows = data.indices("train")
    steps = [data.tensors()["audio"][row, : audio[row]] for row in rows]
    fitted = Standardizer().fit(data)
    torch.testing.assert_close(fitted.state_dict()["audio.mean"], torch.cat(steps).mean(0))
    out = fitted.transform(data)
    for row, length in enumerate(audio.tolist()):
        assert not out.tensors()["audio"][row, length:].any()
    same(fitted.transform(load(write(tmp_path), memory="stream")), out)


def test_a_test_file_has_them_too(tmp_path: Path) -> None:
    data = load_npz(write(tmp_path), test=write(tmp_path / "b"))
    lengths = data.lengths_of("audio")
    assert lengths is not None
    assert lengths[:N].tolist() == lengths[N:].tolist()
    fields = arrays()
    del fields["lengths_video"]
    np.savez(tmp_path / "c.npz", **fields)
    with pytest.raises(DataError, match="lengths_video: expected the field in both files"):
        load_npz(write(tmp_path), test=tmp_path / "c.npz")


def test_what_cannot_be(tmp_path: Path) -> None:
    ones = np.ones(N, np.int64)
    refuses(
        tmp_path,
        "lengths: expected only one of .* got both lengths and lengths_audio",
        lengths=ones,
    )
    refuses(tmp_path, "lengths_text: expected lengths of a sequence .*, audio or video, "
            "got 'text'", lengths_text=ones)  # fmt: skip
    refuses(tmp_path, r"lengths_vidio: .* \(did you mean 'video'\?\)", lengths_vidio=ones)
    refuses(tmp_path, "lengths_video: expected from 0 to 3 steps .* got 4 at row 0",
            lengths_video=4 * ones)  # fmt: skip
    refuses(tmp_path, "lengths_video: expected 20 rows", lengths_video=ones[:-1])
    refuses(tmp_path, "lengths_video: expected integers of shape", lengths_video=ones + 0.5)
    with pytest.raises(
        DataError, match=r"lengths_x: expected lengths of a sequence .* of which there is none"
    ):
        MultiTaskData.from_arrays(np.ones((N, 3, 2)), arrays()["y"], lengths={"x": ones})
