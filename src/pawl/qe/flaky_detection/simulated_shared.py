"""Simulated tests that share state, talk to others, run threads or compare floats; and what each run comes to."""

from __future__ import annotations

import math
import random

from pawl.qe.flaky_detection.simulated_shapes import Shape, never
from pawl.qe.simulated_projects import Project


def counts_shared(p: Project, rng: random.Random, flaky: bool) -> Shape:
    """A store of the module that another test may have filled before."""
    n, others = rng.randrange(1, 6), rng.randrange(1, 4)
    store = rng.choice(("STORE", "REGISTRY", "CACHE", "INDEX"))
    where = store if flaky else "store"
    lines = (
        *(() if flaky else (f"store = {store.title()}()",)),
        f"for n in range({n}):",
        f'    {where}.add({p.kind}({p.text}=f"{rng.choice("abcde")}{{n}}", {p.number}=n))',
        f"assert {where}.count({p.entity!r}) == {n}",
    )
    shuffled = rng.choice((0.1, 0.3, 0.6, 1.0))  # share of runs in which the order is not the usual one

    def filled(r: random.Random) -> bool:
        return r.random() < shuffled and max(r.random() for _ in range(others)) > r.random()

    return Shape("", lines, filled if flaky else never, f"counts_{p.many}")


def needs_earlier_test(p: Project, rng: random.Random, flaky: bool) -> Shape:
    """A row that an earlier test is thought to have made."""
    number = rng.randrange(1, 9)
    word = rng.choice(("blue", "west", "nine", "oak"))
    lines = (
        *(() if flaky else (f"repo.save({p.kind}(id={number}, {p.text}={word!r}))",)),
        f"{p.entity} = repo.get({p.kind}, {number})",
        f"{p.entity}.{p.verb}()",
        f"assert {p.entity}.{p.text} == {word!r}",
        f"assert {p.entity}.{p.number} >= 0",
    )
    alone = rng.choice((0.05, 0.2, 0.5))  # share of runs that are of this test alone, or in another order
    params = "shared_repo" if flaky else "empty_repo"
    lines = tuple(line.replace("repo.", f"{params}.") for line in lines)
    return Shape(params, lines, (lambda r: r.random() < alone) if flaky else never, f"{p.verb}s_the_{p.entity}")


def left_setting(p: Project, rng: random.Random, flaky: bool) -> Shape:
    """A setting of the process that other tests change and leave."""
    name = f"{p.module.upper()}_{rng.choice(('MODE', 'REGION', 'LIMIT', 'LOCALE'))}"
    value = rng.choice(("eu", "strict", "5", "de_DE"))
    if flaky:
        lines: tuple[str, ...] = (f"settings = load_settings(os.environ.get({name!r}, {value!r}))",)
    else:
        lines = (f"monkeypatch.delenv({name!r}, raising=False)", f"settings = load_settings(default={value!r})")
    lines += (
        f"{p.entity} = {p.kind}.from_settings(settings)",
        f"assert {p.entity}.{rng.choice(('mode', 'region', 'profile'))} == {value!r}",
    )
    share = rng.choice((0.08, 0.25, 0.5))
    params = "" if flaky else "monkeypatch"
    return Shape(params, lines, (lambda r: r.random() < share) if flaky else never, "default_setting")


def asks_a_server(p: Project, rng: random.Random, flaky: bool) -> Shape:
    """A request to a host of somebody else."""
    timeout, path = rng.choice((0.5, 1, 2, 3, 5)), f"/v{rng.randrange(1, 4)}/{p.many}/{rng.randrange(1, 500)}"
    host = f"{p.module}.partner.example"
    base = f'"https://{host}{path}"' if flaky else f'server.url + "{path}"'
    lines = (
        *(() if flaky else (f'server.answers("{path}", {{"{p.number}": {rng.randrange(1, 99)}}})',)),
        f"answer = requests.get({base}, timeout={timeout})",
        "assert answer.status_code == 200",
        f'assert answer.json()["{p.number}"] > 0',
    )
    down = rng.choice((0.002, 0.01, 0.03, 0.1))
    median = timeout / rng.choice((3, 6, 12, 25))

    def lost(r: random.Random) -> bool:
        return r.random() < down or median * r.lognormvariate(0, 0.9) > timeout

    return Shape("" if flaky else "server", lines, lost if flaky else never, f"{p.number}_from_partner")


def resolves_a_name(p: Project, rng: random.Random, flaky: bool) -> Shape:
    """A connection to a mail or queue host, or to a port that may be taken."""
    port = rng.choice((25, 587, 1883, 5672, 6379, 8125))
    host = f"{rng.choice(('relay', 'queue', 'sandbox', 'broker'))}.{p.module}.example" if flaky else "127.0.0.1"
    lines = (
        *(() if flaky else (f"port = fake_{p.module}.start()",)),
        f'link = socket.create_connection(("{host}", {port if flaky else "port"}), timeout={rng.randrange(1, 6)})',
        f'link.sendall(b"{p.verb.upper()} {rng.randrange(1, 999)}\\r\\n")',
        'assert link.recv(64).startswith(b"2")',
    )
    lost = rng.choice((0.004, 0.02, 0.08, 0.2))
    params = "" if flaky else f"fake_{p.module}"
    return Shape(params, lines, (lambda r: r.random() < lost) if flaky else never, f"{p.verb}_over_the_wire")


def adds_in_threads(p: Project, rng: random.Random, flaky: bool) -> Shape:
    """Increments by threads without a lock."""
    threads, times = rng.randrange(2, 9), rng.choice((10, 100, 500, 1000))
    guard = ("        with lock:", f"            {p.entity}.{p.number} += 1")
    bare = (f"        current = {p.entity}.{p.number}", f"        {p.entity}.{p.number} = current + 1")
    lines = (
        f"{p.entity} = {p.kind}({p.number}=0)",
        *(() if flaky else ("lock = threading.Lock()",)),
        "def work():",
        f"    for _ in range({times}):",
        *(bare if flaky else guard),
        f"workers = [threading.Thread(target=work) for _ in range({threads})]",
        "[w.start() for w in workers]",
        "[w.join() for w in workers]",
        f"assert {p.entity}.{p.number} == {threads * times}",
    )
    # A thread is interrupted between its two lines by chance; one lost update is enough.
    chance = 1 - (1 - rng.choice((2e-6, 2e-5, 1e-4))) ** (threads * times)
    return Shape("", lines, (lambda r: r.random() < chance) if flaky else never, f"{p.number}_in_threads")


def results_in_order(p: Project, rng: random.Random, flaky: bool) -> Shape:
    """Results of a pool are expected in the order of the calls."""
    n, step = rng.randrange(2, 6), rng.choice((1, 2, 5, 10))
    inputs = [k * step for k in range(1, n + 1)]
    get = "[f.result() for f in as_completed(calls)]" if flaky else "[f.result() for f in calls]"
    lines = (
        f"with ThreadPoolExecutor(max_workers={n}) as pool:",
        f"    calls = [pool.submit({p.verb}_{p.entity}, k) for k in {inputs}]",
        f"    found = {get}",
        f"assert [x.{p.number} for x in found] == {inputs}",
    )
    spread = rng.choice((0.05, 0.1, 0.3))

    def swapped(r: random.Random) -> bool:
        ends = [k * 0.1 + r.expovariate(1 / spread) for k in range(n)]
        return ends != sorted(ends)

    return Shape("", lines, swapped if flaky else never, f"{p.verb}s_side_by_side")


def _amounts(rng: random.Random) -> list[float]:
    return [round(rng.uniform(0.05, 9.95), 2) for _ in range(rng.randrange(3, 8))]


def sums_by_workers(p: Project, rng: random.Random, flaky: bool) -> Shape:
    """A sum of floats whose order the workers decide, compared exactly."""
    values = _amounts(rng)
    total = repr(sum(values))
    workers = rng.randrange(2, 5)
    expected = total if flaky else f"pytest.approx({total})"
    lines = (
        f"values = {values}",
        f"total = parallel_total_{p.number}(values, workers={workers})",
        f"assert total == {expected}",
    )

    def other(r: random.Random) -> bool:
        mixed = values[:]
        r.shuffle(mixed)
        # Each worker adds its own, then the parts are added as they arrive.
        return sum([sum(mixed[k::workers]) for k in range(workers)]) != sum(values)

    return Shape("", lines, other if flaky else never, f"total_{p.number}")


def averages_as_they_come(p: Project, rng: random.Random, flaky: bool) -> Shape:
    """A running mean over rows that arrive in any order, compared exactly."""
    values = _amounts(rng)

    def running(xs: list[float]) -> float:
        mean = 0.0
        for n, x in enumerate(xs, start=1):
            mean += (x - mean) / n
        return mean

    expected = running(values)
    check = f"mean == {expected!r}" if flaky else f"math.isclose(mean, {expected!r}, rel_tol=1e-9)"
    lines = (
        "mean = 0.0",
        f"arrived = stream_{p.many}({values})",
        f"for n, {p.number} in enumerate(arrived, start=1):",
        f"    mean += ({p.number} - mean) / n",
        f"assert {check}",
    )

    def other(r: random.Random) -> bool:
        mixed = values[:]
        r.shuffle(mixed)
        return running(mixed) != expected and math.isfinite(expected)

    return Shape("", lines, other if flaky else never, f"mean_{p.number}_of_stream")
