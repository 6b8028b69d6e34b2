"""What could be learnt from a window: found, scored and made one a prompt in SQL, where rows are many.

Texts are read only of what is left: prompts of the candidates, answers of what was selected.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import duckdb
import pandas as pd

from pawl.curation.dataset import Step
from pawl.curation.permission import MODES, sql
from pawl.fleet.data import DataSpec
from pawl.fleet.limits import Privacy

WRONG = 0.5  # an answer of lower quality was wrong
SURELY_WRONG = 0.25  # and one of at most this, which nevertheless stood, was confidently so


class Candidate(NamedTuple):
    """An answer, or a correction of it, that could become an example. Its texts are fetched by `id` and `kind`."""

    id: str  # of the interaction; of the observation where kind is bug
    prompt: str  # sha256 of the messages, 24 hex digits
    kind: str  # answer, correction, bug
    quality: float
    at: float
    shadow_of: str | None
    named_source: str  # what the client said
    hard: int  # 1: the champion got this prompt wrong, 2: and let it stand
    privacy: Privacy = "open"
    granted: bool = False  # a client said that it may be learnt from


class Texts(NamedTuple):
    """What a person would read of a candidate."""

    messages: str  # JSON
    completion: str


class Candidates:
    """The candidates of one window, over a connection of `pawl.lake.window_duckdb`."""

    def __init__(
        self,
        db: duckdb.DuckDBPyConnection,
        spec: DataSpec,
        quarantined: Mapping[str, Sequence[str]] = MappingProxyType({}),
        calibrate: Callable[[float], float] | None = None,
    ) -> None:
        """`quarantined`: ids by table. `calibrate`: from a quality to the share that raters call right; rising."""
        self._db, self._spec, self._calibrate = db, spec, calibrate
        self.steps: list[Step] = []
        for table in ("interactions", "feedback"):
            db.register(f"{table}_aside", pd.DataFrame({"id": sorted(quarantined.get(table, ()))}, dtype="string"))
        self._know()
        self._answer()
        self._choose()

    def _know(self) -> None:
        """One quality an interaction: the latest word of each voice, the mean over a kind's voices, then the weights.

        A voice is source and key, as one kind of feedback; saying it again replaces what was said before.
        `pawl.curation.quality` is the same rule for a few.
        """
        w = self._spec.quality
        weights = [("grader", w.grader), ("outcome", w.outcome), ("accepted", w.accepted)]
        weights += [("rating", w.rating), ("review", w.review)]
        listed = ", ".join(f"('{name}', {weight!r})" for name, weight in weights if weight > 0)
        self._db.execute(f"""
            CREATE TEMP TABLE known AS
            WITH voices AS (
                SELECT interaction, source, kind, coalesce(key_id, '') AS key_id, arg_max(score, ("at", id)) AS score
                FROM feedback
                WHERE kind <> 'correction' AND score IS NOT NULL AND id NOT IN (SELECT id FROM feedback_aside)
                GROUP BY ALL
            ), kinds AS (
                SELECT interaction,
                    CASE WHEN source = 'grader' THEN 'grader' WHEN source LIKE 'review:%' THEN 'review' ELSE kind END
                        AS voice,
                    avg(least(1.0, greatest(0.0, score))) AS score
                FROM voices GROUP BY ALL
            )
            SELECT interaction, sum(score * weight) / sum(weight) AS quality
            FROM kinds JOIN (VALUES {listed}) AS weights(voice, weight) USING (voice)
            GROUP BY interaction
        """)  # noqa: S608 - numbers of a checked spec
        if self._calibrate is not None:
            values = [q for (q,) in self._db.execute("SELECT DISTINCT quality FROM known").fetchall()]
            line = pd.DataFrame({"raw": values, "told": [self._calibrate(q) for q in values]}, dtype="float64")
            self._db.register("calibration", line)
            self._db.execute("UPDATE known SET quality = c.told FROM calibration c WHERE known.quality = c.raw")
        self._db.execute("""
            CREATE TEMP TABLE corrections AS
            SELECT interaction,
                arg_max(json_extract_string(detail, '$.completion'), ("at", id)) AS completion,
                coalesce(arg_max(coalesce(score, 1.0), ("at", id)), 1.0) AS quality
            FROM feedback
            WHERE kind = 'correction' AND json_type(detail, '$.completion') = 'VARCHAR'
                AND json_extract_string(detail, '$.completion') <> '' AND id NOT IN (SELECT id FROM feedback_aside)
            GROUP BY interaction
        """)

    def _answer(self) -> None:
        """Every answer of which anything is known and that may be learnt from; with the digest of its prompt alone."""
        allowed = " AND ".join(f"NOT ({condition})" for condition in sql(self._spec).values())
        self._db.execute(f"""
            CREATE TEMP TABLE answers AS
            SELECT i.id, substr(sha256(i.messages), 1, 24) AS prompt, i.at, i.arm_kind, i.role, i.shadow_of,
                i.fallback, k.quality, i.status = 200 AND NOT i.broken
                    AND coalesce(i.finish_reason, 'stop') = 'stop' AND i.completion <> '' AS usable,
                coalesce(json_extract_string(i.task, '$.source'), '') AS named_source,
                hash(i.completion) AS said, {_MODE} AS privacy, coalesce(i.consent, '') = 'granted' AS granted
            FROM interactions i LEFT JOIN known k ON k.interaction = i.id
            WHERE (k.quality IS NOT NULL OR i.id IN (SELECT interaction FROM corrections))
                AND i.messages <> '[]' AND i.id NOT IN (SELECT id FROM interactions_aside) AND {allowed}
        """)  # noqa: S608 - our own conditions

    def _choose(self) -> None:
        spec = self._spec
        self._permit()
        teachers = ", ".join(f"'{t}'" for t in spec.teachers if t != "bugs") or "''"
        self._db.execute(f"""
            CREATE TEMP TABLE found AS
            SELECT id, prompt, 'answer' AS kind, quality, "at", shadow_of, named_source, privacy, granted FROM answers
            WHERE quality IS NOT NULL AND usable AND arm_kind IN ({teachers})
            UNION ALL
            SELECT a.id, a.prompt, 'correction', least(1.0, c.quality), a.at, NULL, a.named_source, a.privacy, a.granted
            FROM answers a JOIN corrections c ON c.interaction = a.id
        """)  # noqa: S608 - the spec's own words
        if "bugs" in spec.teachers:
            self._db.execute("""
                INSERT INTO found
                SELECT id, substr(sha256(title || chr(10) || text), 1, 24), 'bug', 1.0, "at", NULL, component, 0, false
                FROM (
                    SELECT * FROM observations WHERE kind = 'bug'
                    QUALIFY row_number() OVER (PARTITION BY coalesce(nullif(ref, ''), id) ORDER BY "at" DESC, id) = 1
                )
                WHERE resolved AND root_cause <> ''
            """)
        self._step(
            "answers with an outcome or a correction",
            f"nothing is known of the answer, or it is no whole answer of a teacher ({', '.join(spec.teachers)})",
        )
        self._db.execute("DELETE FROM found WHERE quality < ?", [spec.min_quality])
        self._step("of sufficient quality", f"quality below {spec.min_quality:g}")
        # A correction by a person outranks every other answer to the same prompt; then quality, then the newest.
        self._db.execute(f"""
            CREATE TEMP TABLE hard AS
            SELECT prompt, max(CASE
                WHEN quality <= {SURELY_WRONG} AND role = 'answer' AND NOT fallback AND usable THEN 2
                WHEN quality < {WRONG} THEN 1 ELSE 0 END) AS hard
            FROM answers WHERE arm_kind = 'local' AND quality IS NOT NULL GROUP BY prompt
        """)  # noqa: S608 - our own numbers
        self._db.execute("""
            CREATE TEMP TABLE best AS
            SELECT arg_max(found, (kind <> 'answer', quality, "at", id)) AS f, prompt
            FROM found GROUP BY prompt
        """)
        self._db.execute("""
            CREATE TEMP TABLE chosen AS
            SELECT f.id AS id, f.prompt AS prompt, f.kind AS kind, f.quality AS quality, f."at" AS "at",
                f.shadow_of AS shadow_of, f.named_source AS named_source, coalesce(h.hard, 0) AS hard,
                f.privacy AS privacy, f.granted AS granted
            FROM best LEFT JOIN hard h ON h.prompt = best.prompt
        """)
        self._db.execute("DROP TABLE best")
        left = self._count("chosen")
        self.steps.append(
            Step("one a prompt", left, self.steps[-1].left - left, "the same prompt has a better or a newer answer")
        )

    def _permit(self) -> None:
        """Count what was recorded, and what of it may not be learnt from, by the first reason that holds."""
        reasons = sql(self._spec)
        cases = " ".join(f"WHEN {condition} THEN {n}" for n, condition in enumerate(reasons.values()))
        found = dict(self._db.execute(
            f"SELECT CASE {cases} ELSE -1 END, count(*) FROM interactions i GROUP BY 1"  # noqa: S608
        ).fetchall())  # fmt: skip
        total, left = sum(found.values()), found.get(-1, 0)
        told = "; ".join(f"{found[n]:,} {why}" for n, why in enumerate(reasons) if n in found)
        self.steps.append(Step("interactions", total, 0, "recorded in the window"))
        self.steps.append(Step("may be learnt from", left, total - left, told or "nothing stands against it"))

    # -- out

    def prompts(self, rows: int = 20_000) -> Iterator[tuple[list[Candidate], list[str]]]:
        """Candidates with the JSON of their prompts, some at a time, the newest last.

        Nothing else can be asked until it is read to its end.
        """
        found = self._db.sql(
            f"""
            SELECT c.id, c.prompt, c.kind, c.quality, c.at, c.shadow_of, c.named_source, c.hard, c.privacy, c.granted,
                t.messages
            FROM chosen c JOIN (
                SELECT id, messages FROM interactions WHERE id IN (SELECT id FROM chosen WHERE kind <> 'bug')
                {self._bugs(f"id, {_BUG_MESSAGES}")}
            ) t USING (id)
            ORDER BY c.at, c.id, c.kind
            """  # noqa: S608 - our own columns
        )
        for batch in found.to_arrow_reader(rows):
            *columns, granted, prompts = [batch.column(n).to_pylist() for n in range(11)]
            columns[8] = [MODES[n] for n in columns[8]]
            yield [Candidate(*row) for row in zip(*columns, granted, strict=True)], prompts

    def texts(self, candidates: Sequence[Candidate]) -> list[Texts]:
        """Prompts and answers of these, in their order."""
        rows = [(n, c.id, c.kind) for n, c in enumerate(candidates)]
        wanted = pd.DataFrame(rows, columns=["n", "id", "kind"]).astype(
            {"n": "int64", "id": "string", "kind": "string"}
        )
        self._db.register("wanted", wanted)
        found = self._db.execute(
            f"""
            SELECT w.n, t.messages, CASE WHEN w.kind = 'correction' THEN c.completion ELSE t.completion END
            FROM wanted w JOIN (
                SELECT id, messages, completion FROM interactions WHERE id IN (SELECT id FROM wanted)
                {self._bugs(f"id, {_BUG_MESSAGES}, root_cause")}
            ) t USING (id) LEFT JOIN corrections c ON c.interaction = w.id
            ORDER BY w.n
            """  # noqa: S608 - our own columns
        ).fetchall()
        return [Texts(messages, completion) for _, messages, completion in found]

    def pairs(self, most: int) -> list[dict[str, Any]]:
        """Preference pairs: a correction over what it corrects; the best over the worst answer to one prompt.

        Each prompt gives at most one; the widest gaps come first.
        """
        gap = self._spec.preference_gap
        names = ("prompt", "origin", "gap", "at", "chosen_id", "rejected_id", "named_source", "messages", "chosen",
                 "rejected", "privacy", "granted")  # fmt: skip
        found = self._db.execute(
            """
            WITH corrected AS (
                SELECT a.prompt, 'correction' AS origin, c.quality - coalesce(a.quality, 0) AS gap, a.at,
                    a.id AS chosen_id, a.id AS rejected_id, a.named_source
                FROM answers a JOIN corrections c ON c.interaction = a.id
                WHERE a.usable AND c.quality - coalesce(a.quality, 0) >= $gap
            ), ranked AS (
                SELECT prompt, arg_max(id, (quality, "at", id)) AS chosen_id,
                    -- Of equally bad answers the newest of a local arm: what one would serve again.
                    arg_min(id, (quality, arm_kind <> 'local', -"at", id)) AS rejected_id,
                    max(quality) - min(quality) AS gap, max("at") AS "at"
                FROM answers WHERE usable AND quality IS NOT NULL GROUP BY prompt
                HAVING max(quality) - min(quality) >= $gap
            ), asked AS (
                SELECT r.prompt,
                    CASE WHEN c.shadow_of = r.rejected_id OR w.shadow_of = r.chosen_id THEN 'shadow' ELSE 'answers' END
                        AS origin,
                    r.gap, r.at, r.chosen_id, r.rejected_id, c.named_source
                FROM ranked r JOIN answers c ON c.id = r.chosen_id JOIN answers w ON w.id = r.rejected_id
                WHERE c.said <> w.said AND r.prompt NOT IN (SELECT prompt FROM corrected)
            ), one AS (
                SELECT * FROM corrected QUALIFY row_number() OVER (PARTITION BY prompt ORDER BY gap DESC, "at" DESC) = 1
                UNION ALL SELECT * FROM asked
            ), widest AS (SELECT * FROM one ORDER BY gap DESC, "at" DESC, prompt LIMIT $most)
            SELECT p.prompt, p.origin, p.gap, p.at, p.chosen_id, p.rejected_id, p.named_source, r.messages,
                CASE WHEN p.origin = 'correction' THEN k.completion ELSE c.completion END, r.completion,
                greatest(x.privacy, y.privacy), x.granted AND y.granted
            FROM widest p JOIN answers x ON x.id = p.chosen_id JOIN answers y ON y.id = p.rejected_id
            JOIN (SELECT id, messages, completion FROM interactions WHERE id IN (SELECT rejected_id FROM widest)) r
                ON r.id = p.rejected_id
            JOIN (SELECT id, completion FROM interactions WHERE id IN (SELECT chosen_id FROM widest)) c
                ON c.id = p.chosen_id
            LEFT JOIN corrections k ON k.interaction = p.chosen_id
            ORDER BY p.gap DESC, p.at DESC, p.prompt
            """,
            {"gap": gap, "most": most},
        ).fetchall()
        return [{**dict(zip(names, row, strict=True)), "privacy": MODES[row[-2]]} for row in found]

    def doubtful(self, ids: Collection[str]) -> set[str]:
        """Of these interactions those that are worse by now than the spec demands, or that a person has corrected."""
        self._db.register("asked", pd.DataFrame({"id": sorted(ids)}, dtype="string"))
        found = self._db.execute(
            "SELECT interaction FROM known WHERE quality < $least AND interaction IN (SELECT id FROM asked) "
            "UNION SELECT interaction FROM corrections WHERE interaction IN (SELECT id FROM asked)",
            {"least": self._spec.min_quality},
        ).fetchall()
        return {interaction for (interaction,) in found}

    def failures(self, most: int) -> list[tuple[str, str, str, float, str, str]]:
        """Newest answers of local arms that were wrong, one a prompt: (id, prompt, source, at, messages, answer)."""
        return self._db.execute(
            f"""
            WITH wrong AS (
                SELECT prompt, arg_max(id, ("at", id)) AS id FROM answers
                WHERE arm_kind = 'local' AND quality < {WRONG} AND role = 'answer' GROUP BY prompt
                ORDER BY max("at") DESC, prompt LIMIT $most
            )
            SELECT i.id, w.prompt, coalesce(json_extract_string(i.task, '$.source'), ''), i.at, i.messages, i.completion
            FROM interactions i JOIN wrong w USING (id) ORDER BY i.at DESC, i.id
            """,  # noqa: S608 - our own number
            {"most": most},
        ).fetchall()

    # -- plumbing

    def _bugs(self, columns: str) -> str:
        if "bugs" not in self._spec.teachers:
            return ""
        return f"UNION ALL SELECT {columns} FROM observations WHERE kind = 'bug'"  # noqa: S608 - our own columns

    def _step(self, name: str, why: str) -> None:
        left = self._count("found")
        self.steps.append(Step(name, left, max(0, self.steps[-1].left - left), why))

    def _count(self, table: str) -> int:
        ((rows,),) = self._db.execute(f"SELECT count(*) FROM {table}").fetchall()  # noqa: S608 - our own name
        return int(rows)


_BUG_MESSAGES = """to_json([{'role': 'user', 'content': title || chr(10) || chr(10) || text}])::VARCHAR AS messages"""
# Numbers of MODES, the widest first: a column of words would be the widest of its table.
_WORDS = " ".join(f"WHEN '{mode}' THEN {n}" for n, mode in enumerate(MODES))
_MODE = f"(CASE coalesce(i.privacy, 'open') {_WORDS} ELSE {len(MODES) - 1} END)::UTINYINT"
