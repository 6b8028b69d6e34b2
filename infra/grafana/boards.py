"""The four dashboards, by who looks: who pays, who is on call, who approves, who sets the routing."""

from __future__ import annotations

from infra.grafana.panels import Board, Panel, Query, Row
from infra.grafana.servers import SERVERS

A = 'agent=~"$agent"'
_OK = f'pawl_interactions_total{{role="answer", outcome="ok", {A}}}'
_OF_CLOUDS = f'pawl_interactions_total{{role="answer", outcome="ok", arm_kind="cloud", {A}}}'


def _quantiles(metric: str, by: str = "agent") -> tuple[Query, ...]:
    """p50, p95 and p99 of a histogram."""
    of = f"sum by ({by}, le) (rate({metric}_bucket{{{A}}}[10m]))"
    return tuple(Query(f"histogram_quantile({q / 100}, {of})", f"{{{{{by}}}}} p{q}") for q in (50, 95, 99))


EXECUTIVE = Board("executive", "Pawl: executive", "30d", (
    Row("What it saves", (
        Panel("Answered by our own models, 7 days", (
            Query(f"sum(agent:pawl_local_answers:increase7d{{{A}}}) / sum(agent:pawl_answers:increase7d{{{A}}})",
                  "share"),
        ), "percentunit", "stat", 6),
        Panel("Saved against all in the cloud, 30 days", (
            Query(f"sum(agent:pawl_saved_usd:increase30d{{{A}}})", "saved"),
        ), "currencyUSD", "stat", 6, "Machines are paid for. No data: fleet.yaml does not say what they cost. What was "
           "paid to learn (shadows) is beside it."),
        Panel("Spent on answers, 30 days", (
            Query(f'sum(increase(pawl_cost_usd_total{{role!="shadow", {A}}}[30d]))', "spent"),
        ), "currencyUSD", "stat", 6),
        Panel("Spent to learn (shadows), 30 days", (
            Query(f'sum(increase(pawl_cost_usd_total{{role="shadow", {A}}}[30d]))', "shadows"),
        ), "currencyUSD", "stat", 6),
        Panel("Saved a day", (Query(f"agent:pawl_saved_usd:increase1d{{{A}}}"),), "currencyUSD", width=12),
        Panel("Requests an hour", (Query(f"sum by (agent) (increase(pawl_requests_total{{{A}}}[1h]))"),), width=12),
        Panel("Tests generated a minute", (Query(f"agent:pawl_generated_tests:rate1h{{{A}}} * 60"),), width=12),
    )),
    Row("Whether quality holds", (
        Panel("Quality against its baseline", (
            Query(f"agent:pawl_champion_quality:ratio_to_baseline{{{A}}}"),
        ), "percentunit", "stat", 8, "Outcomes of six hours against the champion's own evaluation.", below=0.9),
        Panel("Quality against the cloud, 7 days", (
            Query(f"agent:pawl_quality:ratio_to_cloud{{{A}}}"),
        ), "percentunit", "stat", 8, "Both by their outcomes; an independence figure.", below=0.9),
        Panel("Availability, 30 days", (
            Query(f"agent:pawl_availability:ratio30d{{{A}}}"),
        ), "percentunit", "stat", 8, "Requests answered, of those that should have been.", below=0.99),
        Panel("Satisfaction (ratings of a day)", (
            Query(f"agent:pawl_satisfaction:mean1d{{{A}}}"),
        ), "percentunit", width=12),
        Panel("Quality of what serves, 7 days", (
            Query(f"agent:pawl_quality:mean7d{{{A}}}", "{{agent}}"),
            Query(f"agent:pawl_cloud_quality:mean7d{{{A}}}", "{{agent}}: its cloud"),
        ), "percentunit", width=12),
    )),
    Row("What is going on", (
        Panel("Who serves", (Query(f"max by (agent, arm, arm_kind) (pawl_champion{{{A}}})"),), kind="table", width=8),
        Panel("Approvals that wait for a person", (
            Query(f'max by (agent) (pawl_approvals{{standing="waiting", {A}}})'),
        ), kind="stat", above=1),
        Panel("Challenger's share of sessions", (
            Query(f"max by (agent) (pawl_challenger_percent{{{A}}})"),
        ), "percent", "stat"),
    )),
))  # fmt: skip

OPERATIONS = Board("operations", "Pawl: operations", "6h", (
    Row("Clients", (
        Panel("Alerts", (Query('ALERTS{alertstate="firing"} or on () vector(0)', "{{alertname}} {{agent}}"),),
              kind="stat", width=24, above=1, about="0 where none fires."),
        Panel("Requests by outcome", (
            Query(f"sum by (outcome) (agent_outcome:pawl_requests:rate5m{{{A}}})", "{{outcome}}"),
        ), "reqps"),
        Panel("Answered of what should be", (
            Query(f"agent:pawl_availability:ratio30m{{{A}}}"),
        ), "percentunit", below=0.99),
        Panel("Calls to models that fail", (
            Query(f"agent:pawl_call_errors:ratio15m{{{A}}}"),
        ), "percentunit", above=0.05),
        Panel("Latency of requests", (
            Query(f"agent:pawl_request_seconds:p50{{{A}}}", "{{agent}} p50"),
            Query(f"agent:pawl_request_seconds:p95{{{A}}}", "{{agent}} p95"),
            Query(f"agent:pawl_request_seconds:p99{{{A}}}", "{{agent}} p99"),
        ), "s", above=5),
        Panel("First token of streams", _quantiles("pawl_first_token_seconds"), "s"),
        Panel("Tokens a second", (
            Query(f'sum by (kind) (rate(pawl_tokens_total{{kind!="cached", {A}}}[5m]))', "{{kind}}"),
        )),
        Panel("Refused by a limit, an hour", (
            Query("sum by (limit) (increase(pawl_refused_total[1h]))", "{{limit}}"),
        )),
        Panel("Without a valid key, an hour", (
            Query("sum by (status) (increase(pawl_unauthorised_total[1h]))", "{{status}}"),
        )),
        Panel("Shadows dropped, an hour", (
            Query(f"sum by (agent) (increase(pawl_shadows_dropped_total{{{A}}}[1h])) "
                  f"or max by (agent) (pawl_champion{{{A}}}) * 0"),
        )),
    )),
    *SERVERS,
))  # fmt: skip

QUALITY = Board("quality", "Pawl: quality", "7d", (
    Row("What serves", (
        Panel("Quality and its baseline", (
            Query(f"agent:pawl_champion_quality:mean6h{{{A}}}", "{{agent}}"),
            Query(f"agent:pawl_champion_baseline:mean{{{A}}}", "{{agent}}: its evaluation"),
        ), "percentunit", width=12, about="Outcomes of six hours."),
        Panel("Against the baseline", (
            Query(f"agent:pawl_champion_quality:ratio_to_baseline{{{A}}}", "{{agent}}"),
            Query(f"agent:pawl_champion_quality:ratio_to_baseline_upper{{{A}}}", "{{agent}}: at most"),
        ), "percentunit", width=12, about="Alerts go by the upper bound (95 %, one-sided)."),
        Panel("Limits broken by what serves", (Query(f"max by (agent) (pawl_champion_alarm{{{A}}})"),), above=1),
        Panel("Outcomes by arm, a day's mean", (
            Query(f"agent_arm:pawl_quality:mean1d{{{A}}}", "{{agent}} {{arm}}"),
        ), "percentunit"),
        Panel("Satisfaction, a day's mean", (Query(f"agent:pawl_satisfaction:mean1d{{{A}}}"),), "percentunit"),
        Panel("Drift by kind", (
            Query(f"max by (agent, kind) (pawl_drift_evidence_ratio{{{A}}})", "{{agent}} {{kind}}"),
        ), "percentunit", width=12, above=1, about="Evidence, on a logarithmic scale; at 100 % a drift is told."),
        Panel("Kinds that have drifted", (
            Query(f"sum by (agent) (max by (agent, kind) (pawl_drift{{{A}}}))"),
        ), kind="stat", width=6, above=1),
        Panel("Since the last look for drift", (
            Query(f"time() - max by (agent) (pawl_drift_looked_time_seconds{{{A}}})"),
        ), "dtdurations", "stat", 6, above=3600),
    )),
    Row("What comes back", (
        Panel("Feedback an hour", (
            Query(f"sum by (agent, kind) (increase(pawl_feedback_total{{{A}}}[1h]))", "{{agent}} {{kind}}"),
        ), width=12),
        Panel("Scores an hour by arm", (
            Query(f"sum by (agent, arm) (increase(pawl_scores_total{{{A}}}[1h]))", "{{agent}} {{arm}}"),
        ), width=12),
    )),
    Row("Rollouts and people", (
        Panel("Open rollouts", (
            Query(f"max by (agent, version, stage) (pawl_rollout{{{A}}})"),
        ), kind="table"),
        Panel("Share of sessions", (Query(f"max by (agent) (pawl_rollout_percent{{{A}}})"),), "percent"),
        Panel("Time in the stage", (
            Query(f"max by (agent) (pawl_rollout_stage_seconds{{{A}}})", "{{agent}}"),
            Query(f"max by (agent) (pawl_rollout_stall_seconds{{{A}}})", "{{agent}}: stalled from"),
        ), "dtdurations"),
        Panel("Held", (Query(f"max by (agent) (pawl_rollout_held{{{A}}})"),), above=1),
        Panel("Rollouts that ended", (
            Query(f"max by (agent, end) (pawl_rollouts_total{{{A}}})", "{{agent}} {{end}}"),
        )),
        Panel("Approvals by standing", (
            Query(f"max by (agent, standing) (pawl_approvals{{{A}}})", "{{agent}} {{standing}}"),
        )),
        Panel("Oldest open approval", (
            Query(f"max by (agent) (pawl_approval_age_seconds{{{A}}})"),
        ), "dtdurations"),
        Panel("Since the last candidate", (
            Query(f"time() - max by (agent, step) (pawl_candidate_step_time_seconds{{{A}}})", "{{agent}} {{step}}"),
        ), "dtdurations", about="Where the gateway and the trainings share a PAWL_HOME."),
        Panel("Work under way", (Query("max(pawl_work_done_ratio)", "done"),), "percentunit"),
    )),
))  # fmt: skip

ROUTING = Board("routing", "Pawl: routing", "24h", (
    Row("Who answers", (
        Panel("Answers by arm", (
            Query(f"sum by (agent, arm) (rate({_OK}[5m]))", "{{agent}} {{arm}}"),
        ), "reqps"),
        Panel("Share of clouds in the answers", (
            Query(f"sum by (agent) (increase({_OF_CLOUDS}[1h])) / sum by (agent) (increase({_OK}[1h]))"),
        ), "percentunit"),
        Panel("Fallback to clouds", (
            Query(f"agent:pawl_cloud_fallback:ratio15m{{{A}}}", "{{agent}}"),
            Query(f"max by (agent) (pawl_cloud_fallback_share{{{A}}})", "{{agent}}: latest 1,000"),
        ), "percentunit", above=0.05),
        Panel("Challenger's share of sessions", (
            Query(f"max by (agent) (pawl_challenger_percent{{{A}}})"),
        ), "percent"),
        Panel("Changes of the route", (Query(f"max by (agent) (pawl_route_revision{{{A}}})"),)),
        Panel("Shadow calls", (
            Query(f'sum by (agent, arm) (rate(pawl_interactions_total{{role="shadow", {A}}}[5m]))',
                  "{{agent}} {{arm}}"),
        ), "reqps"),
    )),
    Row("How arms do", (
        Panel("p95 of calls by arm", (
            Query(f"histogram_quantile(0.95, sum by (arm, le) (rate(pawl_latency_seconds_bucket{{{A}}}[10m])))",
                  "{{arm}}"),
        ), "s"),
        Panel("Failed calls by arm", (
            Query(f'sum by (arm) (rate(pawl_interactions_total{{outcome="error", {A}}}[5m]))', "{{arm}}"),
        ), "reqps"),
        Panel("Completion tokens an answer", (
            Query(f'sum by (arm) (increase(pawl_tokens_total{{kind="completion", role="answer", {A}}}[1h])) '
                  f"/ sum by (arm) (increase({_OK}[1h]))", "{{arm}}"),
        )),
        Panel("Cost an hour by arm", (
            Query(f"sum by (arm, role) (rate(pawl_cost_usd_total{{{A}}}[1h])) * 3600", "{{arm}} {{role}}"),
        ), "currencyUSD"),
        Panel("Breakers", (
            Query("max by (arm) (pawl_breaker)", "{{arm}}"),
        ), about="0 closed, 1 half open, 2 open"),
        Panel("Breaker trips an hour", (
            Query("sum by (arm) (increase(pawl_breaker_trips_total[1h]))", "{{arm}}"),
        )),
    )),
    Row("What is ruled out", (
        Panel("Blocked by privacy, an hour", (
            Query(f"sum by (agent, mode) (increase(pawl_privacy_blocks_total{{{A}}}[1h]))", "{{agent}} {{mode}}"),
        )),
        Panel("Tried again, an hour", (
            Query("sum by (upstream) (increase(pawl_retries_total[1h]))", "{{upstream}}"),
        )),
        Panel("Queue before upstreams", (
            Query("sum by (upstream) (pawl_upstream_waiting)", "{{upstream}}"),
        )),
    )),
))  # fmt: skip

BOARDS = (EXECUTIVE, OPERATIONS, QUALITY, ROUTING)
