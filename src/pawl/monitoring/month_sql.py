"""The questions that a month of the lake is asked, over the views of `lake.window_duckdb`; a day builds on them too."""

from __future__ import annotations

CHAIN_ARM = "chain"  # the record of a chain itself: it costs nothing, its steps do
# A next arm is tried at once; clients of OpenAI's own library wait 0.375 s or more before they ask again.
AT_ONCE_S = 0.25

_DUE = "(status IN (401, 403, 404, 408, 429) OR status NOT BETWEEN 400 AND 499)"

# What an interaction is for the figures. Rows of other tools were no traffic of this fleet.
CALLS = f"""
CREATE TABLE calls AS
SELECT id, "at", "at" + latency_s AS done, agent, session, key_id, parent, step, arm, arm_kind, role, shadow_of,
    fallback, rollout, complexity, prompt_tokens, completion_tokens, cost_usd, latency_s,
    arm = '{CHAIN_ARM}' AND parent IS NULL AND prompt_tokens = 0 AND cost_usd = 0 AS is_chain,
    error IS NULL AND NOT broken AND status BETWEEN 200 AND 299 AS ok,
    CASE WHEN error IS NULL AND NOT broken AND status BETWEEN 200 AND 299 THEN 'served'
         WHEN status = 499 THEN 'left' WHEN {_DUE} THEN 'failed' ELSE 'refused' END AS outcome,
    json_extract_string(task, '$.workflow') AS workflow, json_extract_string(task, '$.source') AS source
FROM interactions WHERE NOT starts_with(reason, 'imported from ') AND endpoint <> 'embeddings'
"""  # noqa: S608 - our own constants

SESSIONS = """
CREATE TABLE grouped AS
WITH s AS (SELECT DISTINCT session FROM calls), n AS (SELECT count(*) AS all_of_them FROM s)
SELECT session, CASE WHEN all_of_them <= {groups} THEN row_number() OVER (ORDER BY session)
                     ELSE hash(session) % {groups} END AS g
FROM s, n
"""

# What the cloud took for its own answer, or for what it wrote to the same request, is what that costs there; where
# neither is known, or no price was stated yet, tokens are priced (`economics.summarise`).
_PRICED = """
CREATE TABLE priced AS
WITH by_cloud AS (
    SELECT s.shadow_of AS id, arg_max(s.prompt_tokens, (s."at", s.id)) AS prompt_tokens,
           arg_max(s.completion_tokens, (s."at", s.id)) AS completion_tokens,
           arg_max(s.cost_usd, (s."at", s.id)) AS cost_usd
    FROM calls s JOIN prices p ON p.agent = s.agent AND p.arm = s.arm
    WHERE s.role = 'shadow' AND s.ok AND s.shadow_of IS NOT NULL AND s.prompt_tokens + s.completion_tokens > 0
    GROUP BY 1
)
SELECT c.*, g.g, answer AND c.ok AS answered, answer AND c.ok AND arm_kind = 'local' AS by_local,
    answer AND c.ok AND arm_kind = 'cloud' AND fallback AS by_fallback,
    coalesce(c.arm = p.arm AND c.arm_kind = 'cloud', false) AS own,
    b.id IS NOT NULL AND NOT own AS by_shadow, c.prompt_tokens + c.completion_tokens > 0 AS used,
    CASE WHEN NOT (answer AND c.ok) THEN 0 WHEN own THEN c.cost_usd WHEN b.cost_usd > 0 THEN b.cost_usd
         ELSE (coalesce(b.prompt_tokens, c.prompt_tokens) * p.prompt
             + coalesce(b.completion_tokens, c.completion_tokens) * p.completion) / 1e6 END AS all_cloud
FROM (SELECT *, role = 'answer' AND NOT is_chain AS answer FROM calls) c
JOIN grouped g USING (session)
LEFT JOIN by_cloud b ON b.id = c.id
LEFT JOIN prices p ON p.agent = c.agent
"""

# Calls that belong to one request: the next arm is asked as soon as the one before has failed.
REQUESTS = f"""
CREATE TABLE requests AS
WITH marked AS (
    SELECT *, parent IS NULL AS top, coalesce(
        fallback AND lag(outcome) OVER w = 'failed'
        AND "at" BETWEEN lag(done) OVER w - 0.05 AND lag(done) OVER w + {AT_ONCE_S}, false) AS goes_on
    FROM calls WHERE role = 'answer'
    WINDOW w AS (PARTITION BY agent, session, key_id, parent, step ORDER BY "at", id)
), numbered AS (
    SELECT *, sum(CASE WHEN goes_on THEN 0 ELSE 1 END) OVER (
        PARTITION BY agent, session, key_id, parent, step ORDER BY "at", id ROWS UNBOUNDED PRECEDING) AS number
    FROM marked
)
SELECT n.agent, n.session, any_value(g.g) AS g, bool_or(top) AS top, min("at") AS "at", max(done) - min("at") AS took,
    CASE WHEN bool_or(ok) THEN 'served' ELSE arg_max(outcome, ("at", id)) END AS outcome
FROM numbered n JOIN grouped g USING (session)
GROUP BY n.agent, n.session, key_id, parent, step, number
"""  # noqa: S608

# The score of an interaction: the mean over judges of their latest outcome (`rollout.differences.scores`).
SCORES = """
CREATE TABLE scores AS
SELECT interaction, avg(score) AS score, min(source) AS first_voice, max(source) AS last_voice
FROM (SELECT interaction, source, greatest(0, least(1, arg_max(score, ("at", id)))) AS score
      FROM feedback WHERE kind = 'outcome' AND score IS NOT NULL GROUP BY 1, 2)
GROUP BY 1
"""

# A client's local answer beside its cloud shadow; or, where the cloud answers, beside what local said in its shadow. A
# challenger that is only being tried serves nobody: its shadows say nothing of what serves.
_PAIRS = """
CREATE TABLE pairs AS
WITH two AS (
    SELECT a.id AS local_id, s.id AS cloud_id, a.* EXCLUDE (id), a.arm AS local_arm
    FROM calls s JOIN calls a ON a.id = s.shadow_of JOIN prices p ON p.agent = s.agent AND p.arm = s.arm
    WHERE s.role = 'shadow' AND s.ok AND a.role = 'answer' AND a.ok AND a.arm_kind = 'local' AND NOT a.is_chain
    UNION ALL BY NAME
    SELECT s.id AS local_id, a.id AS cloud_id, a.* EXCLUDE (id), s.arm AS local_arm
    FROM calls s JOIN calls a ON a.id = s.shadow_of JOIN prices p ON p.agent = a.agent AND p.arm = a.arm
    WHERE s.role = 'shadow' AND s.ok AND s.arm_kind = 'local' AND s.rollout IS NULL AND a.role = 'answer' AND a.ok
), scored AS (
    SELECT t.agent, t.complexity, local_arm NOT IN (SELECT arm FROM base_names) AS tuned,
        coalesce(t.source, t.session) AS cluster, l.score AS local, c.score AS cloud,
        l.first_voice = l.last_voice AND l.first_voice = c.first_voice AND c.first_voice = c.last_voice AS same_voice
    FROM two t JOIN scores l ON l.interaction = local_id JOIN scores c ON c.interaction = cloud_id
), n AS (SELECT count(DISTINCT cluster) AS all_of_them FROM scored)
SELECT s.*, CASE WHEN all_of_them <= {groups} THEN dense_rank() OVER (ORDER BY cluster)
                 ELSE hash(cluster) % {groups} END AS g
FROM scored s, n
"""

TABLES = (CALLS, SESSIONS, _PRICED, REQUESTS, SCORES, _PAIRS)

_TRAFFIC_SUMS = """
    count(DISTINCT session) AS sessions, count(*) FILTER (answer) AS calls, count(*) FILTER (answered) AS answered,
    count(*) FILTER (by_local) AS local, count(*) FILTER (by_fallback) AS fallback,
    sum(cost_usd) FILTER (role <> 'shadow') AS paid,
    sum(cost_usd) FILTER (role <> 'shadow' AND arm_kind = 'cloud') AS cloud_paid,
    sum(cost_usd) FILTER (role = 'shadow') AS shadow_paid,
    sum(cost_usd) FILTER (role = 'shadow' AND arm_kind = 'cloud') AS shadow_cloud_paid,
    sum(all_cloud) AS all_cloud
"""
TRAFFIC = f"""
WITH money AS (
    SELECT agent AS scope, g, {_TRAFFIC_SUMS} FROM priced GROUP BY 1, 2
    UNION ALL SELECT '' AS scope, g, {_TRAFFIC_SUMS} FROM priced GROUP BY 1, 2
), asked AS (
    SELECT agent AS scope, g, count(*) FILTER (outcome IN ('served', 'failed')) AS due,
        count(*) FILTER (outcome = 'served') AS served FROM requests GROUP BY 1, 2
    UNION ALL SELECT '' AS scope, g, count(*) FILTER (outcome IN ('served', 'failed')) AS due,
        count(*) FILTER (outcome = 'served') AS served FROM requests WHERE top GROUP BY 1, 2
)
SELECT m.* EXCLUDE (g), a.due, a.served FROM money m LEFT JOIN asked a USING (scope, g) ORDER BY scope, g
"""  # noqa: S608

_TALLY_SUMS = """
    sum(prompt_tokens) FILTER (role <> 'shadow')::BIGINT AS prompt_tokens,
    sum(completion_tokens) FILTER (role <> 'shadow')::BIGINT AS completion_tokens,
    sum(prompt_tokens + completion_tokens) FILTER (arm_kind = 'local')::BIGINT AS local_tokens,
    count(*) FILTER (role = 'shadow') AS shadows, count(*) FILTER (role = 'draft') AS drafts,
    count(*) FILTER (arm_kind = 'cloud') AS cloud_calls,
    count(*) FILTER (arm_kind = 'cloud' AND NOT (fallback AND role = 'answer')) AS cloud_calls_beside_fallback,
    sum(cost_usd) FILTER (arm_kind = 'cloud' AND NOT (fallback AND role = 'answer')) AS cloud_usd_beside_fallback,
    count(*) FILTER (answered AND by_shadow) AS priced_by_shadow,
    count(*) FILTER (answered AND NOT by_shadow AND used) AS priced_by_own,
    count(*) FILTER (answered AND NOT by_shadow AND NOT used) AS unpriced
"""
TALLIES = f"""
WITH sums AS (
    SELECT agent AS scope, {_TALLY_SUMS} FROM priced GROUP BY 1
    UNION ALL SELECT '' AS scope, {_TALLY_SUMS} FROM priced
), asked AS (
    SELECT agent AS scope, count(*) FILTER (outcome = 'refused') AS refused,
        count(*) FILTER (outcome = 'left') AS "left"
    FROM requests GROUP BY 1
    UNION ALL SELECT '' AS scope, count(*) FILTER (outcome = 'refused'), count(*) FILTER (outcome = 'left')
    FROM requests WHERE top
)
SELECT * FROM sums LEFT JOIN asked USING (scope)
"""  # noqa: S608

KINDS_OF_PAIRS = {"all": "true", "simple": "complexity = 'simple'", "tuned": "tuned"}
_PAIR_COLUMNS = """g, sum(local) AS l, sum(cloud) AS c, count(*) AS n, count(DISTINCT cluster) AS sources,
    count(*) FILTER (same_voice) AS voices"""
PAIR_SUMS = f"""
SELECT scope, l, c, n, sources, voices FROM (
    SELECT agent AS scope, {_PAIR_COLUMNS} FROM pairs WHERE {{condition}} GROUP BY 1, 2
    UNION ALL SELECT '' AS scope, {_PAIR_COLUMNS} FROM pairs WHERE {{condition}} GROUP BY 1, 2
) ORDER BY scope, g
"""  # noqa: S608

PERCENTILE = """
SELECT quantile_disc(took, {levels}), count(*), count(DISTINCT session)
FROM requests WHERE outcome = 'served' AND {whose}
"""
PERCENTILE_AT = "SELECT quantile_disc(took, {levels}) FROM requests WHERE outcome = 'served' AND {whose}"
NO_LONGER = """
SELECT count(*) FILTER (took <= $value), count(*)
FROM requests WHERE outcome = 'served' AND {whose} GROUP BY g ORDER BY g
"""

SPAN = """
SELECT min("at"), max("at"), count(*) FILTER (starts_with(reason, 'imported from ')),
    count(*) FILTER (endpoint = 'embeddings')
FROM interactions
"""
HOURS = """
SELECT count(*), count(*) FILTER (served = 0) FROM (
    SELECT floor("at" / 3600) AS hour, count(*) FILTER (outcome = 'served') AS served
    FROM requests WHERE top AND outcome IN ('served', 'failed') GROUP BY 1)
"""
DAYS = """
WITH money AS (
    SELECT day, count(*) FILTER (answered) AS answered,
        count(*) FILTER (by_local) AS local, count(*) FILTER (by_fallback) AS fallback,
        coalesce(sum(cost_usd) FILTER (role <> 'shadow'), 0) AS paid,
        coalesce(sum(cost_usd) FILTER (role = 'shadow'), 0) AS shadow_paid, coalesce(sum(all_cloud), 0) AS all_cloud
    FROM priced JOIN days d ON "at" >= d.since AND "at" < d.until GROUP BY 1
), asked AS (
    SELECT day, count(*) FILTER (outcome IN ('served', 'failed')) AS due,
        count(*) FILTER (outcome = 'served') AS served
    FROM requests JOIN days d ON "at" >= d.since AND "at" < d.until WHERE top GROUP BY 1
)
SELECT m.*, coalesce(due, 0) AS due, coalesce(served, 0) AS served FROM money m LEFT JOIN asked USING (day) ORDER BY day
"""
WORKFLOWS = """
WITH steps AS (
    SELECT c.agent AS name, true AS chain, s.* FROM priced s JOIN priced c ON c.id = s.parent
    UNION ALL BY NAME SELECT workflow AS name, false AS chain, * FROM priced
    WHERE workflow IS NOT NULL AND parent IS NULL AND NOT is_chain
), asked AS (
    SELECT agent AS name, count(*) AS runs, count(*) FILTER (outcome = 'failed') AS failed
    FROM priced WHERE is_chain GROUP BY 1
), sums AS (
    SELECT name, chain, count(DISTINCT session) AS sessions, count(*) FILTER (answer) AS calls,
        coalesce(sum(cost_usd) FILTER (role <> 'shadow'), 0) AS paid, coalesce(sum(all_cloud), 0) AS all_cloud
    FROM steps GROUP BY 1, 2
)
SELECT name, chain, CASE WHEN chain THEN coalesce(runs, 0) ELSE sessions END AS runs,
    CASE WHEN chain THEN coalesce(failed, 0) ELSE 0 END AS failed, calls, paid, all_cloud
FROM sums LEFT JOIN asked USING (name) ORDER BY paid DESC, name
"""
