from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("repository", "package"),
    [("ruff-pre-commit", "ruff"), ("mirrors-clang-format", "clang-format")],
)
def test_a_commit_is_checked_by_the_versions_that_ci_has(repository, package):
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    requirements = (ROOT / "requirements.txt").read_text()
    hook = re.search(rf"{repository}\n\s+rev: v(\S+)", hooks)
    pinned = re.search(rf"^{package}==(\S+)", requirements, re.MULTILINE)
    assert hook[1] == pinned[1]
