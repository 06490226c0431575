"""Two towers, text and video, fused by HGFN: what the second modality adds to the first."""

import argparse

import torch

import fastmtl
from fastmtl.training import multilabel_metrics

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=8)
options = parser.parse_args()

# One vector of 100 features a clip in text, 10 frames of 64 features in video.
SET = "synthetic:disaster-multimodal?frames=10&video=64"


def mean_average_precision(modalities: str) -> float:
    """Train on some of the modalities; mAP on the test split."""
    torch.manual_seed(0)
    data = fastmtl.data.load(SET, modalities=modalities)
    train, test = data.indices("train"), data.indices("test")
    model = fastmtl.models.HGFN(
        {name: shape[-1] for name, shape in data.modalities.items()},
        data.num_tasks,
        hidden_size=64,
        sequence_modalities=[name for name, shape in data.modalities.items() if len(shape) == 2],
        dropout=0.3,
    )
    loss = fastmtl.nn.FocalLoss()
    balancer = fastmtl.balancing.DynamicMultiTask(
        model, positives=data.positives("train"), samples=len(train)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(options.epochs):
        for rows in train[torch.randperm(len(train))].split(32):
            logits = model({name: x[rows] for name, x in data.x.items()})
            balancer.backward(loss(logits, data.y[rows]))
            optimizer.step()
            optimizer.zero_grad()
        balancer.end_cycle()
    model.eval()
    with torch.no_grad():
        probabilities = model({name: x[test] for name, x in data.x.items()}).sigmoid()
    return multilabel_metrics(probabilities, data.y[test])["map"]


for modalities in ("text", "text,video"):
    print(f"{modalities:<10}  test mAP {mean_average_precision(modalities):.2f}")
