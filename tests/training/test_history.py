from __future__ import annotations

import csv
import io
import json

from fastmtl.training import EpochRecord
from fastmtl.training.history import history_csv

RECORD = EpochRecord(1, 0.25, [0.5, None], [0.1 + 0.2, 0.4], [1.5, 0.5], 0.7, None, 0.8)


def test_totals_are_means_over_the_tasks_with_a_label():
    assert RECORD.total_train_loss == 0.5
    assert RECORD.total_val_loss == (0.1 + 0.2 + 0.4) / 2


def test_goes_through_json_exactly():
    assert EpochRecord.from_dict(json.loads(json.dumps(RECORD.to_dict()))) == RECORD


def test_csv_has_a_row_an_epoch_and_quotes_names():
    names = ['sea, "blue"', "sun"]
    (row,) = csv.DictReader(io.StringIO(history_csv([RECORD], names)))
    assert row["epoch"] == "1"
    assert row["train_loss/sun"] == ""
    assert float(row['val_loss/sea, "blue"']) == 0.1 + 0.2
    assert row["val_hamming_loss"] == ""
    assert float(row["weight/sun"]) == 0.5
