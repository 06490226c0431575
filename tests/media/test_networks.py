"""The encoders that are networks, on random weights made here."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fastmtl.media import MediaError, Sampling
from fastmtl.media.encoders.base import Setting
from fastmtl.media.encoders.named import described, make_encoder
from fastmtl.media.frames import Picture
from fastmtl.media.piece import Piece

SETTING = Setting(Sampling(), batch_size=4)
RNG = np.random.default_rng(0)
VISION = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "image_size": 32,
    "patch_size": 8,
}


@pytest.fixture(scope="module")
def transformers():
    """The package, where it may ask nobody."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield pytest.importorskip("transformers", reason="transformers is not installed")


def frames(steps, side=32):
    return Piece(RNG.integers(0, 256, (steps, side, side, 3)).astype(np.uint8))


def sound(seconds, rate=16000):
    return Piece(RNG.normal(size=round(seconds * rate)).astype(np.float32))


def text(words):
    return Piece(np.array(words, dtype=object))


def same(encoder, pieces):
    """The features of clips, which are the same whichever clips are beside them."""
    together = encoder.encode(pieces)
    for piece, one in zip(pieces, together, strict=True):
        (alone,) = encoder.encode([piece])
        np.testing.assert_allclose(one.values, alone.values, rtol=1e-4, atol=1e-5)
        assert one.values.dtype == np.float32
        assert one.values.shape[-1] == encoder.size
    return [each.values for each in together]


@pytest.fixture(scope="module")
def vit(transformers, tmp_path_factory):
    path = tmp_path_factory.mktemp("vit")
    transformers.ViTModel(transformers.ViTConfig(**VISION)).save_pretrained(path)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


def test_vit(transformers, vit) -> None:
    encoder = make_encoder("video", f"hf:{vit}", SETTING)
    clips = [frames(3), frames(1), frames(6)]
    found = same(encoder, clips)
    assert [x.shape for x in found] == [(3, 16), (1, 16), (6, 16)]
    model = transformers.ViTModel.from_pretrained(vit).eval()
    pixels = torch.from_numpy(clips[0].values).permute(0, 3, 1, 2) / 255 * 2 - 1
    with torch.no_grad():
        hidden = model(pixel_values=pixels).last_hidden_state
    np.testing.assert_allclose(found[0], hidden[:, 0], rtol=1e-4, atol=1e-5)
    mean = make_encoder("video", f"hf:{vit}?pool=mean", SETTING).encode(clips[:1])[0].values
    np.testing.assert_allclose(mean, hidden.mean(1), rtol=1e-4, atol=1e-5)


def test_dinov2_and_a_network_of_convolutions(transformers, tmp_path) -> None:
    models = {
        "dino": transformers.Dinov2Model(transformers.Dinov2Config(**VISION)),
        "resnet": transformers.ResNetModel(
            transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1])
        ),
    }
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        processor = transformers.BitImageProcessor(
            size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}
        )
        processor.save_pretrained(tmp_path / name)
        encoder = make_encoder("video", f"hf:{tmp_path / name}", SETTING)
        assert encoder.request.picture == Picture((32, 32), shorter=40, filter="BICUBIC")
        same(encoder, [frames(2), frames(5)])


def test_clip_by_its_projections(transformers, tmp_path) -> None:
    path = tmp_path / "clip"
    words = {"vocab_size": 99, "max_position_embeddings": 12}
    words |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    blocks = {
        key: value for key, value in VISION.items() if key not in ("image_size", "patch_size")
    }
    config = transformers.CLIPConfig(
        text_config=blocks | words, vision_config=VISION, projection_dim=12
    )
    transformers.CLIPModel(config).save_pretrained(path)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(path)
    encoder = make_encoder("video", f"hf:{path}", SETTING)
    assert (encoder.size, make_encoder("video", f"hf:{path}?pool=cls", SETTING).size) == (12, 16)
    _tokenizer(transformers).save_pretrained(path)
    encoder = make_encoder("text", f"hf:{path}", SETTING)
    assert (encoder.size, encoder.content["tokens"]) == (12, 12)
    same(encoder, [text("flood"), text("fire fire water")])


def test_wav2vec(transformers, tmp_path) -> None:
    config = transformers.Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_stride=(20, 16),
        conv_kernel=(20, 16),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    transformers.Wav2Vec2Model(config).save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    encoder = make_encoder("audio", f"hf:{tmp_path}?window=2", SETTING)
    found = same(encoder, [sound(5.0), sound(0.4), sound(2.1), sound(0.001)])
    # A remainder of less than a tenth of the window is left out, unless it is all there is.
    assert [len(x) for x in found] == [5, 1, 2, 1]
    with pytest.raises(MediaError, match="step: expected"):
        make_encoder("audio", f"hf:{tmp_path}?step=20", SETTING)


def _tokenizer(transformers):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "flood", "fire", "water", "a"]
    made = transformers.BertTokenizerFast(vocab={word: i for i, word in enumerate(words)})
    made.model_max_length = 16
    return made


@pytest.fixture(scope="module")
def bert(transformers, tmp_path_factory):
    path = tmp_path_factory.mktemp("bert")
    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=9,
    )
    transformers.BertModel(config).save_pretrained(path)
    _tokenizer(transformers).save_pretrained(path)
    return path


def test_bert_cuts_what_is_too_long_and_says_so(transformers, bert) -> None:
    encoder = make_encoder("text", f"hf:{bert}?tokens=8", SETTING)
    texts = [text(words) for words in ("flood", "a fire a fire", "", "water " * 50, "a " * 6)]
    assert [x.shape for x in same(encoder, texts)] == [(16,)] * 5
    assert [piece.cut for piece in encoder.encode(texts)] == [False, False, False, True, False]
    model = transformers.BertModel.from_pretrained(bert).eval()
    with torch.no_grad():
        hidden = model(torch.tensor([[2, 8, 6, 8, 6, 3]])).last_hidden_state
    np.testing.assert_allclose(
        encoder.encode(texts)[1].values, hidden[0].mean(0), rtol=1e-4, atol=1e-5
    )
    # As if the text ended there.
    cut, short = encoder.encode([texts[3], text("water " * 6)])
    np.testing.assert_allclose(cut.values, short.values, rtol=1e-4, atol=1e-5)


def test_half_precision_is_near(vit, bert) -> None:
    for modality, path, pieces in (
        ("video", vit, [frames(3)]),
        ("text", bert, [text("flood fire")]),
    ):
        whole = make_encoder(modality, f"hf:{path}", SETTING).encode(pieces)[0].values
        half = Setting(Sampling(), precision="bfloat16")
        near = make_encoder(modality, f"hf:{path}", half).encode(pieces)[0].values
        assert near.dtype == np.float32
        np.testing.assert_allclose(near, whole, atol=0.1)
        assert not np.array_equal(near, whole)


def test_the_fingerprint_is_of_the_weights(transformers, vit, tmp_path) -> None:
    def code(path):
        spec = f"hf:{path}"
        encoder = make_encoder("video", spec, SETTING)
        return described("video", spec, encoder, SETTING.sampling)["fingerprint"]

    model = transformers.ViTModel.from_pretrained(vit)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    assert code(tmp_path) == code(vit)
    with torch.no_grad():
        model.layernorm.bias += 1
    model.save_pretrained(tmp_path)
    assert code(tmp_path) != code(vit)


def test_models_that_cannot_be_used(transformers, vit, tmp_path) -> None:
    for spec, message in (
        (f"hf:{tmp_path}", "expected a model, got none"),
        ("hf:no/such-model-here", "expected a model, got none"),
        (f"hf:{vit}?pool=max", "pool: expected one of auto, cls, mean"),
    ):
        with pytest.raises(MediaError, match=message) as caught:
            make_encoder("video", spec, SETTING)
        assert "\n" not in str(caught.value)
    with pytest.raises(MediaError, match=r"expected a model of text \(AutoTokenizer\), got none"):
        make_encoder("text", f"hf:{vit}", SETTING)
    with pytest.raises(MediaError, match="tokens: expected at least 3"):
        make_encoder("text", f"hf:{vit}?tokens=1", SETTING)
    state = transformers.ViTModel.from_pretrained(vit).state_dict()
    state.pop("layernorm.bias")
    model = transformers.ViTModel.from_pretrained(vit)
    model.save_pretrained(tmp_path / "part", state_dict=state)
    with pytest.raises(MediaError, match="not all there: without layernorm"):
        make_encoder("video", f"hf:{tmp_path / 'part'}", SETTING)


class Small(nn.Module):
    """Features (n, 5) of frames or sound."""

    def __init__(self, inputs):
        super().__init__()
        self.fc = nn.Linear(inputs, 5)

    def forward(self, x):
        return self.fc(x.flatten(1))


def exported(path, shape, dynamic):
    torch.manual_seed(0)
    sizes = ({0: torch.export.Dim("n", min=1, max=1024)},) if dynamic else None
    model = Small(int(np.prod(shape[1:])))
    torch.export.save(torch.export.export(model, (torch.zeros(shape),), dynamic_shapes=sizes), path)
    return model


@pytest.mark.parametrize("dynamic", [True, False])
def test_exported_programs(tmp_path, dynamic) -> None:
    path = tmp_path / "frames.pt2"
    model = exported(path, (3, 3, 8, 12), dynamic)
    encoder = make_encoder("video", f"pt2:{path}?mean=0.5,0.5,0.5&std=2,2,2", SETTING)
    assert encoder.request.picture.crop == (8, 12)
    clips = [Piece(RNG.integers(0, 256, (n, 8, 12, 3)).astype(np.uint8)) for n in (4, 1)]
    found = same(encoder, clips)
    with torch.no_grad():
        expected = model((torch.from_numpy(clips[0].values).permute(0, 3, 1, 2) / 255 - 0.5) / 2)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)
    exported(tmp_path / "sound.pt2", (2, 4000), dynamic)
    encoder = make_encoder("audio", f"pt2:{tmp_path / 'sound.pt2'}?rate=8000", SETTING)
    found = same(encoder, [sound(1.2, 8000), sound(0.1, 8000)])
    assert [x.shape for x in found] == [(3, 5), (1, 5)]


def test_programs_that_cannot_be_used(tmp_path) -> None:
    (tmp_path / "text.pt2").write_text("no program")
    with pytest.raises(MediaError, match="not a program of"):
        make_encoder("video", f"pt2:{tmp_path / 'text.pt2'}", SETTING)
    exported(tmp_path / "sound.pt2", (2, 4000), True)
    with pytest.raises(MediaError, match="expected one input of 4 dimensions"):
        make_encoder("video", f"pt2:{tmp_path / 'sound.pt2'}", SETTING)
    half = Setting(Sampling(), precision="float16")
    with pytest.raises(MediaError, match="computes as it was exported"):
        make_encoder("audio", f"pt2:{tmp_path / 'sound.pt2'}", half)
    exported(tmp_path / "frames.pt2", (2, 3, 8, 8), True)
    for options in ("mean=1", "std=0,1,1", "mean=a,b,c"):
        with pytest.raises(MediaError, match="expected three numbers"):
            make_encoder("video", f"pt2:{tmp_path / 'frames.pt2'}?{options}", SETTING)


class Classifier(nn.Module):
    """A stand-in for one of torchvision's."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 6, 8, 8)
        self.fc = nn.Linear(6, 10)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))


@pytest.fixture
def torchvision(monkeypatch):
    """What the encoder uses of torchvision, which tests do without."""
    torch.manual_seed(0)
    form = SimpleNamespace(
        crop_size=[16], resize_size=[20], mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5]
    )
    weights = SimpleNamespace(transforms=lambda: form)
    models = SimpleNamespace(
        list_models=lambda: ["inception_v3"],
        get_model_weights=lambda name: SimpleNamespace(DEFAULT=weights),
        get_model=lambda name, weights, **options: Classifier(),
    )
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))
    return models


def test_torchvision_without_the_last_layer(torchvision, tmp_path) -> None:
    encoder = make_encoder("video", "torchvision:inception_v3", SETTING)
    assert encoder.size == 6
    assert encoder.request.picture == Picture((16, 16), shorter=20, filter="BILINEAR")
    same(encoder, [frames(3, 16), frames(2, 16)])
    model = Classifier()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    spec = f"torchvision:inception_v3?weights={tmp_path / 'weights.pt'}"
    clip = frames(2, 16)
    (found,) = make_encoder("video", spec, SETTING).encode([clip])
    seen = torch.from_numpy(clip.values).permute(0, 3, 1, 2) / 255 * 2 - 1
    with torch.no_grad():
        expected = model.body(seen).mean((2, 3))
    np.testing.assert_allclose(found.values, expected, rtol=1e-4, atol=1e-5)
    torch.save({"other": torch.ones(1)}, tmp_path / "weights.pt")
    for wrong, message in (
        (spec, "does not hold its weights"),
        ("torchvision:inception_v3?weights=nowhere", "expected a file of weights"),
        ("torchvision:vgg", "expected a name of torchvision.models"),
    ):
        with pytest.raises(MediaError, match=message):
            make_encoder("video", wrong, SETTING)


def test_without_torchvision_the_error_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MediaError, match="pip install torchvision"):
        make_encoder("video", "torchvision:inception_v3", SETTING)
