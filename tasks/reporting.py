"""The task that reports on a month."""

from __future__ import annotations

from prefect import runtime, task
from prefect.artifacts import create_link_artifact, create_table_artifact

from pawl.settings import Settings
from tasks.failures import HOUR_S, PATIENT
from tasks.values import Reported


def called() -> str:
    """The run's name in Prefect's UI."""
    return f"report {runtime.flow_run.parameters.get('month') or 'of the last month'}"


@task(**PATIENT, timeout_seconds=HOUR_S)
def report(month: str | None) -> Reported:
    """Compute it, log it on MLflow, and show the phases' tables. The same month again is the same run on MLflow."""
    from pawl.improvement import monthly
    from pawl.monitoring.independence_page import headline, seen, write

    settings = Settings()
    made = monthly.report(settings, month)
    r = made.figures
    page = write(r, made.phases, made.generated_at, settings.reports_dir / f"independence-{r.month}.html")
    link = monthly.log(settings, made, page)
    rows = [
        {"phase": p.name, "verdict": p.verdict, "criterion": c.name, "wanted": c.wanted, "state": c.state,
         "measured": seen(c), "why": c.why}
        for p in made.phases for c in p.criteria
    ]  # fmt: skip
    create_table_artifact(key=f"phases-{r.month}", table=rows, description=headline(r))
    create_link_artifact(key=f"report-{r.month}", link=link, link_text=f"Report of {r.month} on MLflow")
    verdicts = {p.name: p.verdict for p in made.phases}
    return Reported(month=r.month, whole=r.whole, stand_in=r.stand_in, page=str(page), link=link, verdicts=verdicts)
