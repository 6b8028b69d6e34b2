"""docs/deploying.md names what is there: files, units, images' targets, the keys of Secrets."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "deploying.md").read_text()


def test_every_file_and_folder_that_it_names_is_there() -> None:
    named = set(re.findall(r"(?<![\w/])((?:infra|docs|mlflow|\.github)/[\w./-]*\w)", TEXT))
    assert len(named) > 8
    theirs = {"infra/compose/tls"}  # made by whoever deploys
    assert {name for name in named - theirs if not (ROOT / name).exists()} == set()
    for link in re.findall(r"\]\((?!http)([^)#]+)", TEXT):
        assert (ROOT / "docs" / link).exists(), link
    for name in re.findall(r"`((?:components|overlays)/[\w./-]+)`", TEXT):
        assert (ROOT / "infra" / "kubernetes" / name).exists(), name


def test_units_and_targets_are_those_that_exist() -> None:
    there = {p.name.removesuffix(".service").partition("@")[0] for p in (ROOT / "infra" / "systemd").glob("*.service")}
    table = TEXT.partition("| unit | what |")[2].partition("\n\n")[0]
    assert {name.partition("@")[0] for name in re.findall(r"`(pawl-[a-z@0-9-]+)`", table)} == there
    dockerfile = (ROOT / "infra" / "images" / "Dockerfile").read_text()
    for target in re.findall(r"--target (\w+)", TEXT):
        assert f" AS {target}\n" in dockerfile


def test_the_table_of_secrets_is_what_the_store_gives() -> None:
    store = (ROOT / "infra" / "kubernetes" / "components" / "external-secrets" / "secrets.yaml").read_text()
    table = TEXT.partition("## Secrets")[2].partition("## ")[0]
    rows = {
        name: set(re.findall(r"`([^`]+)`", keys)) for name, keys in re.findall(r"^\| `(.+?)` \| (.+?) \|", table, re.M)
    }
    given = {s["metadata"]["name"]: {e["secretKey"] for e in s["spec"]["data"]} for s in yaml.safe_load_all(store)}
    assert rows.keys() == given.keys()
    for name, keys in given.items():
        assert keys <= rows[name], name


def test_what_reads_or_makes_secrets_is_run_as_the_databases_owner() -> None:
    needs = re.compile(r"pawl\.cli (?:registry (?:accounts|telemetry)|keys create)")
    steps = [line for line in TEXT.splitlines() if needs.search(line)]
    assert len(steps) == 3 and all("as_owner " in line for line in steps), steps
    assert 'PGUSER="$(owner PGUSER)" PGPASSWORD="$(owner PGPASSWORD)" "$@"' in TEXT
    compose = yaml.safe_load((ROOT / "infra" / "compose" / "compose.yaml").read_text())["services"]
    assert compose["control-database"]["environment"]["PGUSER"] == "pawl"
    assert "docker compose run --rm -T control-database env" in TEXT
