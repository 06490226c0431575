"""The reference of the site has every public name, from its docstring."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

import fastmtl
from tests.docs.pages import ROOT

# Not parts of their own: a version, and a function of `fastmtl` itself.
PACKAGES = {"training", "export", "convert", "tuning", "media", "report"} | {
    n for n in fastmtl.__all__ if n not in ("__version__", "use_backend")
}


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_every_public_name_is_in_it(package):
    page = (ROOT / f"docs/reference/{package}.md").read_text()
    assert f"::: fastmtl.{package}\n" in page
    module = import_module(f"fastmtl.{package}")
    assert inspect.getdoc(module)
    for name in module.__all__:
        each = getattr(module, name)
        # What is named like its module is not found by the package's line.
        if (ROOT / f"fastmtl/{package}/{name}.py").is_file():
            assert f"::: fastmtl.{package}.{name}" in page
        if inspect.isclass(each) or inspect.isroutine(each) or inspect.ismodule(each):
            assert each.__doc__, name


def test_every_page_is_in_the_navigation():
    listed = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert f": {page.relative_to(ROOT / 'docs').as_posix()}\n" in listed
