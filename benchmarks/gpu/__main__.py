"""Everything that wants a GPU, in one command: build, tests, benchmarks, and a file of results.

    python -m benchmarks.gpu

writes benchmarks/results/gpu-<device>-<commit>.json; `python -m benchmarks.gpu.report` turns all
of them into docs/gpu.md. Takes less than nine minutes on an H100.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def main() -> int:
    """Build, test, measure, write; the exit code says whether everything passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the result file")
    parser.add_argument("--no-build", action="store_true", help="fastmtl is installed already")
    parser.add_argument("--no-tests", action="store_true")
    parser.add_argument("--no-measurements", action="store_true")
    options = parser.parse_args()
    record: dict[str, Any] = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short=12", "HEAD") or os.environ.get("COMMIT", "unknown"),
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }
    if not options.no_build:
        record["build"] = _build()
    if not options.no_tests:
        record["tests"] = _test()
        print(json.dumps(record["tests"]["counts"]), flush=True)
    if not options.no_measurements:
        record |= _measure()
    device = re.sub(r"[^a-z0-9]+", "-", record.get("device", "unknown").lower())
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"gpu-{device}-{record['commit']}.json"
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(path)
    print(path)
    failed = record.get("tests", {}).get("counts", {}).get("failed", 0)
    return 1 if failed or record.get("errors") else 0


class _Plain(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description."""


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return result.stdout.strip() if result.returncode == 0 else ""


def _build() -> dict[str, Any]:
    environment = {"CUDA_ARCHS": "native", **os.environ, "FASTMTL_CUDA": "on"}
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps"]
    start = perf_counter()
    subprocess.run([*command, "-e", "."], cwd=ROOT, env=environment, check=True)
    return {"seconds": round(perf_counter() - start, 1), "archs": environment["CUDA_ARCHS"]}


def _test() -> dict[str, Any]:
    """Outcomes of tests/gpu, and of every test by name."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "tests/gpu", "-p", "no:cacheprovider"]
        subprocess.run([*command, f"--junitxml={report}"], cwd=ROOT)
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    outcomes: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    for case in cases:
        tags = {child.tag for child in case}
        kind = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else ""
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        outcomes[kind or "passed"].append(name)
    return {"counts": {kind: len(names) for kind, names in outcomes.items()}, **outcomes}


def _measure() -> dict[str, Any]:
    """In a process of its own, which sees the modules that were just built."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "figures.json"
        subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu.figures", str(path)], cwd=ROOT, check=True
        )
        figures: dict[str, Any] = json.loads(path.read_text())
    return figures


if __name__ == "__main__":
    sys.exit(main())
