"""Simulated code with one weakness, or with the same place done well: what a handler or a function does.

Each body is built twice with the same random numbers, so that a pair differs in the weakness alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from pawl.qe.simulated_projects import Project


class Body(NamedTuple):
    """Lines of a handler's or function's body, what it takes, and lines that stand above it."""

    verb: str  # of its name
    takes: str  # its argument beside the record's number; "" where there is none
    lines: tuple[str, ...]
    above: tuple[str, ...] = ()
    method: str = "get"


Builder = Callable[[Project, random.Random, bool], Body]


def _word(rng: random.Random, *words: str) -> str:
    return rng.choice(words)


def queries(p: Project, rng: random.Random, faulty: bool) -> Body:
    """A query with a value in its text (CWE-089), or bound."""
    value, way = _word(rng, p.text, "term", "q", "wanted"), rng.randrange(4)
    column, row, link = (
        _word(rng, p.text, p.owner, "state"),
        _word(rng, "rows", "found", "hits"),
        _word(rng, "db", "conn", "cur"),
    )
    mark, columns = _word(rng, "?", "%s"), _word(rng, "*", f"id, {p.number}")
    head = f"SELECT {columns} FROM {p.many} WHERE {column} = "  # noqa: S608 - text of a prompt, nothing runs it
    tail = _word(rng, "", " ORDER BY id", f" AND {p.number} > 0")
    if faulty:
        call = (
            f"f\"{head}'{{{value}}}'{tail}\"",
            f"\"{head}'%s'{tail}\" % {value}",
            f'"{head}\'" + {value} + "\'{tail}"',
            f"\"{head}'{{}}'{tail}\".format({value})",
        )[way]
    else:
        call = f'"{head}{mark}{tail}", ({value},)'
    return Body(
        _word(rng, "find", "search", "list"),
        value,
        (f"{row} = {link}.execute({call}).fetchall()", f"return [dict(r) for r in {row}]"),
    )


def reads_file(p: Project, rng: random.Random, faulty: bool) -> Body:
    """A file by a name that the caller gives (CWE-022), or within its folder."""
    name, base = (
        _word(rng, "name", "filename", p.text),
        _word(rng, "BASE", "FOLDER", "UPLOADS", f"{p.many.upper()}_DIR"),
    )
    way = rng.randrange(3)
    ways: tuple[tuple[str, ...], ...]
    if faulty:
        ways = (
            (f"path = os.path.join({base}, {name})",),
            (f'path = f"{{{base}}}/{{{name}}}"',),
            (f"path = {base} + '/' + {name}",),
        )
    else:
        ways = (
            (
                f"path = (Path({base}) / {name}).resolve()",
                f"if not path.is_relative_to({base}):",
                "    abort(404)",
            ),
            (f'path = f"{{{base}}}/{{secure_filename({name})}}"',),
            (f"path = safe_join({base}, {name})",),
        )
    end = _word(rng, "return send_file(path)", "return open(path).read()", "return FileResponse(path)")
    return Body(_word(rng, "download", "show", "fetch"), name, (*ways[way], end))


def shows_page(p: Project, rng: random.Random, faulty: bool) -> Body:
    """A value of the caller's in a page (CWE-079), or escaped."""
    value, tag = _word(rng, p.text, "title", "q", "note"), _word(rng, "h1", "p", "b", "td", "li")
    number, way = rng.randrange(2, 40), rng.randrange(3)
    shown = value if faulty else _word(random.Random(number), f"escape({value})", f"html.escape({value})")
    lines = (
        (f'page = f"<{tag}>{{{shown}}}</{tag}>"', "return HTMLResponse(page)"),
        (f'return "<{tag}>" + {shown} + "</{tag}><i>{number}</i>"',),
        (
            f'parts = ["<{tag} id={p.entity}>", {shown}, "</{tag}>"]',
            'return Response("".join(parts), mimetype="text/html")',
        ),
    )[way]
    return Body(_word(rng, "render", "preview", "greet"), value, lines)


def runs_command(p: Project, rng: random.Random, faulty: bool) -> Body:
    """A command with a value in its line (CWE-078), or as a list."""
    tool, value = (
        _word(rng, "convert", "tar", "ping", "gzip", "git", "ffmpeg"),
        _word(rng, p.text, "target", "host", "label"),
    )
    flag, way = _word(rng, "-v", "-q", "--fast", "-c 1"), rng.randrange(3)
    listed = ", ".join(f'"{w}"' for w in (tool, *flag.split()))
    if faulty:
        lines = (
            (f'os.system(f"{tool} {flag} {{{value}}}")',),
            (f'subprocess.run("{tool} {flag} " + {value}, shell=True, check=True)',),
            (f'out = os.popen("{tool} {flag} %s" % {value}).read()',),
        )[way]
    else:
        lines = (
            (f"subprocess.call([{listed}, {value}])",),
            (f"subprocess.run([{listed}, {value}], check=True)",),
            (f"out = subprocess.check_output([{listed}, {value}], text=True)",),
        )[way]
    return Body(
        _word(rng, "convert", "check", p.verb), value, (*lines, f'return {{"{p.entity}": "done"}}'), method="post"
    )


def keeps_secret(p: Project, rng: random.Random, faulty: bool) -> Body:
    """A secret in the code (CWE-798), or from the environment."""
    name = _word(rng, "API_KEY", "SECRET", "DB_PASSWORD", "SIGNING_KEY", f"{p.module.upper()}_TOKEN")
    value = "".join(rng.choice("0123456789abcdefghjkmnpqrstuvwxyz") for _ in range(rng.randrange(14, 24)))
    read = _word(
        rng, f'os.environ["{name}"]', f'settings.get("{name.lower()}")', f'vault.read("{p.module}/{name.lower()}")'
    )
    call = _word(
        rng,
        f'client = connect("{p.module}", key={name})',
        f"signed = hmac.new({name}.encode(), body, sha256).hexdigest()",
        f'headers = {{"Authorization": "Bearer " + {name}}}',
    )
    return Body(
        _word(rng, "sync", "push", p.verb),
        "body",
        (call, f"return send_{p.entity}({_word(rng, 'body', 'body.strip()')})"),
        above=(f'{name} = "{value}"' if faulty else f"{name} = {read}",),
        method="post",
    )


def trusts_token(p: Project, rng: random.Random, faulty: bool) -> Body:
    """A token or a signed call that is not verified (CWE-347), or is."""
    way, key = rng.randrange(4), _word(rng, "PUBLIC_KEY", "settings.key", "KEY")
    alg, header = _word(rng, "RS256", "ES256", "HS256"), _word(rng, "X-Signature", "X-Hub-Signature", "X-Digest")
    if way == 0:
        check = 'options={"verify_signature": False}' if faulty else f'algorithms=["{alg}"]'
        lines: tuple[str, ...] = (f"claims = jwt.decode(token, {key}, {check})",)
    elif way == 1:
        algs = f'["{alg}", "none"]' if faulty else f'["{alg}"]'
        lines = (f"claims = jwt.decode(token, {key}, algorithms={algs})",)
    elif way == 2:
        part = 'token.split(".")[1]'
        lines = (
            f'claims = json.loads(b64decode({part} + "=="))' if faulty else f"claims = verified_claims(token, {key})",
        )
    else:
        test = (
            f'if "{header}" not in request.headers:'
            if faulty
            else f"if not hmac.compare_digest(mac(token, {key}), request.headers['{header}']):"
        )
        lines = (test, "    abort(401)", "claims = json.loads(token)")
    field = _word(rng, "sub", p.owner, "account")
    return Body(
        _word(rng, "receive", "accept", "hook"),
        "token",
        (*lines, f'return {p.verb}_{p.entity}(claims["{field}"])'),
        method="post",
    )
