"""The demo's story: traffic, a weekly run, approval, rollout; then a bad challenger, and the way back."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from infra.demo import prefect_runs
from infra.demo.memory import Memory
from infra.demo.people import People
from infra.demo.screen import Bar
from infra.demo.servers import memory_mb
from infra.demo.sizes import AGENT, LIVE_CLIENTS, POISONED, REQUESTS
from infra.demo.stack import Stack
from pawl.errors import PawlError
from pawl.improvement.held_out import split_of
from pawl.monitoring import timeline
from pawl.qe.item import Item
from pawl.rollout.state import Rollout
from pawl.settings import Settings


class Story:
    """Every step is idempotent: what is done is remembered, what was cut off is done again."""

    def __init__(self, settings: Settings, root: Path, console: Console, *, weeks: int, yes: bool, small: bool) -> None:
        self.settings, self.root, self.console = settings, root, console
        self.weeks, self.yes, self.small = weeks, yes, small
        self.stack = Stack(settings, root, AGENT, console)
        self.place = self.stack.place
        self.people = People(settings, self.place)
        self.memory = Memory(settings.home / "demo.json")
        self.finished = False
        self.peak_mb = 0.0
        self._serial = itertools.count(int(time.time() * 10))

    def play(self) -> None:
        """From nothing to a served adapter, and the way back."""
        began = time.time()
        self.stack.start()
        threading.Thread(target=self._watch_memory, daemon=True).start()
        split = split_of(self.place.agent)
        self.training, held_out = split.train, split.test
        training = self.training
        self._say(
            f"{len(training)} operations of {len({o.source for o in training})} services to learn from, "
            f"{len(held_out)} of {len({o.source for o in held_out})} others to be judged on"
        )
        for week in range(1, self.weeks + 1):
            if self.memory.get(f"week {week} done") is None:
                self._week(week)
                self.memory.keep(f"week {week} done", time.time())
        self._way_back()
        self._finish(began)

    def _week(self, week: int) -> None:
        self.console.rule(f"week {week}")
        since = self.memory.once(f"week {week} since", time.time)
        self._traffic(week, since)
        run = self._improve(f"week {week}", {"since": since})
        version = run["version"]
        if run["decision"] != "promote":
            reasons = "; ".join(run["reasons"])
            self._say(f"the gate says {run['decision']} ({reasons}); the champion stays")
            return
        self._approval(version)
        rollout = self._roll(version)
        self._say(f"rollout of version {version}: [bold]{rollout.stage}[/]")

    def _traffic(self, week: int, since: float) -> None:
        """Clients of this week; sessions whose feedback is recorded already are not sent again."""
        amount = REQUESTS[self.small][0 if week == 1 else 1]
        operations = random.Random(week).sample(self.training, min(amount, len(self.training)))
        seen = self.place.lake.interactions(AGENT, since=since, until=None)
        scored = {f.interaction for f in self.place.lake.feedback(AGENT, since=since, until=None)}
        done = {i.session for i in seen if i.id in scored and i.role == "answer"}
        work = [(f"w{week}-{n}", o) for n, o in enumerate(operations) if f"w{week}-{n}" not in done]
        if not work:
            return
        champion = self.people.route()["champion"]["name"]
        with Bar(self.console, f"traffic to {champion}", amount) as tell, self._model_time("traffic"):
            played = self.people.clients().play(
                work,
                lambda p: tell(
                    len(done) + p.answered + p.failed, f"{len(done) + p.answered}/{amount}, mean score {p.mean:.2f}"
                ),
            )
            self._settle_shadows(since)
        self._say(
            f"{champion} answered {played.answered} requests (mean score {played.mean:.2f}, {played.failed} failed); "
            "the STAND-IN for a cloud model answered in shadow"
        )

    def _settle_shadows(self, since: float) -> None:
        """Until the shadows of the last answers are recorded, or for half a minute."""
        end, before = time.monotonic() + 30, -1
        while time.monotonic() < end:
            shadows = sum(1 for i in self.place.lake.interactions(AGENT, since=since, until=None) if i.role == "shadow")
            if shadows == before:
                return
            before = shadows
            time.sleep(1.5)

    def _improve(self, name: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """The weekly deployment, run by Prefect's worker; its progress drawn here."""
        known = self.memory.get(f"{name} judged")
        if known:
            return dict(known)
        before = {v.number for v in self.place.registry.versions(AGENT)}
        run = prefect_runs.start_run(
            self.settings, "improve-agent/now", {"agent": AGENT, "until": time.time(), **parameters}
        )
        self._say(f"Prefect runs improve-agent: {self._prefect_ui()}/runs/flow-run/{run}")
        self._watch_run(run)
        newest = [v for v in self.place.registry.versions(AGENT) if v.number not in before]
        version = max(newest or self.place.registry.versions(AGENT), key=lambda v: int(v.number))
        found = self._evidence(version.tags["candidate"]) | {"version": version.number, "adapter": version.adapter}
        self._say(
            f"version {found['version']}: champion {found['champion']:.3f}, challenger {found['mean']:.3f} "
            f"[{found['lower']:.3f}, {found['upper']:.3f}] on {found['pairs']} operations of unseen services, "
            f"p(better) {found['p']:.4f}; the gate says [bold]{found['decision']}[/]"
        )
        return dict(self.memory.keep(f"{name} judged", found))

    def _evidence(self, candidate: str) -> dict[str, Any]:
        folder = self.settings.home / "candidates" / candidate
        comparison = json.loads((folder / "comparison.json").read_text())
        gate = json.loads((folder / "gate.json").read_text())
        score = comparison["challenger"]["score"]
        mean, lower, upper = score if isinstance(score, list) else (score["mean"], score["lower"], score["upper"])
        champion = comparison["champion"]["score"]
        return {
            "mean": mean, "lower": lower, "upper": upper,
            "champion": champion[0] if isinstance(champion, list) else champion["mean"],
            "pairs": comparison["pairs"], "p": comparison["p_better"],
            "decision": gate["decision"], "reasons": gate["reasons"], "candidate": candidate,
        }  # fmt: skip

    def _watch_run(self, run: str) -> None:
        with Bar(self.console, "improve-agent", 100) as tell:
            failed = prefect_runs.watch(self.settings, run, self.place.progress, tell)
        if failed:
            log = self.settings.home / "logs" / "worker.log"
            raise PawlError(f"the weekly run {failed}\nsee {log}")

    def _approval(self, version: str) -> None:
        request = self.place.control.request(AGENT, version)
        if request is None or self.place.control.approvals(AGENT, version):
            return
        page = self.place.registry.url(self.place.registry.version(AGENT, version))
        self._say(f"version {version} waits for approval on evidence {request.evidence[:12]}: {page}")
        if self.yes:
            self._say("[yellow]--yes: approved without asking a person[/]")
        else:
            answer = self.console.input(f"approve version {version} of {AGENT}? [y/N] ").strip().lower()
            if answer not in ("y", "yes"):
                self.people.pawl("reject", AGENT, version, "--reason", "declined on the terminal", role="approver")
                raise PawlError(f"version {version} was declined; the champion goes on serving")
        self._say(self.people.pawl("approve", AGENT, version, role="approver"))

    def _roll(self, version: str) -> Rollout:
        """Live traffic while the rollout of this version moves by its evidence; returns its end."""

        def mine() -> Rollout | None:
            return next((r for r in self.place.control.rollouts(AGENT) if r.version == version), None)

        state = {"stage": "opening"}
        over, trouble = threading.Event(), list[Exception]()

        def drive() -> None:
            """Ask for a tick when the evidence is there; the schedule would do the same within a minute."""
            try:
                while not over.is_set():
                    rollout = mine()
                    if rollout is None:
                        self.people.tick()
                    elif rollout.stage in ("done", "rolled_back"):
                        return
                    else:
                        latest = self.people.latest_decision()
                        counted = f"{latest.get('sessions', 0)}/{latest.get('needed', 0)}"
                        state["stage"] = f"stage {rollout.stage}, {counted} scored"
                        if latest.get("action") == "advance":
                            self.people.tick()
                    time.sleep(0.5)
            except Exception as e:  # told by the main thread, which would otherwise send traffic for ever
                trouble.append(e)
            finally:
                over.set()

        with Bar(self.console, f"rollout of version {version}", None) as tell:
            driver = threading.Thread(target=drive, daemon=True)
            driver.start()
            while mine() is None and driver.is_alive():
                time.sleep(0.2)
            with self._model_time("rollout", kind="waiting"):
                self.people.clients(LIVE_CLIENTS).play(
                    self._live(),
                    lambda p: tell(p.answered, f"{state['stage']}; {p.answered} answered, {p.failed} failed"),
                    stop=over.is_set,
                )
        if trouble:
            raise trouble[0]
        found = mine()
        if found is None:
            raise PawlError("no rollout was opened; see `pawl status` and Prefect's UI")
        self.people.tick()  # settles the aliases and the page
        for t in found.history:
            d = t.decision
            self._say(f"  {t.stage_from} -> {t.stage_to} by {t.by}: {d.reason}")
        return found

    def _live(self) -> Iterator[tuple[str, Item]]:
        """Endless live traffic in new sessions."""
        rng = random.Random(time.time())
        while True:
            yield f"live-{next(self._serial)}", rng.choice(self.training)

    def _way_back(self) -> None:
        """A challenger from corrupted answers: refused by the gate; forced past it, rolled back."""
        self.console.rule("the way back")
        bad = self._poison()
        self._say(f"the corrupted challenger is version {bad['version']}; reasons: {'; '.join(bad['reasons'])}")
        if self.memory.get("rolled back") is None:
            if self.place.control.request(AGENT, bad["version"]) is None:
                why = "demo: shows the automatic rollback"
                self._say(
                    self.people.pawl(
                        "rollout", "force", AGENT, bad["version"], "--reason", why, "--skip-shadow", role="operator"
                    )
                )
            rollout = self._roll(bad["version"])
            self._say(f"version {bad['version']}: [bold]{rollout.stage}[/]; clients went on being answered")
            self.memory.keep("rolled back", rollout.stage)

    def _poison(self) -> dict[str, Any]:
        """A broken script posts wrong corrections about recent answers; then the weekly run learns from them."""
        from pawl.qe.functional_negative import reference
        from pawl.qe.operations.prompt import parsed

        since = self.memory.get("poison since")
        if since is None:
            answered = [i for i in self.place.lake.interactions(AGENT, since=None, until=None) if i.role == "answer"]
            latest: dict[str, Any] = {str(i.task.get("id", i.id)): i for i in answered if i.completion}
            recent = sorted(latest.values(), key=lambda i: i.at)[-POISONED[self.small] :]
            rng = random.Random(13)
            rows: list[dict[str, Any]] = []
            for i in recent:
                wrong = {"completion": reference.corrupt(parsed(i.messages).schema, rng)}
                rows.append({"interaction": i.id, "kind": "correction", "score": 1.0, "detail": wrong})
            self.people.clients().feedback(rows)
            self._say(f"a broken script posted {len(rows)} wrong corrections; the data's own check is switched off")
            since = self.memory.keep("poison since", min(i.at for i in recent) - 0.001)
        # With the oracle's check of the data on, none of these would come so far as the gate.
        trusting = {"max_examples": POISONED[self.small], "min_examples": 8, "replay_share": 0.0, "verify": False}
        data = self.place.agent.data.model_copy(update=trusting)
        spec = self.place.agent.training.model_copy(update={"learning_rate": 2e-3, "epochs": 1.0})
        specs = {"data": data.model_dump(mode="json"), "training": spec.model_dump(mode="json")}
        return self._improve("corrupted", {"since": since, **specs})

    def _finish(self, began: float) -> None:
        from pawl.improvement import publish

        page = publish.loop_page(self.place)
        now = time.time()
        sessions = timeline.sessions(self.settings.home / "sessions.jsonl", now) or [(began, now)]
        spent = timeline.split(timeline.read(self.place.timeline), sessions)
        self.console.rule("done")
        self._say(
            f"{spent.wall / 60:.1f} minutes: model {spent.model:.0f} s, waiting for evidence {spent.waiting:.0f} s, "
            f"orchestration {spent.orchestration:.0f} s ({100 * spent.orchestration / max(1, spent.wall):.0f} %); "
            f"peak memory {self.peak_mb / 1024:.1f} GB"
        )
        route = self.people.route()
        self._say(f"serving now: [bold]{route['champion']['name']}[/]")
        for name, where in (
            ("gateway", f"{self.settings.gateway_url}/v1   (key: {self.settings.home / 'demo-client.key'})"),
            ("Prefect", self._prefect_ui()),
            ("MLflow", self.settings.mlflow_url),
            ("report", page.resolve().as_uri()),
        ):
            self.console.print(f"  {name:9}{where}", soft_wrap=True)
        self.finished = True

    # -- small things the steps share

    def _prefect_ui(self) -> str:
        return self.settings.prefect_api_url.removesuffix("/api")

    def _model_time(self, name: str, kind: timeline.Kind = "model"):  # type: ignore[no-untyped-def]
        return timeline.span(self.place.timeline, kind, name)

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def _watch_memory(self) -> None:
        while not self.finished:
            self.peak_mb = max(self.peak_mb, memory_mb(self.stack.servers()))
            time.sleep(5)
