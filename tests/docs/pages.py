"""The code blocks of the pages, and whether what a block prints is what its page shows."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for pattern in ("README.md", "examples/*.md", "docs/**/*.md")
    for path in sorted(ROOT.glob(pattern))
}
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?")


@dataclass(frozen=True)
class Block:
    """A code block of a page; `line` is that of its fence, `shown` what it is said to print."""

    line: int
    language: str
    text: str
    shown: str = ""

    @property
    def commands(self) -> list[str]:
        """The lines of a shell, each in one piece."""
        return self.text.replace("\\\n", " ").splitlines()


def blocks(page: str) -> list[Block]:
    """The blocks of a page; one in `text` is what the block before it prints."""
    text = PAGES[page].read_text(encoding="utf-8")
    found: list[Block] = []
    for match in _BLOCK.finditer(text):
        line, language = text.count("\n", 0, match.start()) + 1, match[1]
        if language == "text" and found:
            last = found.pop()
            found.append(Block(last.line, last.language, last.text, shown=match[2]))
        else:
            found.append(Block(line, language, match[2]))
    return found


def missing_package(code: str) -> str:
    """The first package that a block imports and that is not there: not all of them need be."""
    found = list(ast.walk(ast.parse(code)))
    names = [node.module for node in found if isinstance(node, ast.ImportFrom) and node.module]
    names += [alias.name for node in found if isinstance(node, ast.Import) for alias in node.names]
    packages = (name.partition(".")[0] for name in names)
    return next((name for name in packages if not find_spec(name)), "")


def missing_line(shown: str, printed: str) -> str | None:
    """The first line shown that is not among those printed, in order; None if there is none.

    A line `...` stands for any lines. Seconds may be any, whole numbers are to be equal, and others
    within 0.05 or a twentieth: machines differ in the order of sums.
    """
    lines = iter(printed.splitlines())
    for line in shown.splitlines():
        if line.strip() and line.strip() != "..." and not any(_agree(line, each) for each in lines):
            return line
    return None


def _agree(shown: str, printed: str) -> bool:
    shown, printed = (re.sub(r"[\d.]+ (s|ms)\b", "? s", line) for line in (shown, printed))
    if _NUMBER.sub("#", shown).split() != _NUMBER.sub("#", printed).split():
        return False
    pairs = zip(_NUMBER.findall(shown), _NUMBER.findall(printed), strict=True)
    return all(_near(*pair) for pair in pairs)


def _near(*texts: str) -> bool:
    if not any(set(".e") & set(text) for text in texts):
        return texts[0] == texts[1]
    shown, printed = (float(text.replace(",", "")) for text in texts)
    return abs(shown - printed) <= max(0.05, 0.05 * abs(shown))
