"""The formats that can be imported, by name."""

from __future__ import annotations

from pawl.importers.imported import Reader
from pawl.importers.issues_github import github
from pawl.importers.issues_jira import jira
from pawl.importers.load_jmeter import jmeter
from pawl.importers.load_k6 import k6
from pawl.importers.outcomes import junit_xml, ratings_csv
from pawl.importers.traces_json import langfuse, langsmith, mlflow_traces, openai_log

FORMATS: dict[str, Reader] = {
    "openai": openai_log,
    "langfuse": langfuse,
    "langsmith": langsmith,
    "mlflow": mlflow_traces,
    "csv": ratings_csv,
    "junit": junit_xml,
    "github": github,
    "jira": jira,
    "k6": k6,
    "jmeter": jmeter,
}
FIND_THEIR_AGENT = {"csv", "junit"}  # by the interactions they are about; the others are told
