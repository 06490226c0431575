"""The encoders that compute from the media alone: stft, hash and pixels."""

from __future__ import annotations

import numpy as np
import pytest

from fastmtl.data import DataError
from fastmtl.media import MediaError, Sampling
from fastmtl.media.encoders.base import Setting
from fastmtl.media.encoders.hashing import HashedText
from fastmtl.media.encoders.named import absolute, described, make_encoder, sampling_of
from fastmtl.media.encoders.pixels import PixelStatistics
from fastmtl.media.encoders.stft import LogMel
from fastmtl.media.texts import read_text
from tests.media.clips import write_clip, write_sound

SETTING = Setting(Sampling(rate=4))


def tone(frequency, seconds=2.0, rate=16000):
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate).astype("f4")


def test_log_mel_is_its_formula() -> None:
    mel = LogMel(16000, 20, 1.0, 60.0)
    sound = np.random.default_rng(0).normal(size=16000).astype("f4")
    energies = mel.energies(sound)
    assert energies.shape == (1 + (16000 - 512) // 256, 20)
    window = sound[256 * 7 :][:512] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512))
    power = np.abs(np.fft.rfft(window)) ** 2
    edges = np.linspace(2595 * np.log10(1 + 50 / 700), 2595 * np.log10(1 + 8000 / 700), 22)
    edges = 700 * (10 ** (edges / 2595) - 1)
    for band in (0, 9, 19):
        low, middle, high = edges[band : band + 3]
        triangle = np.interp(np.arange(257) * 16000 / 512, [low, middle, high], [0, 1, 0])
        assert energies[7, band] == pytest.approx(np.log(1e-6 + power @ triangle), abs=1e-3)


def test_log_mel_tells_high_from_low() -> None:
    mel = LogMel(16000, 40, 1.0, 60.0)
    bands = [mel.statistics(tone(f))[:, :40].argmax(1) for f in (200, 1000, 4000)]
    assert all((b == b[0]).all() for b in bands)
    assert bands[0][0] < bands[1][0] < bands[2][0]


@pytest.mark.parametrize(("seconds", "steps"), [(0.001, 1), (0.7, 1), (2.0, 2), (2.7, 3), (3.2, 3)])
def test_steps_of_sound(seconds, steps) -> None:
    assert LogMel(16000, 8, 1.0, 60.0).statistics(tone(300, seconds)).shape == (steps, 16)


def test_long_sound_is_transformed_in_parts(monkeypatch) -> None:
    mel, sound = LogMel(16000, 8, 1.0, 60.0), tone(300, 5.0)
    whole = mel.energies(sound)
    monkeypatch.setattr("fastmtl.media.encoders.stft._AT_ONCE", 7)
    np.testing.assert_array_equal(mel.energies(sound), whole)


def test_hashed_text() -> None:
    read = HashedText(64, 2).read
    a, b, none = (read(text).values for text in ("Water, water!", "water WATER", "..."))
    np.testing.assert_array_equal(a, b)
    assert np.linalg.norm(a) == pytest.approx(1.0)
    # Two words of which one is twice, and a pair of words.
    assert sorted(np.abs(a[a != 0]) ** 2 * 3) == pytest.approx([1.0, 2.0])
    assert not none.any()
    assert not np.array_equal(read("a b").values, read("b a").values)


def test_text_in_a_file(tmp_path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("über", encoding="utf-8-sig")
    assert read_text(path) == "über"
    path.write_bytes(b"\xff\xff")
    with pytest.raises(MediaError, match="is not a text in UTF-8"):
        read_text(path)
    with pytest.raises(MediaError, match="no such file"):
        read_text(tmp_path / "b.txt")


def test_pixels_see_colour_edges_and_motion() -> None:
    statistics = PixelStatistics(2, Sampling()).statistics
    frame = np.zeros((32, 32, 3), "f4")
    frame[:16, 16:, 0] = 1
    x = statistics(frame, None)
    assert x.shape == (2 * 2 * 13 + 64,)
    # A quarter of it is red, the rest black.
    assert (x[52 + 3 * 16], x[52]) == (0.25, 0.75)
    np.testing.assert_array_equal(x[:12].reshape(4, 3)[:, 0], [0, 1, 0, 0])
    assert (x[16:20] == 0).all()
    moved = statistics(np.roll(frame, 8, 1), frame)
    assert moved[16:18].max() > 0.1 > moved[18:20].max()
    # The edge on the left of the bright part goes up to the right: the first direction.
    edges = x[20:52].reshape(4, 8)
    assert edges.sum(0).argmax() == 0


def test_clips(tmp_path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    video, audio = make_encoder("video", "pixels", SETTING), make_encoder("audio", "stft", SETTING)
    clip = write_clip(tmp_path / "a.mp4", 2.0)
    assert video.request.read(clip).values.shape == (8, video.size)
    assert audio.request.read(clip).values.shape == (2, audio.size)
    assert audio.request.read(write_sound(tmp_path / "a.wav", 3.0)).values.shape == (3, audio.size)


@pytest.mark.parametrize(
    ("modality", "spec", "message"),
    [
        ("video", "pixel", "expected one of pixels, hf:NAME, .*did you mean 'pixels'"),
        ("video", "stft", "expected one of pixels"),
        ("audio", "stft:16", "expected one of stft"),
        ("text", "hf", "expected one of hash, hf:NAME"),
        ("audio", "stft?bands", "expected name=value pairs"),
        ("audio", "stft?band=3", "expected each of rate, bands, step .*did you mean 'bands'"),
        ("audio", "stft?bands=3&bands=4", "at most once"),
        ("audio", "stft?bands=few", "bands: expected an integer"),
        ("audio", "stft?bands=0", "bands: expected 1 to"),
        ("audio", "stft?rate=1", "rate: expected 1000"),
        ("audio", "stft?step=nan", "step: expected"),
        ("text", "hash?size=0", "size: expected"),
        ("text", "hash?ngrams=99", "ngrams: expected"),
        ("video", "pixels?grid=0", "grid: expected"),
        ("video", "pt2:nowhere.pt2", "expected a file that torch.export.save wrote"),
    ],
)
def test_names_that_cannot_be(modality, spec, message) -> None:
    with pytest.raises((MediaError, DataError), match=message):
        make_encoder(modality, spec, SETTING)


def test_the_fingerprint_is_of_what_counts(tmp_path, monkeypatch) -> None:
    def code(spec, sampling):
        encoder = make_encoder("video", spec, Setting(sampling))
        return described("video", spec, encoder, sampling)["fingerprint"]

    first = code("pixels", Sampling())
    assert first == code("pixels?grid=4", Sampling())
    others = [code("pixels?grid=2", Sampling()), code("pixels", Sampling(rate=2.0))]
    assert len({first, *others}) == 3
    assert sampling_of({"video": {"settings": {"rate": 2.0, "count": None, "seconds": 5.0}}}) == (
        Sampling(2.0, None, 5.0)
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    assert absolute("hf:model?pool=cls") == f"hf:{tmp_path}/model?pool=cls"
    assert absolute("hf:org/model") == "hf:org/model"
