"""Pages of the site that stand outside docs/, where people look for them in a checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
# Page of the site, and its file.
OUTSIDE = {
    "index.md": "README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "examples/index.md": "examples/README.md",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages, and the examples that one of them links to."""
    paths = [*ROOT.glob("examples/*.py"), *ROOT.glob("examples/*.ipynb")]
    scripts = {f"examples/{path.name}": str(path) for path in paths}
    pages = {page: str(ROOT / source) for page, source in OUTSIDE.items()}
    for uri, source in (scripts | pages).items():
        files.append(File.generated(config, uri, abs_src_path=source))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links of those pages, as the site has them."""
    if page.file.src_uri not in OUTSIDE:
        return markdown
    if page.is_homepage:
        page.meta["hide"] = ["navigation"]  # Its section has no other page.
    for uri, source in OUTSIDE.items():
        markdown = markdown.replace(f"]({source})", f"]({uri})")
    return markdown.replace("](docs/", "](").replace("](../docs/", "](../")
