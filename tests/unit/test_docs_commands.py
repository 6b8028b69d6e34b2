"""What the pages tell a reader to type exists, and the reference is current."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from infra.reference.__main__ import FOLDER
from infra.reference.pages import pages
from infra.reference.schema_table import tables
from pawl.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    p
    for p in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "mlflow").glob("*.md"))
    if p.parent.name != "reference"
)
_ENV = re.compile(r"^[A-Z_]+=\S*$")
# What is not an argument: a comment, a pipe, the next command, a redirection.
_ENDS = re.compile(r"^(#.*|\||\|\||&&|;|>|>>|<)$")


def typed(text: str) -> Iterator[list[str]]:
    """The words of every command line in a page's blocks and inline code, in their order."""
    blocks = [m[1] for m in re.finditer(r"^```[^\n]*\n(.*?)^```", text, re.M | re.S)]
    rest = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"^ {4}(\S.*)$", rest.replace("\\\n", " "), re.M)
    lines += re.findall(r"`([^`\n]+)`", rest)
    for line in lines:
        try:
            words = shlex.split(line.strip().removeprefix("$ "), comments=True)
        except ValueError:
            continue
        while words and _ENV.match(words[0]):
            words = words[1:]
        for i, word in enumerate(words):
            if _ENDS.match(word):
                words = words[:i]
                break
        if words:
            yield words


def wrong(words: list[str]) -> str | None:
    """What is wrong with a command line of `pawl`, or None."""
    command = get_command(app)
    rest = words[1:]
    while isinstance(command, TyperGroup):
        if not rest or rest[0] in ("--help", "...") or rest[0].isupper():
            return None
        if command.invoke_without_command and rest[0].startswith("-"):  # `pawl report --json`: the group's own options
            break
        names = re.split(r"\|", rest[0].strip(",;"))  # `pawl rollout pause|resume` names both
        unknown = [name for name in names if name not in command.commands]
        if unknown:
            return f"no command {' '.join(unknown)}"
        command, rest = command.commands[names[0]], rest[1:]
    known = {opt for p in command.params for opt in (*p.opts, *p.secondary_opts)} | {"--help"}
    given = [word.strip("[],").split("=")[0] for word in rest if re.match(r"\[?--?[a-zA-Z]", word)]
    unknown = [opt for word in given for opt in word.split("|") if opt not in known]
    return f"no option {' '.join(unknown)}" if unknown else None


def module_of(words: list[str]) -> str | None:
    """The module that `python -m` runs, where that is what is typed."""
    if re.fullmatch(r"(\S*/)?python[\d.]*", words[0]) and words[1:2] == ["-m"] and len(words) > 2:
        return words[2]
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_what_a_page_says_to_type_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    faults = []
    for words in typed(page.read_text(encoding="utf-8")):
        if words[0].rsplit("/", 1)[-1] == "pawl" and len(words) > 1 and (fault := wrong(words)):
            faults.append(f"{' '.join(words)}: {fault}")
        if words[0] == "make":
            named = [w for w in words[1:] if re.fullmatch(r"[a-z-]+", w)]
            faults += [f"make {w}: no such target" for w in named if w not in targets]
        module = module_of(words)
        if module and importlib.util.find_spec(module.split(":")[0]) is None:
            faults.append(f"{' '.join(words)}: no such module")
    assert not faults, "\n".join(faults)


def test_a_command_that_is_not_there_is_found() -> None:
    text = "Type `pawl rollout pause|resume AGENT`.\n\n    $ PAWL_API_KEY=x pawl lake status --jsonl  # all\n"
    found = list(typed(text))
    assert found == [["pawl", "rollout", "pause|resume", "AGENT"], ["pawl", "lake", "status", "--jsonl"]][::-1]
    assert [wrong(words) for words in found] == ["no option --jsonl", None]
    assert wrong(["pawl", "rollout", "hurry"]) == "no command hurry"
    assert module_of(["python3.11", "-m", "benchmarks.rollout", "--quick"]) == "benchmarks.rollout"


def test_the_pages_name_what_there_is() -> None:
    said = {
        words[1]
        for page in PAGES
        for words in typed(page.read_text(encoding="utf-8"))
        if words[0] == "pawl" and len(words) > 1
    }
    assert {"status", "approve", "rollout", "lake", "keys", "agent"} <= said


@pytest.mark.parametrize("name", ["api.md", "cli.md", "fleet.md", "settings.md"])
def test_the_reference_is_current(name: str) -> None:
    made = pages()
    assert set(made) == {p.name for p in FOLDER.glob("*.md")}
    assert (FOLDER / name).read_text(encoding="utf-8") == made[name], "run python -m infra.reference"


def test_a_schema_becomes_tables() -> None:
    schema = {
        "properties": {
            "a": {"type": "integer", "minimum": 1, "default": 3, "description": "one | two"},
            "b": {"anyOf": [{"$ref": "#/$defs/Inner"}, {"type": "null"}], "default": None},
            "c": {"type": "array", "items": {"enum": ["x", "y"]}},
        },
        "required": ["c"],
        "$defs": {"Inner": {"description": "Within.", "properties": {"d": {"type": ["string", "null"]}}}},
    }
    assert list(tables(schema)) == [
        "| field | type | default | what it is |",
        "|---|---|---|---|",
        "| `a` | whole number | `3` | one \\| two (≥ 1) |",
        "| `b` | [Inner](#inner) or nothing |  |  |",
        "| `c` | list of `x`, `y` | **required** |  |",
        "\n## Inner",
        "Within.\n",
        "| field | type | default | what it is |",
        "|---|---|---|---|",
        "| `d` | text or nothing |  |  |",
    ]
