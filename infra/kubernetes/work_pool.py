"""Makes Prefect's work pool from a base job template, or gives the pool that is there the template of now.

`python -m infra.kubernetes.work_pool TEMPLATE.json NAME`, with PREFECT_API_URL in the environment. By REST, since
Prefect's own command asks for the worker type's package, which only the worker has.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote


def put_pool(api: str, name: str, template: dict[str, Any]) -> str:
    """ "made" or "changed". `api`: Prefect's API, ending in /api. Raises HTTPError, OSError."""
    try:
        _send("POST", f"{api}/work_pools/", {"name": name, "type": "kubernetes", "base_job_template": template})
    except urllib.error.HTTPError as e:
        if e.code != 409:
            raise
        _send("PATCH", f"{api}/work_pools/{quote(name)}", {"base_job_template": template})
        return "changed"
    return "made"


def _send(method: str, url: str, body: dict[str, Any]) -> None:
    request = urllib.request.Request(  # noqa: S310 - the address that the environment gives
        url, json.dumps(body).encode(), {"content-type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310
        pass


if __name__ == "__main__":
    done = put_pool(os.environ["PREFECT_API_URL"], sys.argv[2], json.loads(Path(sys.argv[1]).read_text()))
    print(f"work pool {sys.argv[2]}: {done}")
