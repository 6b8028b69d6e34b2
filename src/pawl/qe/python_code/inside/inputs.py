"""Arguments to try a function with: of what type each wants to be is found by trying."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

VALUES: dict[str, list[Any]] = {
    "str": ["", "a", "ab", "abc", "Hello World", "  pad ", "a,b;c", "123", "-12.5", "x=1", "one\ntwo\n\n  three",
            "aabbaa", "/usr/lib/a.txt", "<a href='b'>&amp;</a>", "AbC_dE", "\tx y\r\n", "é", "a b", "//h/p?q#f", '"q"'],
    "int": [0, 1, 2, 3, -1, 4, 5, 7, 10, 12, 16, 100, -7, 255],
    "list of int": [[], [1], [1, 2, 3], [3, 1, 2], [2, 2, 1], [-1, 0, 5], [5, 4, 3, 2, 1], [0, 0], [1, 1, 2, 3, 5, 8]],
    "list of str": [[], ["a"], ["a", "b"], ["b", "a", "c"], ["-v", "x"], ["a", "a"], ["a=b", "c"], ["", " x"]],
    "float": [0.0, 1.0, -1.5, 2.5, 0.25, 10.0, -0.5, 3.0],
    "bytes": [b"", b"a", b"abc", b"\x00\xff", b"a=b\r\nc", b"  x ", b"\x01\x02\x03\x04"],
    "tuple": [(), (1,), (1, 2), (3, 2, 1), (1, 2, 3, 4), (0, 0), ("a", "b"), ("a", 1)],
    "bool": [True, False],
    "dict": [{}, {"a": 1}, {"a": 1, "b": 2}, {"b": 0, "a": 3, "c": 2}, {"x": "y"}],
    "list of lists": [[], [[]], [[1, 2], [3, 4]], [[1], [2, 3]], [[3, 2, 1], [6, 5, 4], [9, 8, 7]], [[0, 1], [1, 0]]],
    "set": [set(), {1}, {1, 2}, {2, 3, 4}],
    "list of pairs": [[], [(1, 2)], [("a", 1), ("b", 2)], [("b", 2), ("a", 1), ("a", 3)]],
    "None": [None],
}  # fmt: skip
_MOST_PROFILES = 170
_DRAWS = 3


class Parameter(NamedTuple):
    """One parameter of the function. `default` is the text of its default, "" where it must be given."""

    name: str
    default: str
    by_name: bool


Tried = Callable[[str], "tuple[bool, int, str]"]  # a call -> it went well, how many lines it reached, its result


def parameters(function: ast.FunctionDef) -> list[Parameter] | None:
    """The parameters that are tried; None where there are more than four that must be given, or none at all."""
    given = function.args
    places = [*given.posonlyargs, *given.args]
    defaults = [""] * (len(places) - len(given.defaults)) + [ast.unparse(d) for d in given.defaults]
    found = [Parameter(a.arg, d, False) for a, d in zip(places, defaults, strict=True)]
    found += [
        Parameter(a.arg, ast.unparse(d) if d else "", True)
        for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    must = [p for p in found if not p.default]
    return found if found and len(must) <= 4 else None


def harvested(tree: ast.AST) -> dict[str, list[Any]]:
    """Values that the code itself speaks of, with their neighbours: boundaries lie there."""
    ints: list[Any] = []
    texts: list[Any] = []
    raw: list[Any] = []
    for node in ast.walk(tree):
        value = node.value if isinstance(node, ast.Constant) else None
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= 1000:
            ints += [value - 1, value, value + 1]
        elif isinstance(value, str) and 0 < len(value) <= 12:
            texts += [value, f"a{value}", f"{value}b", f"a{value}b"]
        elif isinstance(value, bytes) and 0 < len(value) <= 12:
            raw += [value, b"a" + value + b"b"]
    return {"int": _distinct(ints)[:24], "str": _distinct(texts)[:40], "bytes": _distinct(raw)[:16]}


def calls(function: ast.FunctionDef, tree: ast.AST, seeds: Sequence[str], tried: Tried, most: int) -> Iterator[str]:
    """Up to `most` distinct calls of the function, as text; varied from `seeds` (calls too) where there are any."""
    rng = random.Random(function.name)
    given = [c for s in seeds if (c := _call_of(s, function.name)) is not None]
    made: dict[str, None] = dict.fromkeys(seeds)
    tries = 0
    source = _varied(given, harvested(tree), rng) if given else _searched(function, tree, tried, rng)
    if source is None:
        return
    yield from made
    while len(made) < most and tries < 4 * most:
        tries += 1
        text = next(source)
        if text not in made:
            made[text] = None
            yield text


def _searched(function: ast.FunctionDef, tree: ast.AST, tried: Tried, rng: random.Random) -> Iterator[str] | None:
    found = parameters(function)
    if found is None:
        return None
    spoken = harvested(tree)
    pools = {name: _distinct([*values, *spoken.get(name, [])]) for name, values in VALUES.items()}
    must, may = [p for p in found if not p.default], [p for p in found if p.default]
    profiles = _profiles(len(must), rng)
    scored = []
    for place, profile in enumerate(profiles):
        went, reached, results = 0, 0, set()
        for _ in range(_DRAWS):
            text = _text(function.name, must, [rng.choice(pools[t]) for t in profile])
            well, lines, result = tried(text)
            went, reached = went + well, max(reached, lines if well else 0)
            results.add(result if well else "")
        scored.append((-(went > _DRAWS // 2), -reached, -len(results), -went, place, profile))
    best = [profile for *_, profile in sorted(scored)[:3]]
    return _drawn(function.name, must, may, best, pools, rng)


def _profiles(count: int, rng: random.Random) -> list[tuple[str, ...]]:
    """Which types to give to so many parameters: all combinations where they are few, else all alike and a sample."""
    names = list(VALUES)
    every = len(names) ** count
    places = range(every) if every <= _MOST_PROFILES else rng.sample(range(every), _MOST_PROFILES - len(names))
    alike = [tuple([name] * count) for name in names]
    return [*alike, *(tuple(names[n // len(names) ** k % len(names)] for k in range(count)) for n in places)]


def _drawn(
    name: str,
    must: list[Parameter],
    may: list[Parameter],
    best: list[tuple[str, ...]],
    pools: dict[str, list[Any]],
    rng: random.Random,
) -> Iterator[str]:
    while True:
        profile = rng.choice([best[0], best[0], *best])
        values = [rng.choice(pools[t]) for t in profile]
        more = [p for p in may if rng.random() < 0.4]
        # Positions cannot be skipped, so what may be left out is given by name.
        yield _text(
            name, [*must, *(p._replace(by_name=True) for p in more)], [*values, *(_other(p, pools, rng) for p in more)]
        )


def _other(parameter: Parameter, pools: dict[str, list[Any]], rng: random.Random) -> Any:
    try:
        default = ast.literal_eval(parameter.default)
    except (ValueError, SyntaxError):
        return None
    if default is None:
        return rng.choice([*pools["str"][:6], *pools["int"][:6]])
    kind = next((k for k, v in VALUES.items() if type(v[-1]) is type(default)), "int")
    return rng.choice(pools[kind])


def _text(name: str, found: list[Parameter], values: list[Any]) -> str:
    shown = [f"{p.name}={v!r}" if p.by_name else repr(v) for p, v in zip(found, values, strict=True)]
    return f"{name}({', '.join(shown)})"


def _call_of(text: str, name: str) -> ast.Call | None:
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return None
    named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    return node if named and isinstance(node, ast.Call) else None


def _varied(seeds: list[ast.Call], spoken: dict[str, list[Any]], rng: random.Random) -> Iterator[str]:
    while True:
        call = ast.parse(ast.unparse(rng.choice(seeds)), mode="eval").body
        assert isinstance(call, ast.Call)
        for _ in range(rng.choice((1, 1, 2))):
            if call.args:
                place = rng.randrange(len(call.args))
                call.args[place] = _neighbour(call.args[place], spoken, rng)
        yield ast.unparse(call)


def _neighbour(node: ast.expr, spoken: dict[str, list[Any]], rng: random.Random) -> ast.expr:
    try:
        value = ast.literal_eval(node)
    except (ValueError, SyntaxError, TypeError):
        return node
    return ast.parse(repr(near(value, spoken, rng)), mode="eval").body


def near(value: Any, spoken: dict[str, list[Any]], rng: random.Random) -> Any:
    """Another value of the same type, not far from it."""
    if isinstance(value, bool) or value is None:
        return rng.choice([True, False])
    if isinstance(value, int):
        return rng.choice([value + 1, value - 1, 0, 1, -value, value * 2, value // 2, *spoken["int"][:9]])
    if isinstance(value, float):
        return rng.choice([value + 1, -value, 0.0, value / 2, 0.5])
    if isinstance(value, str):
        cut = rng.randrange(len(value) + 1)
        twisted = [
            value[:cut],
            value[cut:],
            value[::-1],
            value.swapcase(),
            value + value,
            value[:cut] + " " + value[cut:],
        ]
        return rng.choice([*twisted, "", "a", *rng.sample(spoken["str"], min(4, len(spoken["str"])))])
    if isinstance(value, list | tuple):
        items = list(value)
        choice = rng.randrange(6)
        if choice == 0 or not items:
            items = []
        elif choice == 1:
            items.pop(rng.randrange(len(items)))
        elif choice == 2:
            items.reverse()
        elif choice == 3:
            items.append(rng.choice(items))
        else:
            place = rng.randrange(len(items))
            items[place] = near(items[place], spoken, rng)
        return type(value)(items)
    if isinstance(value, dict):
        pairs = list(value.items())
        if pairs and rng.random() < 0.5:
            pairs.pop(rng.randrange(len(pairs)))
        return {k: near(v, spoken, rng) if rng.random() < 0.4 else v for k, v in pairs}
    if isinstance(value, set):
        return set(near(sorted(value, key=repr), spoken, rng))
    return value


def _distinct(values: list[Any]) -> list[Any]:
    return list({repr(v): v for v in values}.values())
