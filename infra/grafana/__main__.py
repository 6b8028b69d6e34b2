"""Writes the dashboards' JSON."""

from __future__ import annotations

from pathlib import Path

from infra.grafana.boards import BOARDS
from infra.grafana.panels import rendered

FOLDER = Path(__file__).parent / "dashboards"


def main() -> None:
    """One file a dashboard."""
    for board in BOARDS:
        (FOLDER / f"{board.name}.json").write_text(rendered(board))


if __name__ == "__main__":
    main()
