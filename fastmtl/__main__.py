"""`python -m fastmtl`: the command line."""

from __future__ import annotations

from fastmtl.cli import main

if __name__ == "__main__":
    main()
