"""The formats that can be imported, by name."""

from __future__ import annotations

from pawl.importers.imported import Reader
from pawl.importers.outcomes import junit_xml, ratings_csv
from pawl.importers.traces_json import langfuse, langsmith, mlflow_traces, openai_log

FORMATS: dict[str, Reader] = {
    "openai": openai_log,
    "langfuse": langfuse,
    "langsmith": langsmith,
    "mlflow": mlflow_traces,
    "csv": ratings_csv,
    "junit": junit_xml,
}
