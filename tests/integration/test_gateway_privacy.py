"""What is local stays local: nothing leaves, by any path, in any way of asking for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway_process import FLEET, PROMPT, LiveGateway
from tests.waiting import until

AGENT = "functional-negative"
CHAT = "/v1/chat/completions"
ASK = {"model": AGENT, "messages": [{"role": "user", "content": PROMPT}]}
ROOT = Path(__file__).resolve().parents[2]


def in_a_namespace(mode: str, by: str) -> dict[str, Any]:
    """What the probe saw; skips where this machine gives no namespaces."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("unshare or ip is not installed: egress is not counted")
    flags = ["-n"] if os.getuid() == 0 else ["-rn"]
    can = subprocess.run(
        ["unshare", *flags, "ip", "link", "add", "out", "type", "veth", "peer", "name", "in"], capture_output=True
    )
    if can.returncode != 0:
        pytest.skip(f"no network namespace can be made here: {can.stderr.decode().strip()}")
    probe = [sys.executable, "-m", "tests.integration.egress_probe", json.dumps({"mode": mode, "by": by})]
    done = subprocess.run(["unshare", *flags, *probe], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_guard_sees_what_leaves_in_open_mode() -> None:
    seen = in_a_namespace("open", "agent")
    assert seen["packets"] >= 3 and seen["blocked"] == 0, seen


@pytest.mark.parametrize("by", ["server", "agent", "key", "request"])
def test_local_only_sends_nothing_out_by_any_path(by: str) -> None:
    seen = in_a_namespace("local_only", by)
    assert seen["packets"] == 0, seen["log"]
    answered, failing = seen["statuses"][:6], seen["statuses"][6:]
    assert answered == [200, 200, 400, 200, 200, 200], "pictures need the cloud here"
    assert all(400 <= s < 600 for s in failing[:5]), "with the cluster down there is no answer rather than a leak"
    assert seen["blocked"] >= 6


def test_every_block_and_every_cloud_call_is_in_the_audit_log(live: LiveGateway) -> None:
    live.upstream.failing.add("base")
    answer = live.request(CHAT, ASK)[1]
    assert live.request(CHAT, ASK, headers={"x-pawl-privacy": "local_only"})[0] == 502
    live.upstream.failing.clear()
    live.request(CHAT, ASK, headers={"x-pawl-privacy": "strict"})
    until(lambda: len(live.control.audit_log()) >= 4)
    found = [(e["event"], e["detail"]["mode"]) for e in live.control.audit_log()]
    assert found[0] == ("cloud call", "open")
    assert ("upstream blocked by privacy", "local_only") in found
    assert ("upstream blocked by privacy", "strict") in found and ("shadow blocked by privacy", "strict") in found
    entry = live.control.audit_log()[0]
    assert (entry["detail"]["id"], entry["detail"]["upstream"], entry["detail"]["host"]) == (
        answer["id"], "cloud", "127.0.0.1",
    )  # fmt: skip
    assert PROMPT not in json.dumps(live.control.audit_log()) and live.control.verify_audit() is None
    assert live.metric("pawl_privacy_blocks_total", mode="strict") == 2


def test_a_request_cannot_widen_what_its_key_or_agent_narrows(gateway: Callable[..., LiveGateway]) -> None:
    live = gateway(FLEET.replace("shadow: cloud", "shadow: cloud\n    privacy: local_only"))
    live.upstream.failing.add("base")
    assert live.request(CHAT, ASK, headers={"x-pawl-privacy": "open"})[0] == 502
    assert live.request(CHAT, ASK, headers={"x-pawl-privacy": "secret"})[0] == 400
    assert live.upstream.models() == ["base"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("shadow: cloud", "shadow: cloud\n    privacy: strict"), "shadow names cloud, which is a cloud upstream"),
        (("127.0.0.1:{port}/v1", "gpu.example/v1"), "on gpu.example, not in gateway.allow_hosts"),
        (("agents:", "gateway: {{privacy: strict, telemetry: {{sample: 0.1, endpoint: 'https://otel.example/v1'}}}}\nagents:"),
         "gateway.telemetry goes to https://otel.example/v1"),
        (("shadow: cloud", "privacy: strict\n    serving: {{envoy: {{routes: /r.json, champion: blue, "
          "challenger: green, admin: 'http://edge.example:9901'}}}}"),
         "the Envoy of functional-negative goes to http://edge.example:9901"),
    ],
)  # fmt: skip
def test_strict_refuses_to_start_where_anything_could_leave(
    tmp_path: Path, free_port: int, change: tuple[str, str], said: str
) -> None:
    text = FLEET.replace(*change)
    if "privacy: strict" not in text:
        text = text.replace("shadow: cloud", "privacy: strict")
    (tmp_path / "fleet.yaml").write_text(text.format(port=1))
    env = os.environ | {
        "PAWL_HOME": str(tmp_path), "PAWL_FLEET": str(tmp_path / "fleet.yaml"), "PAWL_GATEWAY_PORT": str(free_port),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "pawl.cli", "gateway"], env=env, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1 and said in done.stderr, done.stderr
