"""`python -m infra.demo`: Pawl's loop on this machine, from live traffic to a model that took it over, and back."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Parse, start, play, and stay up until the user ends it."""
    parser = argparse.ArgumentParser(prog="infra.demo", description=__doc__)
    parser.add_argument("--weeks", type=int, default=1, help="how many weeks to play (default 1)")
    parser.add_argument("--yes", action="store_true", help="approve promotions without asking, and say so")
    parser.add_argument("--small", action="store_true", help="a short rehearsal: little traffic, little training")
    parser.add_argument("--no-wait", action="store_true", help="stop the servers at the end instead of staying up")
    parser.add_argument("--stop", action="store_true", help="only stop servers that a demo left running")
    options = parser.parse_args()
    os.chdir(ROOT)
    os.environ.setdefault("PAWL_HOME", str(ROOT / ".pawl"))
    # Bars of the libraries would be drawn over ours.
    for name, value in (
        ("TQDM_DISABLE", "1"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
    ):
        os.environ.setdefault(name, value)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)

    from infra.demo.sizes import sized_fleet
    from infra.demo.story import Story
    from pawl.errors import PawlError
    from pawl.monitoring import timeline
    from pawl.settings import Settings

    if not options.stop:
        os.environ["PAWL_FLEET"] = str(sized_fleet(Settings(), ROOT, small=options.small))
    settings = Settings()
    for name in ("vllm", "standin"):
        os.environ[f"PAWL_{name.upper()}_URL"] = getattr(settings, f"{name}_url")
    story = Story(settings, ROOT, console, weeks=options.weeks, yes=options.yes, small=options.small)
    if options.stop:
        story.stack.stop()
        return 0
    began = time.time()
    ended = threading.Event()

    def beats() -> None:
        while not ended.wait(2):
            timeline.beat(settings.home / "sessions.jsonl", began, time.time())

    threading.Thread(target=beats, daemon=True).start()
    try:
        story.play()
        ended.set()
        if not options.no_wait:
            console.print("\nEverything stays up until you press Ctrl-C.")
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        again = "" if story.finished else "; `make demo` continues where it was"
        console.print(f"\nstopping the servers{again}")
    except (PawlError, OSError) as e:
        console.print(f"\n[red]{e}[/]", soft_wrap=True)
        console.print("stopping the servers; `make demo` continues where it was once that is mended")
        return 1
    finally:
        ended.set()
        story.stack.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
