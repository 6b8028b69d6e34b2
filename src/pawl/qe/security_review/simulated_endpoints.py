"""Simulated endpoints: handlers in the manner of three web frameworks, and fragments of OpenAPI documents."""

from __future__ import annotations

import random
from typing import Any

import orjson

from pawl.qe.security_review.simulated_bodies import Body
from pawl.qe.simulated_projects import Project

STYLES = ("flask", "fastapi", "view")


def handler(p: Project, rng: random.Random, body: Body, signed_in: bool, by_number: bool = False) -> str:
    """A handler's code. `by_number`: it is of one record, `<entity>_id`."""
    style = rng.choice(STYLES)
    name, number = f"{body.verb}_{p.entity}", f"{p.entity}_id"
    takes = [*([number] if by_number else []), *([body.takes] if body.takes else [])]
    role = rng.choice(("", "admin", "staff", "editor"))
    tail = rng.choice(("", f"/{body.verb}", f"/{p.module}"))
    number_in_path = {"flask": f"/<int:{number}>", "fastapi": f"/{{{number}}}", "view": ""}[style] if by_number else ""
    path = f"{rng.choice(('', '/api', '/v1', '/internal'))}/{p.many}{number_in_path}{tail}"
    audit = rng.choice(((), (), (f'log.info("{body.verb} %s", {takes[0] if takes else repr(p.entity)})',)))
    guard: tuple[str, ...]
    if style == "flask":
        guard = (f'@requires_role("{role}")' if role else "@login_required",) if signed_in else ()
        fetch = tuple(f'{t} = request.{_place(body)}["{t}"]' for t in takes if t != number)
        head = (
            f'@app.route("{path}", methods=["{body.method.upper()}"])',
            *guard,
            f"def {name}({number if by_number else ''}):",
        )
        lines: tuple[str, ...] = (*fetch, *audit, *body.lines)
    elif style == "fastapi":
        who = f"user: User = Depends({f'require({role!r})' if role else 'current_user'})"
        args = [f"{t}: {'int' if t == number else 'str'}" for t in takes] + ([who] if signed_in else [])
        head = (f'@router.{body.method}("{path}")', f"def {name}({', '.join(args)}):")
        lines = (*audit, *body.lines)
    else:
        guard = ("if not request.user.is_authenticated:", "    raise PermissionDenied") if signed_in else ()
        fetch = tuple(f'{t} = request.{body.method.upper()}["{t}"]' for t in takes if t != number)
        args_ = ", ".join(["self", "request", *([number] if by_number else [])])
        inner = (f"def {body.method}({args_}):", *(f"    {line}" for line in (*guard, *fetch, *audit, *body.lines)))
        head, lines = (f"class {body.verb.title()}{p.kind}(View):",), inner
    above = (*body.above, "") if body.above else ()
    return "\n".join((*above, *head, *(f"    {line}" for line in lines)))


def function(p: Project, rng: random.Random, body: Body) -> str:
    """The same as a plain function."""
    first = rng.choice(("store", "config", "session"))
    takes = [t for t in (first, body.takes) if t]
    doc = rng.choice(((), (f'    """{body.verb.title()} {p.many} of {p.module}."""',)))
    above = (*body.above, "") if body.above else ()
    head = f"def {body.verb}_{p.entity}({', '.join(takes)}):"
    return "\n".join((*above, head, *doc, *(f"    {line}" for line in body.lines)))


def changes_record(p: Project, rng: random.Random) -> Body:
    """What only somebody who is signed in may do."""
    verb, method = rng.choice((("delete", "delete"), (p.verb, "post"), ("export", "get"), ("reset", "post")))
    lines = {
        "delete": (f"db.delete(db.get({p.kind}, {p.entity}_id))", "db.commit()", 'return "", 204'),
        "export": (f"return [r.as_dict() for r in db.all({p.kind})]",),
        "reset": (f"db.get({p.kind}, {p.entity}_id).{p.number} = 0", "db.commit()", 'return {"ok": True}'),
    }.get(
        verb,
        (f"{p.entity} = db.get({p.kind}, {p.entity}_id)", f"{p.entity}.{p.verb}()", f"return {p.entity}.as_dict()"),
    )
    return Body(verb, "", lines, method=method)


def reads_record(p: Project, rng: random.Random, faulty: bool) -> Body:
    """A record by its number, of anybody (CWE-639), or only of the caller."""
    who, one = rng.choice(("user", "current_user", "request.user")), rng.choice((p.entity, "row", "found"))
    way, field = rng.randrange(2), rng.choice((p.number, p.text))
    end = rng.choice(
        (f"return {one}.as_dict()", f'return {{"{field}": {one}.{field}}}', f"return jsonify({one}.{field})")
    )
    number = f"{p.entity}_id"
    if way == 0:
        check = () if faulty else (f"if {one}.{p.owner} != {who}.id:", "    abort(403)")
        lines: tuple[str, ...] = (f"{one} = db.get({p.kind}, {number})", *check, end)
    else:
        mine = "" if faulty else f", {p.owner}={who}.id"
        lines = (f"{one} = {p.kind}.query.filter_by(id={number}{mine}).first_or_404()", end)
    return Body(rng.choice(("read", "show", "get")), "", lines)


def open_to_all(p: Project, rng: random.Random) -> Body:
    """What needs nobody to be signed in: a decoy for those who call every open endpoint vulnerable."""
    kind = rng.randrange(3)
    if kind == 0:
        return Body("health", "", ('return {"status": "ok"}',))
    if kind == 1:
        return Body("version", "", (f'return {{"{p.module}": "{rng.randrange(9)}.{rng.randrange(20)}"}}',))
    return Body("login", "password", ("user = authenticate(password)", "return issue_token(user)"), method="post")


def fragment(p: Project, rng: random.Random, fault: str, faulty: bool) -> str:
    """One path of an OpenAPI document with that CWE, or without it."""
    method = rng.choice(("delete", "post", "put", "patch"))
    name = f"{p.verb}{p.kind}"
    server = f"{'http' if fault == 'CWE-319' and faulty else 'https'}://{p.module}.example/v{rng.randrange(1, 4)}"
    scheme = rng.choice(("bearer", "oauth", "session"))
    operation: dict[str, Any] = {"operationId": name}
    if rng.random() < 0.5:
        operation["summary"] = f"{p.verb} one {p.entity}"
    parameters: list[dict[str, Any]] = [{"name": f"{p.entity}_id", "in": "path", "required": True}]
    carrier = rng.choice(("access_token", "api_key", "token"))
    if fault == "CWE-598":
        parameters.append({"name": carrier, "in": "query" if faulty else "header", "required": True})
    operation["parameters"] = parameters
    operation["security"] = [] if fault == "CWE-306" and faulty else [{scheme: []}]
    operation["responses"] = {str(rng.choice((200, 202, 204))): {"description": rng.choice(("done", "accepted", "ok"))}}
    path = f"/{p.many}/{{{p.entity}_id}}{rng.choice(('', '/' + p.verb, '/' + p.number))}"
    return orjson.dumps({"servers": [{"url": server}], "paths": {path: {method: operation}}}).decode()


def _place(body: Body) -> str:
    return "args" if body.method == "get" else "json"
