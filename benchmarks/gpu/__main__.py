"""Everything that wants a GPU, in one command: build, tests, figures, and a report of them.

    python -m benchmarks.gpu --deadline 540 --out DIR
    python -m benchmarks.gpu --deadline 540 --out DIR --resume [EARLIER]

The stages are build, smoke, parity-cuda, figures, device, parity-triton and sanitizer. A part that
crashes or hangs is ended and costs what it had under way; what the deadline leaves undone is taken
up with --resume, from DIR itself or from a copy of what an earlier call left. DIR then has
journal.jsonl (a line for every test and figure, written as it comes), report.md, log.txt and
gpu-<device>-<commit>.json, which `python -m benchmarks.gpu.report DIR` makes part of docs/gpu.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType

from benchmarks.gpu import report
from benchmarks.gpu.journal import Journal
from benchmarks.gpu.record import JOURNAL, LOG, record_of, save
from benchmarks.gpu.runner import ROOT, Runner, Stage
from benchmarks.gpu.stages import stages

REHEARSAL = "FASTMTL_GPU_REHEARSAL"
OUT = ROOT / "build" / "gpu"


def main(arguments: Sequence[str] | None = None, chosen: Sequence[Stage] | None = None) -> int:
    """Run the stages and report; the status is 0 where all was reached and passed."""
    options = _parser().parse_args(arguments)
    if options.rehearse:
        os.environ[REHEARSAL] = "1"
    found = stages(options.rehearse) if chosen is None else chosen
    names = [stage.name for stage in found]
    if unknown := [name for name in options.only or [] if name not in names]:
        raise SystemExit(f"--only: expected some of {', '.join(names)}, got {', '.join(unknown)}")
    chosen = [stage for stage in found if not options.only or stage.name in options.only]
    journal = _journal(options.out, options.resume)
    commit, changed = _commit(options.commit)
    time = datetime.now(timezone.utc).isoformat(timespec="seconds")
    journal.write("run", time=time, commit=commit, changed=changed, rehearsal=options.rehearse)

    def write_report() -> None:
        try:
            record = record_of(journal)
            save(options.out, record, report.summary(record))
        except Exception:  # which must not end the run that it is about
            traceback.print_exc()

    handlers = {n: signal.signal(n, _stop) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        Runner(journal, options.out / LOG, options.deadline, write_report).run(chosen)
    except KeyboardInterrupt:
        print("interrupted")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    record = record_of(journal)
    print(report.summary(record))
    complete = all(part["outcome"] == "passed" for part in record["parts"])
    return 0 if complete and not record["errors"] else 1


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR")
    parser.add_argument("--deadline", type=float, default=540, help="seconds for all of it")
    parser.add_argument("--only", type=lambda text: text.split(","), metavar="STAGE,...")
    parser.add_argument(
        "--resume", type=Path, nargs="?", const=True, metavar="EARLIER", help="go on with a run"
    )
    parser.add_argument("--commit", help="that is measured, where git does not tell")
    parser.add_argument(
        "--rehearse", action="store_true", help="without a GPU, with the CUDA kernels on the host"
    )
    return parser


def _journal(out: Path, resume: Path | bool | None) -> Journal:
    """The journal of a new run, or the one to go on with."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / JOURNAL
    if isinstance(resume, Path) and (resume / JOURNAL).resolve() != path.resolve():
        if not (resume / JOURNAL).is_file():
            raise SystemExit(f"--resume: expected a directory with {JOURNAL}, got {resume}")
        shutil.copyfile(resume / JOURNAL, path)
    if not resume:
        path.unlink(missing_ok=True)
        (out / LOG).unlink(missing_ok=True)
    elif path.is_file() and not path.read_bytes().endswith(b"\n"):
        with path.open("ab") as file:  # a line that was cut off
            file.write(b"\n")
    return Journal(path)


def _commit(given: str | None) -> tuple[str, bool | None]:
    """The commit that is measured, and whether files differ from it where git knows: by the
    argument, by git, or by a file COMMIT as an archive of the sources may have."""
    if given:
        return given, None
    # A directory without .git may lie in a repository of something else.
    if _git("rev-parse", "--show-toplevel") == str(ROOT):
        changed = bool(_git("status", "--porcelain", "--untracked-files=no"))
        return _git("rev-parse", "--short=12", "HEAD") or "unknown", changed
    file = ROOT / "COMMIT"
    return (file.read_text().strip() if file.is_file() else "") or "unknown", None


def _git(*arguments: str) -> str:
    try:
        result = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
