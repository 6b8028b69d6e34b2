"""How much of everything the demo plays, and its rehearsal."""

from __future__ import annotations

import os
from pathlib import Path

from ruamel.yaml import YAML

from pawl.settings import Settings

AGENT = "functional-negative"
CLIENTS = 32  # at once: vLLM answers 32 at little more than the time of 8
LIVE_CLIENTS = 12  # while a rollout looks at every answer
REQUESTS = {False: (400, 320), True: (90, 60)}  # in week 1 and in every later one, by --small
POISONED = {False: 96, True: 32}


def sized_fleet(settings: Settings, root: Path, *, small: bool) -> Path:
    """The fleet's file; for a rehearsal a copy of it with small numbers."""
    path = Path(os.environ.get("PAWL_FLEET", root / "infra" / "fleet.yaml"))
    if not small:
        return path
    yaml = YAML()
    tree = yaml.load(path.read_text())
    agent = tree["agents"][0]
    agent["data"] |= {"max_examples": 72, "min_examples": 16}
    agent["training"] |= {"epochs": 3}
    agent["evaluation"] |= {"items": 32, "margin": 0.2, "min_score": 0.0}
    agent["rollout"] |= {"min_shadow_pairs": 8, "min_stage_sessions": 6, "min_watch_sessions": 6, "min_bake_s": 1}
    target = settings.home / "fleet-small.yaml"
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w") as out:
        yaml.dump(tree, out)
    return target
