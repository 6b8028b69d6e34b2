"""Who is told what by Prefect: Slack, e-mail, a webhook. `python -m infra.notifications --help`."""
