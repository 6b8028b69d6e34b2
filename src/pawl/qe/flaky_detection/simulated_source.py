"""Simulated tests: pytest functions with a cause that is known because it was put in, or with none.

Nobody ran these tests. Each run of the shown history is a draw from the mechanism that the test's code shows. Half of
them are steady: twins in which the cause is dealt with, and plain tests; one steady test in eight always fails, as a
real fault makes it. Some flaky ones are so rare that the shown history has no failure.
"""

from __future__ import annotations

import hashlib
import random
from functools import lru_cache

from pawl.qe.flaky_detection import oracle, prompt
from pawl.qe.flaky_detection import simulated_shapes as alone
from pawl.qe.flaky_detection import simulated_shared as shared
from pawl.qe.flaky_detection.history import SAMPLES, Reruns
from pawl.qe.flaky_detection.simulated_shapes import Builder, Shape
from pawl.qe.item import Item
from pawl.qe.simulated_projects import Project, of_all, project_of

_SHAPES: dict[str, tuple[Builder, ...]] = {
    "async_wait": (alone.sleeps_for_job, alone.sleeps_for_message, alone.polls_too_few),
    "time": (alone.month_of_tomorrow, alone.working_day, alone.quick_enough),
    "randomness": (alone.drawn_codes, alone.mean_of_draws, alone.picked_option),
    "order_dependence": (shared.counts_shared, shared.needs_earlier_test, shared.left_setting),
    "network": (shared.asks_a_server, shared.resolves_a_name),
    "concurrency": (shared.adds_in_threads, shared.results_in_order),
    "floating_point": (shared.sums_by_workers, shared.averages_as_they_come),
}
_BROKEN = 0.125  # share of the steady tests that always fail
_TRIALS = 400  # a mechanism that never fails in so many runs would make no flaky test


def items() -> tuple[Item, ...]:
    """All simulated tests, sorted by id; always the same."""
    return of_all(of_project)


@lru_cache(maxsize=128)
def of_project(source: str) -> tuple[Item, ...]:
    """Those of one project; none where no simulated project is called so."""
    project = project_of(source)
    return tuple({i.id: i for i in _of(project)}.values()) if project else ()


def _of(project: Project) -> list[Item]:
    rng = random.Random(hashlib.sha256(project.source.encode()).digest())
    made = []
    for cause, builders in _SHAPES.items():
        flaky, steady = rng.choice(builders), rng.choice(builders)
        shape = flaky(project, rng, True)
        while not any(shape.fails(rng) for _ in range(_TRIALS)):  # its numbers came out so that it never fails
            shape = flaky(project, rng, True)
        made.append(_item(project, shape, cause, rng))
        made.append(_item(project, steady(project, rng, False), "", rng))
    made += [_item(project, shape, "", rng) for shape in rng.sample(list(alone.plain(project, rng, False)), 2)]
    return made


def _item(project: Project, shape: Shape, cause: str, rng: random.Random) -> Item:
    broken = not cause and rng.random() < _BROKEN
    runs = rng.choice(SAMPLES)
    failed = runs if broken else sum(shape.fails(rng) for _ in range(runs))
    known = oracle.truth("flaky" if cause else "stable", cause)
    name = f"test_{rng.choice(_NAMES).format(entity=project.entity, words=shape.words)}"
    return Item(
        id=f"{project.source}/{name}_{rng.randrange(1000):03d}",
        source=project.source,
        messages=prompt.messages(project.source, Reruns(runs, failed), _code(name, shape, project, rng)),
        truth=known,
        scenario=cause or "stable",
    )


_NAMES = ("{entity}_{words}", "{words}", "that_{words}", "{words}_for_{entity}", "when_{entity}_{words}")


def _code(name: str, shape: Shape, p: Project, rng: random.Random) -> str:
    """The function, with lines around it that have nothing to do with its cause."""
    a, b = rng.randrange(1, 400), rng.choice(("kept", "spare", "main", "first", "other"))
    before = rng.choice(
        (
            (),
            (f'{b} = {{"{p.owner}": {a}}}',),
            (f"assert {p.kind}.limit >= {a}", f"{b} = {p.kind}.limit"),
            (f'log.info("{p.verb} %s", {a})',),
            (f"{b} = build_{p.entity}_{rng.choice(('fixture', 'example', 'sample'))}({a})", f"assert {b} is not None"),
        )
    )
    doc = rng.choice(
        (
            (),
            (),
            (f'"""{p.kind}: {p.verb} and {p.number}."""',),
            (f"# Regression of {p.module} #{rng.randrange(100, 9999)}.",),
        )
    )
    mark = rng.choice(((), (), (f"@pytest.mark.{rng.choice((p.module, 'integration', 'smoke'))}",)))
    head = f"{'async ' if shape.is_async else ''}def {name}({shape.params}):"
    return "\n".join((*mark, head, *(f"    {line}" for line in (*doc, *before, *shape.lines))))
