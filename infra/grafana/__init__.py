"""Grafana's dashboards as code: `python -m infra.grafana` writes infra/grafana/dashboards/*.json anew."""
