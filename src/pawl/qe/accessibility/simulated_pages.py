"""Made-up pages of made-up sites, some with violations planted: the HTML is simulated, what axe-core says of it is not.

Each page is a few parts out of PARTS. A part has one right form and, by axe-core's rule ids, forms that break a rule.
Some pages also come with all parts right, so that a page is not told by its words. Nothing random outlives a seed: the
same pages are made each time.
"""

from __future__ import annotations

import hashlib
import random
from functools import lru_cache

import msgspec

from pawl.qe.accessibility.oracle import Page

CLEAN = "clean"
# What a rule is about, for balance and slices; the rarest first.
AREAS = {
    "aria": ("aria-required-attr", "aria-roles", "aria-valid-attr", "aria-valid-attr-value", "aria-hidden-focus",
             "aria-required-children", "aria-required-parent", "nested-interactive"),
    "contrast": ("color-contrast",),
    "structure": ("list", "listitem", "definition-list", "dlitem"),
    "names": ("button-name", "link-name", "aria-progressbar-name", "input-button-name"),
    "forms": ("label", "select-name", "autocomplete-valid"),
    "text": ("image-alt", "svg-img-alt", "role-img-alt", "input-image-alt"),
    "page": ("document-title", "html-has-lang", "html-lang-valid", "meta-viewport", "valid-lang"),
}  # fmt: skip
_SITES = {
    "bakery": "rye loaf, seed roll, plum cake", "clinic": "blood test, eye check, flu shot",
    "library": "atlas, diary, cook book", "museum": "bronze mask, star map, glass bowl",
    "garden": "red tulip, moss rose, fig tree", "cinema": "late show, short film, matinee",
    "station": "day ticket, bike pass, seat map", "hotel": "twin room, garden suite, cot",
    "school": "maths club, choir, chess team", "harbour": "ferry, tug boat, pilot boat",
    "market": "goat cheese, honey, dried pear", "studio": "oak table, wool rug, brass lamp",
    "bank": "savings plan, travel card, loan", "theatre": "box seat, stage tour, script",
    "farm": "hen house, apple press, hay loft", "gym": "rowing class, sauna, day locker",
    "cafe": "mocha, lemon tart, soup", "airline": "window seat, cabin bag, meal",
    "radio": "news hour, jazz night, quiz", "bookshop": "map of Wales, poems, comic",
    "lab": "soil probe, ph meter, microscope", "zoo": "otter, snow owl, giraffe",
    "council": "bin day, parking permit, ballot", "workshop": "band saw, wood glue, vice",
}  # fmt: skip
_HOURS = ("Open until six", "Closed on Monday", "Back in ten minutes", "New this week", "Free on Friday")
_HEADS = {
    "": ' lang="en"',
    "html-has-lang": "",
    "html-lang-valid": ' lang="english"',
}
_TITLES = {"": "<title>{title}</title>", "document-title": ""}
_VIEWS = {
    "": '<meta name="viewport" content="width=device-width">',
    "meta-viewport": '<meta name="viewport" content="width=device-width, user-scalable=no">',
}
# {a}, {b}: things of the site, {f}, {g}: their file names, {t}: a notice, {n}: a number. "" is the right form.
PARTS: dict[str, dict[str, str]] = {
    "photo": {
        "": '<img src="/img/{f}.jpg" alt="{a}">',
        "image-alt": '<img src="/img/{f}.jpg">',
    },
    "email": {
        "": '<label for="email">Email</label><input id="email" type="email">',
        "label": '<p>Email</p><input id="email" type="email">',
        "autocomplete-valid": '<label for="email">Email</label><input id="email" autocomplete="e-mail">',
    },
    "amount": {
        "": '<label>How many <input type="number" name="{f}"></label>',
        "label": 'How many <input type="number" name="{f}">',
    },
    "choice": {
        "": '<label for="which">Which</label><select id="which"><option>{a}</option><option>{b}</option></select>',
        "select-name": '<select id="which"><option>{a}</option><option>{b}</option></select>',
    },
    "order": {
        "": '<button type="button">Add {a}</button>',
        "button-name": '<button type="button"></button>',
    },
    "close": {
        "": '<button type="button" aria-label="Close"><svg width="20" height="20"></svg></button>',
        "button-name": '<button type="button" class="close"><svg width="20" height="20"></svg></button>',
        "aria-valid-attr": '<button type="button" aria-labl="Close">Close</button>',
    },
    "send": {
        "": '<input type="image" src="/img/send.png" alt="Send">',
        "input-image-alt": '<input type="image" src="/img/send.png">',
    },
    "teaser": {
        "": '<a href="/{g}"><img src="/img/{g}.jpg" alt="{b}"></a>',
        "link-name": '<a href="/{g}"><img src="/img/{g}.jpg" alt=""></a>',
        "image-alt": '<a href="/{g}">{b} <img src="/img/{g}.jpg"></a>',
    },
    "basket": {
        "": '<a href="/basket" aria-label="Basket"><svg width="20" height="20"></svg></a>',
        "link-name": '<a href="/basket"><svg width="20" height="20"></svg></a>',
    },
    "menu": {
        "": '<ul><li><a href="/">Home</a></li><li><a href="/{f}">{a}</a></li></ul>',
        "list": '<ul><li><a href="/">Home</a></li><p><a href="/{f}">{a}</a></p></ul>',
        "listitem": '<div><li><a href="/{f}">{a}</a></li></div>',
    },
    "steps": {
        "": "<ol><li>Choose {a}</li><li>Pay {n}.50</li></ol>",
        "list": "<ol><div>Choose {a}</div><li>Pay {n}.50</li></ol>",
    },
    "facts": {
        "": "<dl><dt>{a}</dt><dd>{n}.20</dd></dl>",
        "definition-list": "<dl><p>{a}</p><dt>Price</dt><dd>{n}.20</dd></dl>",
        "dlitem": "<div><dt>{a}</dt></div>",
    },
    "notice": {
        "": '<p style="color:#333;background:#fff">{t}</p>',
        "color-contrast": '<p style="color:#bbb;background:#fff">{t}</p>',
    },
    "badge": {
        "": '<span style="color:#fff;background:#14532d">{n} left</span>',
        "color-contrast": '<span style="color:#fff;background:#facc15">{n} left</span>',
    },
    "switch": {
        "": '<div role="switch" tabindex="0" aria-checked="false">News by mail</div>',
        "aria-required-attr": '<div role="switch" tabindex="0">News by mail</div>',
        "aria-roles": '<div role="swich" tabindex="0">News by mail</div>',
        "aria-valid-attr-value": '<div role="switch" tabindex="0" aria-checked="off">News by mail</div>',
    },
    "tabs": {
        "": '<div role="tablist"><button role="tab" aria-selected="true">{a}</button></div>',
        "aria-required-parent": '<div class="tabs"><button role="tab" aria-selected="true">{a}</button></div>',
        "aria-required-children": '<div role="tablist"><a href="/{f}">{a}</a></div>',
    },
    "more": {
        "": '<div class="more"><a href="/{f}">More on {a}</a></div>',
        "aria-hidden-focus": '<div class="more" aria-hidden="true"><a href="/{f}">More on {a}</a></div>',
        "nested-interactive": '<div role="button" tabindex="0">More <a href="/{f}">{a}</a></div>',
    },
    "chart": {
        "": '<svg role="img" aria-label="{a} by month" width="80" height="20"></svg>',
        "svg-img-alt": '<svg role="img" width="80" height="20"></svg>',
    },
    "stars": {
        "": '<span role="img" aria-label="{n} of 5 stars">*****</span>',
        "role-img-alt": '<span role="img">*****</span>',
    },
    "stock": {
        "": '<div role="progressbar" aria-label="Stock" aria-valuenow="{n}">{n}</div>',
        "aria-progressbar-name": '<div role="progressbar" aria-valuenow="{n}">{n}</div>',
    },
    "quote": {
        "": '<p lang="fr">Bon appetit</p>',
        "valid-lang": '<p lang="francais">Bon appetit</p>',
    },
}  # fmt: skip
_PAGES, _TWIN_EVERY = 16, 3  # of a site, and after how many a right twin stands
_AREA_OF = {rule: area for area, rules in AREAS.items() for rule in rules}


class Made(msgspec.Struct, frozen=True):
    """A page and the rules that it was made to break."""

    page: Page
    planted: tuple[str, ...]


def area(rules: tuple[str, ...]) -> str:
    """What the rules are about: the first area, in the order of AREAS, of any; `clean` where there are no rules."""
    named = {_AREA_OF.get(rule, "other") for rule in rules}
    return next((a for a in (*AREAS, "other") if a in named), CLEAN)


@lru_cache(maxsize=1)
def pages() -> tuple[Made, ...]:
    """All pages, sorted by id."""
    found: dict[str, Made] = {}
    for site, things in _SITES.items():
        rng = random.Random(f"pages of {site}")
        for n in range(_PAGES):
            seed = rng.random()
            for right in (False, True)[: 1 + (n % _TWIN_EVERY == 0)]:
                made = _page(site, things.split(", "), random.Random(seed), right)
                found.setdefault(made.page.id, made)
    return tuple(sorted(found.values(), key=lambda m: m.page.id))


def _page(site: str, things: list[str], rng: random.Random, right: bool) -> Made:
    a, b = rng.sample(things, 2)
    words = {"a": a, "b": b, "f": a.replace(" ", "-").lower(), "g": b.replace(" ", "-").lower()}
    words |= {"t": rng.choice(_HOURS), "n": str(rng.randrange(2, 5)), "title": f"{site.capitalize()}: {a}"}
    names = rng.sample(list(PARTS), rng.choice((3, 4)))
    spots: list[dict[str, str]] = [_HEADS, _TITLES, _VIEWS, *(PARTS[name] for name in names)]
    # The head counts for one spot, or every second page would have no language.
    wrong = set(rng.sample(range(2, len(spots)), rng.choice((1, 1, 2, 2, 3))))
    if 2 in wrong:
        wrong = wrong - {2} | {rng.choice((0, 1, 2))}
    chosen = [rng.choice([rule for rule in spot if rule]) if n in wrong else "" for n, spot in enumerate(spots)]
    if right:
        chosen = [""] * len(spots)
    lang, title, view, *body = [spot[rule].format(**words) for spot, rule in zip(spots, chosen, strict=True)]
    heading = f"<h1>{site.capitalize()}</h1>"
    main = f"<main>{heading}{''.join(body)}</main>"
    html = f"<!doctype html><html{lang}><head>{title}{view}</head><body>{main}</body></html>"
    # The name says nothing of what is wrong.
    name = hashlib.sha256(html.encode()).hexdigest()[:6]
    return Made(Page(f"{site}/{name}", html), tuple(sorted({rule for rule in chosen if rule})))
