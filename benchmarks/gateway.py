"""How fast the gateway is, against LiteLLM's proxy, MLflow's gateway and Envoy: `python -m benchmarks.gateway`."""

from __future__ import annotations

import argparse
import http.client
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from rich.console import Console

from benchmarks import peers
from benchmarks.claims import Claim, arguments, table
from benchmarks.load import WRK_MISSING
from benchmarks.measure import FULL, QUICK, STREAMS, Bench, Say
from benchmarks.peers import PEERS, Gateway, Place
from benchmarks.servers import Cores, Failed, Missing, Server, end, free_port

_DEFAULT_PEERS = "litellm,mlflow,envoy"
_HELP = """\
Measures Pawl's gateway on one core, in front of a stub upstream that answers at once: what is left is the gateway's
own cost. Load generator (wrk) and stub share the other core. All gateways are started; those whose turn it is not
are frozen. Repeats are interleaved (ours, peer, ours, peer ...) and the medians of the pairs' ratios are reported.
"""
_EPILOG = """\
claims:
  litellm, mlflow, envoy   requests/s at 64 clients: ours, the peer's, and their ratio
  latency                  milliseconds that the gateway adds to a call at one client (p50, p99)
  first token              milliseconds that it adds until a stream's first event (median)
  streams                  its resident memory in MB with 1,000 open streams, and before
  fsync                    requests/s with PAWL_JOURNAL_SYNC=fsync, over the default's

before the first run:
  apt-get install wrk      the load generator
  make bench-peers         the peers, in an environment of their own (.bench/peers)

examples:
  python -m benchmarks.gateway --quick                  two short rounds, under five minutes with all the starting
  python -m benchmarks.gateway --json > claims.jsonl    the whole measurement, one line a claim on stdout
  python -m benchmarks.gateway --quick --peers envoy    one peer; `--peers none` measures ours alone

exit codes: 0 measured; 1 a server failed, or the stub's counts and the client's disagree; 2 something is missing.
A peer that is not installed costs its claim, and a message. Close what else runs: any work on the two cores shows.
Our journal alone grows by some 40 MB a second under load: the folder for temporary files needs 15 GB (--quick: 3 GB).
docs/benchmarks/gateway.md says how each gateway is configured, and why that is fair.
"""


def main() -> int:
    """Entry point; returns the exit code."""
    args = _arguments()
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    begun = time.monotonic()

    def say(text: str) -> None:
        errors.print(f"{time.monotonic() - begun:6.1f} s  {text}", markup=False)

    signal.signal(signal.SIGTERM, _leave)
    try:
        if shutil.which("wrk") is None:
            raise Missing(WRK_MISSING)
        if not (shutil.which("setpriv") and shutil.which("taskset")):
            raise Missing("taskset or setpriv is not on the PATH; `apt-get install util-linux` brings both")
        failures = _measure(args, say)
    except Missing as e:
        errors.print(f"missing: {e}", markup=False)
        return 2
    except (Failed, OSError, http.client.HTTPException) as e:
        errors.print(f"failed: {e}", markup=False)
        return 1
    except KeyboardInterrupt:
        errors.print("interrupted; all servers are ended", markup=False)
        return 130
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = arguments("gateway", _HELP, _EPILOG, "two short rounds in place of five long ones")
    parser.add_argument(
        "--peers",
        default=_DEFAULT_PEERS,
        metavar="NAMES",
        help=f"comma-separated, of: {', '.join(PEERS)}; or none (default: {_DEFAULT_PEERS})",
    )
    parser.add_argument(
        "--peers-env",
        type=Path,
        default=Path(".bench/peers"),
        metavar="FOLDER",
        help="the peers' environment (default: .bench/peers)",
    )
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder with all logs")
    args = parser.parse_args()
    args.peers = [p for p in (n.strip() for n in args.peers.split(",")) if p and p != "none"]
    for name in args.peers:
        if name not in PEERS:
            parser.error(f"no peer is called {name!r}; there are: {', '.join(PEERS)}")
    return args


def _leave(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends everything as Ctrl-C does."""
    raise KeyboardInterrupt


def _measure(args: argparse.Namespace, say: Say) -> int:
    """Start, measure, print. Returns how many peers failed."""
    cores, plan = Cores.of_this_machine(), QUICK if args.quick else FULL
    streams_fit = _raise_open_files()
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="pawl-bench-"))
        if args.keep:
            say(f"logs are kept in {folder}")
        else:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if shutil.disk_usage(folder).free < plan.disk_gb * 1e9:
            raise Missing(f"{folder} has less than {plan.disk_gb:g} GB to write to; set TMPDIR to a larger disk")
        os.sched_setaffinity(0, {cores.load})
        place = Place(folder, cores.gateway, free_port(), args.peers_env.absolute())
        stack.callback(end, place.servers)
        command = [sys.executable, "-m", "benchmarks.stub_upstream", "--port", str(place.stub_port)]
        root = str(Path(__file__).resolve().parents[1])
        stub = Server("stub", command, cores.load, folder, {"PYTHONPATH": root})
        place.servers.append(stub)
        stub.wait_for(place.stub_port, "/count", 20)

        say("starting the gateways ...")
        ours, synced = peers.ours(place), peers.ours(place, "ours-fsync", "fsync")
        others, failures = _start_peers(args.peers, place, say)
        for gateway in (ours, synced):
            gateway.settle()
        settled: list[Gateway] = []
        for gateway in others:
            try:
                gateway.settle()
                settled.append(gateway)
            except (Failed, OSError, http.client.HTTPException) as e:
                failures += 1
                end([gateway.server])
                say(f"no claim about {gateway.name}: {e}")

        gateways = [ours, synced, *settled]
        bench = Bench(place, cores, stub, gateways, plan, say)
        say("warming up ...")
        for gateway in gateways:
            bench.warm_up(gateway)
        say("measuring ...")
        claims: list[Claim] = []

        def claim(made: Claim) -> None:
            claims.append(made)
            if args.json:
                print(made.json(), flush=True)

        for gateway in settled:
            claim(bench.rates(gateway.name, ours, gateway))
        claim(bench.latency(ours))
        claim(bench.first_token(ours))
        if streams_fit:
            claim(bench.streams(ours))
        else:
            say(f"no claim about streams: {STREAMS} need more open files than `ulimit -Hn` allows")
        _warn_of_memory_disk(folder, say)
        claim(bench.rates("fsync", synced, ours))
        say(f"measured for {bench.measured_s:.0f} s")
        if bench.disturbed:
            say(f"note: {bench.disturbed} of {bench.turns} turns were disturbed by other processes; quote none of this")
    if not args.json:
        Console().print(table(claims, "Pawl's gateway on one core"))
    return failures


def _start_peers(names: list[str], place: Place, say: Say) -> tuple[list[Gateway], int]:
    """(those that were started, how many failed to); a peer that is not installed is no failure."""
    others: list[Gateway] = []
    failures = 0
    for name in names:
        try:
            others.append(PEERS[name](place))
        except Missing as e:
            say(f"no claim about {name}: {e}")
        except OSError as e:
            failures += 1
            say(f"no claim about {name}: it could not be started ({e})")
    return others, failures


def _raise_open_files() -> bool:
    """Let this process and its children open enough sockets. Whether they may."""
    wanted = 4 * STREAMS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return False
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return True


def _warn_of_memory_disk(folder: Path, say: Say) -> None:
    said = subprocess.run(["stat", "--file-system", "--format=%T", str(folder)], capture_output=True, text=True)
    if said.stdout.strip() in ("tmpfs", "ramfs"):
        say(f"note: {folder} is in memory, where fsync costs nothing; set TMPDIR to a folder on a disk")


if __name__ == "__main__":
    sys.exit(main())
