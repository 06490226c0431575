"""What a journal says of a run, as the record that a report is written from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.gpu.journal import Journal

JOURNAL, LOG, REPORT = "journal.jsonl", "log.txt", "report.md"


def record_of(journal: Journal) -> dict[str, Any]:
    """The record of all there is, whenever the run that writes the journal ended."""
    record: dict[str, Any] = {}
    items: dict[tuple[str, str], dict[str, Any]] = {}  # the last line of each
    parts: dict[str, dict[str, Any]] = {}
    for line in journal.lines():
        fields = {k: v for k, v in line.items() if k not in ("kind", "part")}
        match line["kind"]:
            case "run":
                # One commit and one time a record: those that the run began with.
                record = fields | record
            case "facts":
                record |= fields
            case "plan":
                parts |= {name: {} for name in fields["parts"] if name not in parts}
            case "part":
                parts[fields["name"]] = fields
            case "begin" | "again" | "item":
                items[line["part"], fields["name"]] = fields | {"kind": line["kind"]}
    record["parts"] = [_part(name, end, items) for name, end in parts.items()]
    build = parts.get("build", {})
    if build.get("outcome") == "passed":
        record["build"] = {"seconds": build["seconds"]}
    return record | {
        "tests": _tests(items),
        "figures": [item["figure"] for item in items.values() if "figure" in item],
        "errors": _errors(items, record["parts"]),
    }


def _part(
    name: str, end: dict[str, Any], items: dict[tuple[str, str], dict[str, Any]]
) -> dict[str, Any]:
    """How a part ended, and the outcomes of its items by number."""
    mine = [item for (part, _), item in items.items() if part == name]
    outcomes = [item.get("outcome", "unfinished") for item in mine]
    counts = {outcome: outcomes.count(outcome) for outcome in dict.fromkeys(outcomes)}
    outcome = end.get("outcome") or ("unfinished" if mine else "not reached")
    part = {"name": name, "outcome": outcome, "items": counts}
    return part | {k: end[k] for k in ("seconds", "how", "output") if k in end}


def _tests(items: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    """The tests by outcome; one that ended its process has failed."""
    names: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    for (_, name), item in items.items():
        if "::" in name and item["kind"] == "item":
            outcome = "failed" if item["outcome"] == "crashed" else item["outcome"]
            names[outcome].append(re.sub(r"^.*/|\.py(?=::)", "", name))
    return {"counts": {outcome: len(found) for outcome, found in names.items()}, **names}


def _errors(items: dict[tuple[str, str], dict[str, Any]], parts: list[dict[str, Any]]) -> list[str]:
    """What failed, a line each."""
    errors = []
    for (part, name), item in items.items():
        if item.get("outcome") in ("failed", "crashed"):
            lines = [line for line in item.get("message", "").splitlines() if line.strip()]
            # pytest marks the line that says what was wrong.
            said = next(
                (line for line in lines if line.startswith("E ")), lines[0] if lines else ""
            )
            errors.append(f"{part}: {name}: {item['outcome']}: {said.removeprefix('E ').strip()}")
    for part in parts:
        if part["outcome"] not in ("passed", "failed", "not reached"):
            how = f" ({part['how']})" if "how" in part else ""
            errors.append(f"{part['name']}: {part['outcome']}{how}")
        elif part["outcome"] == "failed" and not part["items"]:
            last = [line for line in part.get("output", "").splitlines() if line.strip()]
            errors.append(f"{part['name']}: failed: {last[-1] if last else 'without a word'}")
    return errors


def save(directory: Path, record: dict[str, Any], text: str) -> Path:
    """Write the record and its report beside the journal; where the record is."""
    device = re.sub(r"[^a-z0-9]+", "-", str(record.get("device", "unknown")).lower()).strip("-")
    kind = "rehearsal" if record.get("rehearsal") else "gpu"
    path = directory / f"{kind}-{device}-{record.get('commit', 'unknown')}.json"
    for other in directory.glob(f"{kind}-*.json"):
        if other != path:  # before the device was known
            other.unlink()
    _replace(path, json.dumps(record, indent=1) + "\n")
    _replace(directory / REPORT, text)
    return path


def _replace(path: Path, text: str) -> None:
    partial = path.with_suffix(".tmp")
    partial.write_text(text)
    partial.replace(path)
