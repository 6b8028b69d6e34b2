"""A replica started as containers and service units start it; vLLM's own place is taken by a module that tells what it
was called with."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

FLEET = """
base_model: {{source: {source}, served_name: base, max_model_len: 2048}}
upstreams: {{local: {{preset: vllm}}}}
agents:
  - {{name: one, task: functional-negative, source: {{kind: botocore}}, first_champion: local, training: {{rank: 20}}}}
  - {{name: two, task: functional-negative, source: {{kind: botocore}}, first_champion: local, training: {{rank: 8}}}}
"""
TELLS = "import json, os, sys; print(json.dumps([os.getpid(), sys.argv[1:], dict(os.environ)]))"


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    told = folder / "vllm" / "entrypoints" / "openai" / "api_server.py"
    told.parent.mkdir(parents=True)
    for package in (told.parent, told.parent.parent, told.parent.parent.parent):
        (package / "__init__.py").touch()
    told.write_text(TELLS)
    base = folder / "base"
    (folder / "fleet.yaml").write_text(FLEET.format(source=base))
    env = {**os.environ, "PAWL_FLEET": str(folder / "fleet.yaml"), "PAWL_HOME": str(folder), "PYTHONPATH": str(folder)}
    line = [sys.executable, "-m", "pawl.serving.start_vllm", *arguments]
    return subprocess.Popen(line, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_process_becomes_vllm_with_what_the_fleet_needs(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    process = start(tmp_path, "--host", "0.0.0.0", "--port", "8000", "--max-num-seqs=256")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    pid, argv, env = json.loads(out)
    assert pid == process.pid  # no shell and no parent between: signals reach vLLM
    given = dict(itertools.pairwise(argv))
    assert given["--model"] == str(tmp_path / "base") and given["--max-model-len"] == "2048"
    assert (given["--host"], given["--port"]) == ("0.0.0.0", "8000")
    assert given["--max-lora-rank"] == "32"  # the next that vLLM knows above the greatest of the agents
    assert given["--max-loras"] == "3"  # both champions and a challenger
    assert argv[-1] == "--max-num-seqs=256" and "--enable-lora" in argv
    assert env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True" and env["HF_HUB_OFFLINE"] == "1"


def test_without_a_base_model_it_says_what_to_run(tmp_path: Path) -> None:
    process = start(tmp_path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and out == ""
    assert "run `pawl base` first" in err and "Traceback" not in err
