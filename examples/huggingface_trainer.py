"""Hugging Face's Trainer with balanced tasks: `pip install transformers accelerate`."""

import argparse
import tempfile

import torch
from torch import nn
from transformers import BertConfig, BertModel, Trainer, TrainingArguments
from transformers.utils import logging

import fastmtl

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=150)
options = parser.parse_args()

VOCABULARY, LENGTH, TASKS = 200, 16, 4


class Classifier(nn.Module):
    """A small BERT from scratch; `BertModel.from_pretrained(...)` goes in its place."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
        self.bert = BertModel(
            BertConfig(vocab_size=VOCABULARY, intermediate_size=128, **sizes),
            add_pooling_layer=False,
        )
        self.shared = fastmtl.nn.SharedLinear(64, 64, TASKS)
        self.heads = fastmtl.nn.TaskLinear(64, 1, TASKS)
        self.loss = fastmtl.nn.FocalLoss()

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """One loss a task (T,), and logits (N, T)."""
        hidden = self.bert(input_ids).last_hidden_state.mean(1)
        logits = self.heads(self.shared(hidden).relu()).squeeze(-1).T
        return {"loss": self.loss(logits, labels), "logits": logits}


class BalancedTrainer(Trainer):
    """The balancer runs the backward pass in place of the trainer's."""

    def __init__(self, *args, balancer: fastmtl.balancing.Balancer, **options) -> None:
        super().__init__(*args, **options)
        self.balancer = balancer

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """The weighted sum of the tasks' losses, for the log."""
        model.train()
        losses = model(**self._prepare_inputs(inputs))["loss"]
        return self.balancer.backward(losses).detach()


logging.set_verbosity_error()
torch.manual_seed(0)
# A sentence has label t if it has one of the words 5 t ... 5 t + 4.
ids = torch.randint(0, VOCABULARY, (2000, LENGTH))
labels = torch.stack([(ids // 5 == task).any(1) for task in range(TASKS)], 1).float()
rows = [{"input_ids": i, "labels": y} for i, y in zip(ids, labels, strict=True)]

model = Classifier()
balancer = fastmtl.balancing.TaskDynamicBalancing(
    model, positives=labels[:1600].sum(0), samples=1600
)
with tempfile.TemporaryDirectory() as directory:
    arguments = TrainingArguments(
        directory, max_steps=options.steps, per_device_train_batch_size=64, learning_rate=3e-3,
        report_to="none", logging_strategy="no", save_strategy="no", disable_tqdm=True,
        use_cpu=True,
    )  # fmt: skip
    BalancedTrainer(model, arguments, train_dataset=rows[:1600], balancer=balancer).train()
model.eval()
with torch.no_grad():
    logits = model(ids[1600:], labels[1600:])["logits"]
recall = (logits > 0)[labels[1600:] == 1].float().mean()
weights = " ".join(f"{weight:.2f}" for weight in balancer.weights.tolist())
print(f"recall {recall:.2f}, weights {weights}")
