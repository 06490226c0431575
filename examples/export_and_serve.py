"""Train, export to ONNX, and serve with onnxruntime alone: `pip install "fastmtl-torch[onnx]"`."""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

import fastmtl
from fastmtl.export import export
from fastmtl.training import Predictor, TrainConfig, Trainer

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=5)
options = parser.parse_args()

SET = "synthetic:disaster?clips=400&frames=10&features=32"


class Server:
    """What runs where the model is used; it needs onnxruntime and numpy, not fastmtl or torch."""

    def __init__(self, path: str) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        facts = self.session.get_modelmeta().custom_metadata_map
        self.labels = json.loads(facts["label_names"])
        self.threshold = json.loads(facts["threshold"])

    def __call__(self, clips: list[np.ndarray]) -> list[dict[str, float]]:
        """For each clip, frames (L, D) of any number, the labels it has and their probabilities."""
        lengths = np.array([len(clip) for clip in clips])
        x = np.zeros((len(clips), lengths.max(), clips[0].shape[1]), np.float32)
        for row, clip in zip(x, clips, strict=True):
            row[: len(clip)] = clip
        (probabilities,) = self.session.run(None, {"x": x, "lengths": lengths})
        return [
            {name: p for name, p in zip(self.labels, row, strict=True) if p > self.threshold}
            for row in probabilities.tolist()
        ]


with tempfile.TemporaryDirectory() as directory:
    config = TrainConfig(
        data=SET, epochs=options.epochs, hidden_size=32, lr=5e-3, batch_size=20, dropout=0.0
    )
    Trainer.from_config(config, f"{directory}/run").fit()
    predictor = Predictor.load(f"{directory}/run", "cpu")
    file = Path(directory, "model.onnx")
    export(predictor, file)  # compares the file's probabilities with the model's, too

    serve = Server(str(file))
    data = fastmtl.data.load(SET)
    test = data.indices("test")[:3].tolist()
    answers = serve([data.x[row, : 10 - row % 3].numpy() for row in test])
    print(f"{len(serve.labels)} labels, {len(answers)} clips of different lengths")
    for row, answer in zip(test, answers, strict=True):
        print(
            f"clip {row}:", ", ".join(f"{name} {p:.2f}" for name, p in answer.items()) or "nothing"
        )
