"""Whether damaged files end in success or in one clear line: `python -m tests.torture.files`.

Data files, and the files of finished runs and reproductions, are damaged by their bytes and by
their structure, and given to a command that reads them. Each case is a number, which `--only`
repeats. Ends with 1 if any gave a traceback, a hang, a crash, more than 2 GB, or, of a run whose
bytes were damaged, another result.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import h5py
import numpy as np

from tests.torture import mutate
from tests.torture.process import Bad, Command, warm_up
from tests.torture.runs import ON_CPU, go_on, reproduce, same_run, train

FORMATS = ["data.npz", "data.h5", "data.arff", "data.xml"]
RUN_FILES = ["config.json", "model.safetensors", "checkpoint.safetensors", "metrics.json"]
TABLE_FILES = ["reproduce.json", "ewmtc/seed-0/result.json"]
TABLE_FILES += [f"ewmtc/seed-0/{name}" for name in RUN_FILES]


def make_originals(folder: Path) -> None:
    """What is damaged: a data set in every format, a finished run on it, a reproduction."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 6)).astype(np.float32)
    y = (np.arange(60).reshape(30, 2) // 2 % 2).astype(np.uint8)
    names, split = ["a", "b"], ["train", "val", "test"] * 10
    np.savez_compressed(folder / "data.npz", x=x, y=y, label_names=np.array(names))
    with h5py.File(folder / "data.h5", "w") as file:
        file.create_dataset("x", data=x, chunks=(10, 6), compression="gzip")
        file["y"], file["label_names"], file["split"] = y, names, split
    header = "".join(f"@attribute 'f {i}' numeric\n" for i in range(5))
    header += "@attribute kind {red,'dark blue'}\n@attribute a {0,1}\n@attribute b {0,1}\n"
    cells = [[*x[i, :5].tolist(), "red", *y[i].tolist()] for i in range(30)]
    rows = [",".join(map(str, row)) for row in cells]
    rows[3] = "{0 1.5, 5 'dark blue', 7 1} % sparse"
    (folder / "data.arff").write_text("@relation 'r'\n" + header + "@data\n" + "\n".join(rows))
    (folder / "data.xml").write_text("<labels>\n<label name='a'/>\n<label name='b'/>\n</labels>")
    for arguments in (train(folder / "run", folder / "data.npz"), reproduce(folder / "table")):
        if Command(arguments).end().code != 0:
            raise Bad(f"{' '.join(arguments)} does not work")


def attempt(number: int, originals: Path, folder: Path) -> str:
    """One case; how it ended. Raises Bad."""
    rng = random.Random(number)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(originals, folder)
    run, table = folder / "run", folder / "table"
    kind = rng.choice(["data", "data", "run", "table"])
    if kind == "data":
        path = folder / rng.choice(FORMATS)
        command = rng.choice(_reading(path, originals))
    elif kind == "run":
        path = run / rng.choice(RUN_FILES)
        command = rng.choice([go_on(run), *_asking(run, originals / "data.npz")])
    else:
        path = table / rng.choice(TABLE_FILES)
        command = reproduce(table)
        if path.parent.name == "seed-0" and path.name != "result.json":
            # Otherwise the run is done, and its files are not read.
            (path.parent / "result.json").unlink()
    by_bytes = rng.random() < 0.5
    damage = mutate.damage_bytes if by_bytes else mutate.BY_STRUCTURE[path.suffix]
    damage(path, rng)
    ended = Command(command).end()
    if ended.code is None:
        raise Bad(f"{' '.join(command)}: was killed")
    # What metrics.json says is not sealed: a user may write to it.
    if by_bytes and "--resume" in command and ended.code == 0 and path.name != "metrics.json":
        same_run(run, originals / "run")
    return f"{path.name} {'refused' if ended.code else 'read'}"


def _reading(path: Path, originals: Path) -> list[list[str]]:
    """Commands that read a data file."""
    data = path.with_suffix(".arff") if path.suffix == ".xml" else path
    new = train(path.with_name("new"), data)
    tested = train(path.with_name("new"), originals / data.name)
    return [new, new, [*tested, "--test", str(data)], *_asking(originals / "run", data)]


def _asking(run: Path, data: Path) -> list[list[str]]:
    """Commands that ask a trained model about data."""
    about = [str(run), "--data", str(data), *ON_CPU]
    predictions = data.with_name("predictions.csv")
    return [
        ["evaluate", *about],
        ["evaluate", *about, "--json", "--split", "all"],
        ["predict", *about, "--out", str(predictions), "--overwrite"],
    ]


def main() -> int:
    """Try the cases that the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.files", description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="at most so long")
    parser.add_argument("--only", type=int, help="this case alone")
    options = parser.parse_args()
    first, count = (options.first, options.cases) if options.only is None else (options.only, 1)
    ends: Counter[str] = Counter()
    failures = 0
    with tempfile.TemporaryDirectory() as name:
        warm_up(reproduce(Path(name, "warm")))
        originals = Path(name, "originals")
        originals.mkdir()
        make_originals(originals)
        end = time.monotonic() + options.seconds
        for number in range(first, first + count):
            if time.monotonic() > end:
                break
            try:
                ends[attempt(number, originals, Path(name, "case"))] += 1
            except Bad as error:
                failures += 1
                print(f"case {number}: {error}", flush=True)
    for outcome, times in sorted(ends.items()):
        print(f"{outcome}: {times}")
    print(f"{ends.total() + failures} cases, {failures} of them bad")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
