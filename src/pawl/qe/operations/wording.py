"""Other words for prompts about operations: head lines, names of members and operations (pure)."""

from __future__ import annotations

import random
import re

# The first is what `told` of prompt.py writes.
HEADS = ("{method} {path} {id}", "Operation {id}: {method} {path}", "{method} {path} (operation {id})")

# Synonyms by what they stand for in service models, not by the dictionary; lower case.
_NOUNS: dict[str, tuple[str, ...]] = {
    "id": ("key", "ref", "code"), "identifier": ("key", "ref"), "ids": ("keys", "refs"), "name": ("title", "label"),
    "names": ("titles", "labels"), "arn": ("uri", "locator"), "token": ("cursor", "ticket"), "next": ("following",),
    "max": ("top", "most"), "results": ("entries", "rows"), "records": ("rows", "entries"), "items": ("entries",),
    "limit": ("cap", "quota"), "marker": ("bookmark", "cursor"), "page": ("batch",), "size": ("extent", "amount"),
    "resource": ("asset", "object"), "type": ("kind", "category"), "group": ("team", "bundle"), "instance": ("node",),
    "client": ("caller", "consumer"), "tags": ("labels", "marks"), "tag": ("label", "mark"), "account": ("tenant",),
    "version": ("revision", "edition"), "policy": ("ruleset", "terms"), "domain": ("zone", "realm"),
    "filters": ("criteria", "conditions"), "filter": ("criterion", "condition"), "cluster": ("fleet", "pool"),
    "status": ("state", "phase"), "state": ("status", "phase"), "description": ("summary", "note"),
    "application": ("program", "product"), "app": ("program",), "user": ("member", "person"), "job": ("batch", "work"),
    "gateway": ("bridge", "entry"), "key": ("handle", "code"), "keys": ("handles", "codes"), "request": ("call",),
    "template": ("blueprint", "layout"), "source": ("origin",), "target": ("goal", "recipient"), "network": ("net",),
    "configuration": ("settings", "setup"), "service": ("facility",), "agent": ("worker",), "time": ("moment",),
    "profile": ("persona", "preset"), "snapshot": ("backup", "copy"), "table": ("sheet", "grid"), "data": ("content",),
    "list": ("listing",), "endpoint": ("address", "outlet"), "access": ("entry",), "rule": ("clause",),
    "environment": ("stage", "setting"), "pool": ("reserve",), "include": ("with",), "task": ("chore", "activity"),
    "start": ("begin", "from"), "end": ("finish", "until"), "code": ("symbol",), "prefix": ("stem",),
    "session": ("visit",), "role": ("duty", "function"), "owner": ("holder",), "certificate": ("credential",),
    "bucket": ("container", "vault"), "flow": ("process",), "bot": ("assistant",), "number": ("count", "figure"),
    "connection": ("link",), "device": ("unit", "gadget"), "model": ("pattern",), "query": ("question", "search"),
    "directory": ("folder",), "stream": ("feed",), "sort": ("order",), "channel": ("lane",), "event": ("incident",),
    "image": ("picture",), "contact": ("person",), "file": ("document",), "queue": ("line", "backlog"),
    "action": ("step",), "destination": ("recipient",), "region": ("area", "site"), "message": ("notice", "text"),
    "email": ("mail",), "value": ("content",), "values": ("contents",), "order": ("purchase",), "pet": ("animal",),
    "quantity": ("amount",), "address": ("location",), "phone": ("telephone",), "date": ("day",), "url": ("link",),
}  # fmt: skip
_VERBS: dict[str, tuple[str, ...]] = {
    "list": ("enumerate", "browse"), "delete": ("remove", "drop"), "get": ("fetch", "read"), "describe": ("show",),
    "update": ("change", "revise"), "create": ("make", "new"), "untag": ("unlabel",), "tag": ("label",),
    "put": ("store", "save"), "associate": ("link", "bind"), "disassociate": ("unlink", "unbind"),
    "start": ("launch", "begin"), "modify": ("alter", "change"), "batch": ("bulk",), "cancel": ("abort",),
    "set": ("assign",), "remove": ("delete",), "stop": ("halt", "end"), "add": ("append", "insert"),
    "register": ("enrol",), "deregister": ("withdraw",), "accept": ("approve",), "reject": ("decline",),
    "disable": ("deactivate",), "enable": ("activate",), "attach": ("connect",), "detach": ("disconnect",),
    "send": ("submit",), "search": ("find",), "import": ("load",), "export": ("dump",), "execute": ("run",),
    "test": ("check",), "generate": ("produce",), "find": ("search",), "upload": ("send",),
}  # fmt: skip
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_STYLES = ("camel", "pascal", "snake", "kebab")


def new_names(names: list[str], taken: set[str], rng: random.Random) -> dict[str, str]:
    """Other names for members: other words, another style (camel, Pascal, snake, kebab case), or both.

    Names that would clash with each other or with what is taken stay as they are, so that no two become one; so do
    names of special characters.
    """
    words = _choice_of(_NOUNS, rng) if rng.random() < 0.7 else {}
    style = rng.choice(_STYLES) if not words or rng.random() < 0.5 else None
    found: dict[str, str] = {}
    used = set(names) | taken
    for name in names:
        if not _PLAIN_NAME.fullmatch(name):
            continue
        parts = [words.get(w.lower(), w.lower()) for w in _WORD.findall(name)]
        new = _joined(parts, style or _style(name))
        if new not in used:
            found[name] = new
            used.add(new)
    return found


def new_operation(name: str, path: str, rng: random.Random) -> tuple[str, str]:
    """Another name for an operation, and another path; placeholders in the path stay as they are."""
    verbs, nouns = _choice_of(_VERBS, rng), _choice_of(_NOUNS, rng)
    if rng.random() < 0.8:
        name = _with_words(name, nouns | {k: v for k, v in verbs.items() if k == _first(name)})
    resource, mark, query = path.partition("?")
    pieces = re.split(r"(\{[^}]*\})", resource)
    resource = "".join(p if p.startswith("{") else _with_words(p, nouns) for p in pieces)
    if resource == "/":
        resource = rng.choice(("/", "/api", "/" + _joined([w.lower() for w in _WORD.findall(name)], "kebab")))
    elif rng.random() < 0.4:
        resource = rng.choice(("/api", "/v1", "/v2")) + resource
    return name, resource + mark + query


def _choice_of(words: dict[str, tuple[str, ...]], rng: random.Random) -> dict[str, str]:
    """One synonym of each word, for a whole prompt; some words keep theirs."""
    return {word: rng.choice(others) for word, others in words.items() if rng.random() < 0.75}


def _with_words(text: str, words: dict[str, str]) -> str:
    def other(match: re.Match[str]) -> str:
        old = match.group()
        new = words.get(old.lower(), old)
        return new.capitalize() if old[0].isupper() and new != old else new

    return _WORD.sub(other, text)


def _first(name: str) -> str:
    match = _WORD.search(name)
    return match.group().lower() if match else ""


def _style(name: str) -> str:
    if "_" in name:
        return "snake"
    if "-" in name:
        return "kebab"
    return "pascal" if name[0].isupper() else "camel"


def _joined(words: list[str], style: str) -> str:
    if style == "snake":
        return "_".join(words)
    if style == "kebab":
        return "-".join(words)
    capital = "".join(w.capitalize() for w in words)
    return capital if style == "pascal" else capital[:1].lower() + capital[1:]
