"""Writes docs/reference/: `python -m infra.reference`, or with --check says which page is not current."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from infra.reference.pages import pages

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"


def main() -> int:
    """Write the pages; with --check write nothing, and 1 where one differs."""
    parser = argparse.ArgumentParser(prog="python -m infra.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a page is not current")
    check = parser.parse_args().check
    FOLDER.mkdir(exist_ok=True)
    old = []
    for name, text in pages().items():
        path = FOLDER / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        old.append(name)
        if not check:
            path.write_text(text, encoding="utf-8")
    print(f"{'not current' if check else 'written'}: {', '.join(old) or 'none'}")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
