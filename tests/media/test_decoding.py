from __future__ import annotations

import os
import wave
from pathlib import Path

import numpy as np
import pytest

from fastmtl.media import MediaError, Sampling
from fastmtl.media.frames import Picture, read_frames
from fastmtl.media.sound import read_sound
from tests.media.clips import FRAMES_A_SECOND, write_clip, write_sound

av = pytest.importorskip("av", reason="PyAV is not installed")

SQUARE = Picture((32, 32))


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", 2.0, speed=0.5)


def test_frames_at_a_rate(clip) -> None:
    every = read_frames(clip, Sampling(rate=FRAMES_A_SECOND), SQUARE)
    some = read_frames(clip, Sampling(rate=FRAMES_A_SECOND / 4), SQUARE)
    assert every.values.shape == (16, 32, 32, 3)
    assert every.values.dtype == np.uint8
    np.testing.assert_array_equal(some.values, every.values[::4])
    assert not every.cut


def test_a_number_of_frames(clip) -> None:
    every = read_frames(clip, Sampling(rate=FRAMES_A_SECOND), SQUARE).values
    four = read_frames(clip, Sampling(count=4), SQUARE).values
    np.testing.assert_array_equal(four, every[2::4])
    assert len(read_frames(clip, Sampling(count=100), SQUARE).values) == 100


def test_the_length_of_a_file_without_one(tmp_path) -> None:
    # MPEG transport streams say how long they are only by their packets.
    clip = write_clip(tmp_path / "clip.ts", 2.0, speed=0.5, tone=None)
    assert len(read_frames(clip, Sampling(count=5), SQUARE).values) == 5


def test_scaling_and_cropping(clip) -> None:
    shape = Picture((24, 24), shorter=32)
    assert shape.scaled(64, 96) == (32, 48)
    whole = read_frames(clip, Sampling(count=1), Picture((32, 48))).values[0]
    middle = read_frames(clip, Sampling(count=1), shape).values[0]
    np.testing.assert_array_equal(middle, whole[4:28, 12:36])


def test_sound(clip, tmp_path) -> None:
    sound = read_sound(write_sound(tmp_path / "a.wav", 1.0, tone=500.0), 8000, 60.0)
    assert sound.values.dtype == np.float32
    assert len(sound.values) == pytest.approx(8000, abs=50)
    assert np.abs(np.fft.rfft(sound.values)).argmax() == pytest.approx(500, abs=3)
    assert len(read_sound(clip, 16000, 60.0).values) == pytest.approx(32000, abs=2100)


@pytest.mark.parametrize(
    ("codec", "kind", "suffix"),
    [
        ("pcm_u8", "u8", "wav"),
        ("pcm_s16le", "s16", "wav"),
        ("pcm_s32le", "s32", "wav"),
        ("pcm_f64le", "dbl", "wav"),
        ("flac", "s16", "flac"),
        ("aac", "fltp", "mp4"),
    ],
)
@pytest.mark.parametrize("rate", [44100, 16000])
def test_every_form_of_sound_is_the_mean_of_its_channels(
    tmp_path, monkeypatch, codec, kind, suffix, rate
) -> None:
    monkeypatch.setattr("fastmtl.media.sound._AT_ONCE", 5000)
    path, seconds = tmp_path / f"a.{suffix}", 2.0
    left = 0.8 * np.sin(2 * np.pi * 300 * np.arange(round(seconds * rate)) / rate)
    both = np.stack([left, np.zeros_like(left)]).astype(np.float32)
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=rate, layout="stereo", format=kind)
        frame = av.AudioFrame.from_ndarray(both, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = rate, 0
        for packed in av.AudioResampler(kind, "stereo", rate).resample(frame):
            file.mux(stream.encode(packed))
        file.mux(stream.encode())
    sound = read_sound(path, 16000, 60.0).values[4000:28000]
    expected = np.abs(sound).max(), np.abs(np.fft.rfft(sound)).argmax() / (len(sound) / 16000)
    assert expected == (pytest.approx(0.4, abs=0.03), pytest.approx(300, abs=2))


@pytest.mark.parametrize("channels", [1, 3, 7, 20])
def test_channels_count_alike_wherever_they_stand(tmp_path, channels) -> None:
    samples = np.random.default_rng(0).integers(-30000, 30000, (20000, channels)).astype("<i2")
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((channels, 2, 16000, 0, "NONE", None))
        file.writeframes(samples.tobytes())
    found = read_sound(tmp_path / "a.wav", 16000, 60.0).values
    np.testing.assert_allclose(found, samples.mean(1) / 32768, atol=1e-6)


def test_what_lies_beyond_is_told(clip) -> None:
    frames = read_frames(clip, Sampling(rate=8, seconds=1.0), SQUARE)
    assert (len(frames.values), frames.cut) == (8, True)
    sound = read_sound(clip, 16000, 1.0)
    assert (len(sound.values), sound.cut) == (16000, True)


def test_a_still_picture_is_one_frame(tmp_path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name in ("a.png", "a.jpg"):
        image.new("RGB", (40, 30), (250, 10, 10)).save(tmp_path / name)
        for sampling in (Sampling(), Sampling(count=3)):
            frames = read_frames(tmp_path / name, sampling, SQUARE).values
            assert frames.shape == (1, 32, 32, 3)
            assert frames[0, 16, 16, 0] > 200 > frames[0, 16, 16, 1]


def test_files_that_cannot_be_used(clip, tmp_path) -> None:
    def refused(path, message, read=lambda path: read_frames(path, Sampling(), SQUARE)):
        with pytest.raises(MediaError, match=message) as caught:
            read(path)
        assert "\n" not in str(caught.value)

    def sound(path):
        return read_sound(path, 16000, 60.0)

    refused(tmp_path / "nowhere.mp4", "no such file")
    refused(tmp_path, "a directory, pipe or device")
    os.mkfifo(tmp_path / "pipe.mp4")
    refused(tmp_path / "pipe.mp4", "a directory, pipe or device")
    (tmp_path / "empty.mp4").touch()
    refused(tmp_path / "empty.mp4", "an empty one")
    (tmp_path / "text.mp4").write_text("not a film\n" * 100)
    refused(tmp_path / "text.mp4", "is broken, or no media file")
    refused(write_sound(tmp_path / "a.wav"), "holds no pictures")
    refused(write_clip(tmp_path / "mute.mp4", tone=None), "holds no sound", sound)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    refused(cut, "is broken, or no media file")


def test_a_file_cut_short_behind_its_index(tmp_path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", 8.0)
    with (
        av.open(str(whole)) as source,
        av.open(str(tmp_path / "first.mp4"), "w", options={"movflags": "faststart"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    content = (tmp_path / "first.mp4").read_bytes()
    (tmp_path / "first.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(MediaError, match=r"is cut short: ends after .* of 8\.0 s|is broken"):
        read_frames(tmp_path / "first.mp4", Sampling(), SQUARE)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n",
        "ffconcat version 1.0\nfile other.mp4\n",
    ],
)
def test_playlists_are_no_media(tmp_path, text) -> None:
    # They name other files and addresses, which nobody asked to open.
    path = tmp_path / "list.m3u8"
    path.write_text(text)
    with pytest.raises(MediaError, match="no media file"):
        read_frames(path, Sampling(), SQUARE)


def test_a_clip_filmed_upright_stands_upright(clip, tmp_path) -> None:
    # Of a track's header: sixteen-bit fixed-point a, b, u, c, d of a quarter turn clockwise.
    content = bytearray(clip.read_bytes())
    start = content.index(b"tkhd") + 4 + 40
    one, minus = (1 << 16).to_bytes(4, "big"), (-1 << 16).to_bytes(4, "big", signed=True)
    content[start : start + 20] = bytes(4) + one + bytes(4) + minus + bytes(4)
    (tmp_path / "turned.mp4").write_bytes(content)
    lying = read_frames(clip, Sampling(count=3), Picture((64, 96))).values
    upright = read_frames(tmp_path / "turned.mp4", Sampling(count=3), Picture((96, 64))).values
    np.testing.assert_array_equal(upright, np.rot90(lying, -1, axes=(1, 2)))
