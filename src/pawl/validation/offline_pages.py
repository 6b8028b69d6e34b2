"""Makes Data Docs' pages readable without a network: no script, no foreign address, one small stylesheet of ours.

The library's pages load their styles, icons and behaviour from content delivery networks. Offline they are bare, and
online every look at them would tell a stranger of it. A content security policy keeps what is left to itself.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import NamedTuple

from pawl.validation.report import Failure

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --good: #1a7f37; --bad: #c62828; }
* { box-sizing: border-box; }
body { margin: 0; font: 15px/1.45 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
a { color: #1f6feb; text-decoration: none; }
nav.navbar { border-bottom: 1px solid var(--line); padding: 10px 24px; height: auto !important; }
.breadcrumb { display: flex; gap: 8px; list-style: none; margin: 0; padding: 0; }
.breadcrumb li + li::before { content: "\\203a"; margin-right: 8px; }
.container-fluid { padding: 0 24px; }
body > .container-fluid > .row { display: grid; grid-template-columns: 220px minmax(0, 1fr); gap: 24px;
  max-width: 1400px; padding-top: 20px; }
body > .index > .row { grid-template-columns: minmax(0, 1fr); }
h4, h5, h6, p { margin: 0 0 6px; }
h4 { font-size: 17px; } h5 { font-size: 16px; } h6 { font-size: 14px; }
.lead { opacity: .7; }
.sticky { position: sticky; top: 12px; }
.card { border: 1px solid var(--line); border-radius: 6px; max-height: 80vh; overflow: auto; }
.card-header { padding: 8px 12px; background: var(--soft); }
.card ul { list-style: none; margin: 0; padding: 6px 12px; }
.ge-section { padding: 0; margin-bottom: 22px; }
.alert { background: var(--soft); border-radius: 6px; padding: 10px 14px; }
table { width: 100%; border-collapse: collapse; margin: 8px 0; }
th, td { text-align: left; vertical-align: top; padding: 6px 10px; border-bottom: 1px solid var(--line); }
th { font-weight: 600; white-space: nowrap; }
td { overflow-wrap: anywhere; }
.table > * > tr > :first-child { width: 80px; }
.broken { border: 1px solid var(--line); border-radius: 6px; padding: 10px 14px; margin-bottom: 18px; }
.broken ul { margin: 0; padding-left: 20px; }
.col-6 .table > * > tr > :first-child, .collapse .table > * > tr > :first-child { width: 240px; }
.table > * > tr > :last-child { width: 170px; }
.col-6 .table > * > tr > :last-child, .collapse .table > * > tr > :last-child { width: auto; }
.table-bordered { width: auto; }
.table-bordered td { min-width: 60px; }
.table-bordered th, .table-bordered td { border: 1px solid var(--line); }
.text-danger, .failed, .critical { color: var(--bad); } .text-success, .passed { color: var(--good); }
.text-warning, .warned, .warning { color: #b26a00; }
i.fas { font-style: normal; font-weight: 700; }
.fa-times::before { content: "\\2717"; } .fa-check-circle::before { content: "\\2713"; }
.fa-exclamation-triangle::before { content: "!"; }
.badge { border-radius: 4px; padding: 1px 6px; background: var(--soft); }
.collapse { display: none; } .collapse:target { display: block; padding: 8px 12px; }
code { overflow-wrap: anywhere; }
"""
_POLICY = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">"
)
_TABLE = re.compile(r"<table\b[^>]*ge-index-page-validation-results-table.*?</table>", re.DOTALL)
_GONE = tuple(
    re.compile(pattern, re.DOTALL | re.IGNORECASE)
    for pattern in (
        r"<script\b.*?</script\s*>",
        r"<style\b.*?</style\s*>",
        r"<link\b[^>]*>",
        r"<img\b[^>]*>",
        r"<button\b.*?</button\s*>",
        r"<footer\b.*?</footer\s*>",
        r"<title>\s*</title>",
        # A list of buttons that only scripts could answer.
        r'<div class="card mb-3">\s*<div class="card-header p-2">\s*<strong>Actions</strong>.*?</label>\s*</div>\s*'
        r"</div>\s*</div>\s*</div>\s*</div>",
        r'<ul class="nav nav-tabs".*?</ul>',
    )
)
# Links to foreign sites, and to pages of suites, which are not made: their text stays.
_LINK = re.compile(r'<a\b[^>]*href="(?:https?:|//|(?:\.\./)*expectations/)[^"]*"[^>]*>(.*?)</a>', re.DOTALL)


_COUNT = re.compile(r"(Sampled Unexpected Values\s*</th>\s*<th[^>]*>\s*)Count(\s*</th>)")
_OUTCOME = re.compile(r'<meta name="outcome" content="(\w+)">')


class Run(NamedTuple):
    """One line of the index."""

    at: str
    name: str
    suite: str
    outcome: str  # passed, warned, failed
    page: str


def run_page(page: str, failures: Sequence[Failure]) -> str:
    """The page of one check, what failed on top of it."""
    kinds = {f.severity for f in failures}
    outcome = "failed" if "critical" in kinds else "warned" if kinds else "passed"
    page = _bared(page).replace("Data documentation compiled by Great Expectations", "What was checked", 1)
    page = page.replace("<head>", f'<head>\n<meta name="outcome" content="{outcome}">', 1)
    page = _COUNT.sub(r"\1Of the sample\2", page.replace("Data asset: None<br>", "", 1))
    return page.replace('<div id="section-1"', f'{_broken(failures)}<div id="section-1"', 1)


def outcome_of(page: str) -> str:
    """What a page that `run_page` made says of its check; "" where it says nothing."""
    found = _OUTCOME.search(page)
    return found[1] if found else ""


def index_page(page: str, runs: Sequence[Run]) -> str:
    """The index. The library leaves its table to a script; here it is one of HTML, newest first."""
    page = _bared(_TABLE.sub(lambda _: _table(runs), page))
    page = re.sub(r"<nav\b.*</nav>", "", page, count=1, flags=re.DOTALL)  # it leads nowhere
    page = page.replace("Data Docs created by Great Expectations", "What was checked", 1)
    return page.replace('<div class="container-fluid', '<div class="index container-fluid', 1)


def _broken(failures: Sequence[Failure]) -> str:
    if not failures:
        return ""
    lines = "\n".join(
        f'<li><span class="{f.severity}">{f.severity}</span>: {html.escape(f.rule)} '
        f"({html.escape(f.observed) or f'{f.unexpected:,} row(s)'})</li>"
        for f in failures
    )
    return f'<div class="broken"><h5>Broken rules</h5><ul>\n{lines}\n</ul></div>\n'


def _bared(page: str) -> str:
    for pattern in _GONE:
        page = pattern.sub("", page)
    page = _LINK.sub(r"\1", page)
    page = re.sub(r"\n\s*\n+", "\n", page)
    return page.replace("<head>", f'<head>\n<meta charset="UTF-8">\n{_POLICY}\n<style>{STYLE}</style>', 1)


def _table(runs: Sequence[Run]) -> str:
    rows = "\n".join(
        f'<tr><td class="{r.outcome}">{r.outcome}</td>'
        f'<td><a href="{html.escape(r.page)}">{html.escape(r.at)}</a></td>'
        f"<td>{html.escape(r.name)}</td><td>{html.escape(r.suite)}</td></tr>"
        for r in sorted(runs, key=lambda r: (r.at, r.suite), reverse=True)
    )
    head = "<tr><th>Rules</th><th>When</th><th>Run</th><th>Suite</th></tr>"
    return f'<table class="table runs"><thead>{head}</thead><tbody>\n{rows}\n</tbody></table>'
