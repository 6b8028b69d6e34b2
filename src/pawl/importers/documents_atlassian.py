"""Atlassian's document format as text: Jira keeps descriptions and comments in it."""

from __future__ import annotations

from typing import Any

_BLOCKS = {
    "paragraph", "blockquote", "codeBlock", "panel", "rule", "table", "tableRow", "listItem", "taskItem",
    "decisionItem", "mediaSingle", "expand", "nestedExpand",
}  # fmt: skip


def text_of_document(value: Any) -> str:
    """The text of a document, or of what is text already; headings and code as in Markdown.

    RecursionError where it is nested deeper than any person would.
    """
    if isinstance(value, str):
        return value
    return _text(value).strip() if isinstance(value, dict) else ""


def _text(node: dict[str, Any]) -> str:
    kind = node.get("type")
    attributes = node.get("attrs") if isinstance(node.get("attrs"), dict) else {}
    assert isinstance(attributes, dict)
    if kind == "text":
        return str(node.get("text") or "")
    if kind == "hardBreak":
        return "\n"
    if kind in ("mention", "emoji", "status", "date", "inlineCard", "blockCard"):
        return str(attributes.get("text") or attributes.get("shortName") or attributes.get("url") or "")
    children = node.get("content")
    inner = "".join(_text(c) for c in children if isinstance(c, dict)) if isinstance(children, list) else ""
    if kind == "heading":
        level = attributes.get("level")
        return f"{'#' * (level if isinstance(level, int) and 1 <= level <= 6 else 1)} {inner}\n\n"
    if kind == "codeBlock":
        return f"```\n{inner}\n```\n\n"
    if kind in ("listItem", "taskItem", "decisionItem"):
        return f"- {inner.strip()}\n"
    if kind in ("tableCell", "tableHeader"):
        return f"{inner.strip()} | "
    if kind == "tableRow":
        return f"{inner}\n"
    if kind == "rule":
        return "---\n\n"
    return f"{inner}\n\n" if kind == "paragraph" else f"{inner}\n" if kind in _BLOCKS else inner
