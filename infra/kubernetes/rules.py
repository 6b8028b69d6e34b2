"""Writes Prometheus' rules for a cluster, as objects of the Prometheus Operator, from the files that Prometheus reads
elsewhere: `python -m infra.kubernetes.rules`. A test fails where they are not current.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

INFRA = Path(__file__).resolve().parents[1]
OUT = INFRA / "kubernetes" / "components" / "monitoring" / "rules.yaml"
_HEAD = "# Written by `python -m infra.kubernetes.rules` from infra/prometheus/rules: change those, and run it again.\n"


def objects() -> list[dict[str, Any]]:
    """A PrometheusRule for each file of rules, in the order in which Prometheus reads them."""
    read = yaml.safe_load((INFRA / "prometheus" / "prometheus.yml").read_text())["rule_files"]
    return [
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": f"pawl-{Path(name).stem}", "labels": {"app.kubernetes.io/part-of": "pawl"}},
            "spec": yaml.safe_load((INFRA / "prometheus" / name).read_text()),
        }
        for name in read
    ]


def rendered() -> str:
    """What the component's file has to be."""
    return _HEAD + yaml.safe_dump_all(objects(), sort_keys=False, width=1000)


if __name__ == "__main__":
    OUT.write_text(rendered())
