"""What the benchmark says: one claim a line as JSON, or a table."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

Value = float | dict[str, float]
Spread = tuple[float, float] | dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Claim:
    """One comparison. `ratio` is always ours over peer, `spread` its least and greatest repeat.

    Where the claim is about added time, `ours` is what the gateway adds, `peer` what a direct call takes, and `spread`
    that of `ours`. For `streams`, `peer` is the same gateway before the streams, and `spread` that of `ours`.
    """

    claim: str
    ours: Value
    peer: Value
    ratio: Value
    spread: Spread
    unit: str

    def json(self) -> str:
        """One line."""
        return json.dumps({k: _rounded(v) for k, v in asdict(self).items()})


def rates(claim: str, pairs: Sequence[tuple[float, float]], unit: str = "requests/s") -> Claim:
    """From the rates of the pairs (ours, peer), each pair measured one right after the other."""
    ratios = [ours / peer for ours, peer in pairs]
    return Claim(
        claim,
        ours=statistics.median(ours for ours, _ in pairs),
        peer=statistics.median(peer for _, peer in pairs),
        ratio=statistics.median(ratios),
        spread=(min(ratios), max(ratios)),
        unit=unit,
    )


def added_ms(claim: str, rounds: Sequence[tuple[Sequence[int], Sequence[int]]], quantiles: Sequence[float]) -> Claim:
    """From the nanoseconds of single requests, (through the gateway, direct) a round: what the gateway adds.

    With one quantile the claim's values are numbers, with more they are named `p50`, `p99` ...
    """
    ours: dict[str, float] = {}
    peer: dict[str, float] = {}
    spread: dict[str, tuple[float, float]] = {}
    for q in quantiles:
        direct = [quantile(without, q) / 1e6 for _, without in rounds]
        added = [quantile(through, q) / 1e6 - d for (through, _), d in zip(rounds, direct, strict=True)]
        name = f"p{q * 100:g}"
        ours[name], peer[name] = statistics.median(added), statistics.median(direct)
        spread[name] = (min(added), max(added))
    ratio = {name: ours[name] / peer[name] for name in ours}
    if len(quantiles) > 1:
        return Claim(claim, ours, peer, ratio, spread, "ms")
    (only,) = ours
    return Claim(claim, ours[only], peer[only], ratio[only], spread[only], "ms")


def quantile(values: Sequence[int], q: float) -> float:
    """The smallest value that at least the share `q` of the values does not exceed."""
    ranked = sorted(values)
    return ranked[max(0, -int(-q * len(ranked) // 1) - 1)]


def tell(claims: Sequence[Claim], title: str, *, as_json: bool) -> None:
    """On stdout: a line each as JSON, or the table."""
    if as_json:
        for claim in claims:
            print(claim.json())
    else:
        Console().print(table(claims, title))


def table(claims: Sequence[Claim], title: str = "") -> Table:
    """For people."""
    made = Table(title=title or None, title_justify="left")
    for column in ("claim", "ours", "peer", "ratio", "spread", "unit"):
        made.add_column(column, justify="left" if column in ("claim", "unit") else "right")
    for c in claims:
        made.add_row(c.claim, _shown(c.ours), _shown(c.peer), _shown(c.ratio), _shown(c.spread), c.unit)
    return made


def _rounded(value: Any) -> Any:
    """Four significant digits: more would pretend to a precision that the repeats do not have."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _shown(value: Value | Spread) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name} {_shown(v)}" for name, v in value.items())
    if isinstance(value, tuple):
        return f"{_shown(value[0])} .. {_shown(value[1])}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def arguments(name: str, told: str, more: str, quick: str) -> argparse.ArgumentParser:
    """What every script here takes: --quick and --json. `told` stands before the options, `more` after them."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=told,
        epilog=more,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", action="store_true", help="one JSON object a claim on stdout; progress on stderr")
    return parser
