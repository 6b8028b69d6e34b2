"""Blind reviews: how a sample is drawn and dealt, agreement against published examples, accuracy, calibration."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawl.errors import LakeError, NotAllowed, NotEnoughData
from pawl.lake.records import Interaction
from pawl.review import agreement
from pawl.review import verdicts as review
from pawl.review.agreement import Stratum, counted
from pawl.review.calibration import Calibration, NotCalibrated, calibrate
from pawl.review.calibration_sklearn import fit
from pawl.review.files import Reviews
from pawl.review.readable import compact, corrected, is_json, laid_out, readable
from pawl.review.sample import (
    Rating,
    Sample,
    Verdict,
    allocate,
    band,
    coarsened,
    draw,
    next_item,
    progress,
    rater_name,
)
from pawl.scrubbing.scrub import Scrubbed


class Upper:
    """A scrubber whose work can be seen."""

    def scrub(self, texts: Sequence[str]) -> Scrubbed:
        return Scrubbed(tuple(t.upper() for t in texts), {"LETTER": 1})


def call(n: int, **more: object) -> Interaction:
    given = {
        "id": f"i{n}", "at": float(n), "agent": "a", "session": f"s{n}", "key_id": "k", "arm": f"arm{n % 3}",
        "arm_kind": "local", "messages": [{"role": "user", "content": f"question {n}"}], "completion": f"answer {n}",
    }  # fmt: skip
    return Interaction(**{**given, **more})  # type: ignore[arg-type]


def sample(calls: int = 200, items: int = 30, seed: int = 1, raters: int = 2, **quality: float) -> Sample:
    made = [call(n) for n in range(calls)]
    known = {i.id: (n % 10) / 9 for n, i in enumerate(made) if n % 4} | quality
    return draw(
        "a", made, known, Upper(), lambda i: f"class{int(i.id[1:]) % 2}", items=items, seed=seed, now=5.0, raters=raters
    )


def rating(item: str, rater: str, verdict: Verdict = "right", **more: object) -> Rating:
    return Rating(item=item, rater=rater, verdict=verdict, at=1.0, **more)  # type: ignore[arg-type]


# -- drawing


def test_the_same_seed_draws_the_same_review_and_another_seed_another() -> None:
    assert sample() == sample()
    assert sample().sheet.id != sample(seed=2).sheet.id
    assert {i.id for i in sample().sheet.items} & {i.id for i in sample(seed=2).sheet.items} == set()


def test_what_raters_see_is_scrubbed_and_blind() -> None:
    drawn = sample()
    assert all(i.answer.startswith("ANSWER ") and i.prompt[0].text.startswith("QUESTION ") for i in drawn.sheet.items)
    assert drawn.hidden.scrubbed == {"LETTER": 30}
    assert set(msgspec.to_builtins(drawn.sheet)) == {"v", "id", "agent", "at", "raters", "question", "items"}
    assert set(msgspec.to_builtins(drawn.sheet.items[0])) == {"id", "prompt", "answer"}
    for fact in drawn.hidden.facts:
        assert fact.interaction not in json.dumps(msgspec.to_builtins(drawn.sheet)).lower().split('"')


def test_only_answers_are_drawn() -> None:
    tool = {"id": "t", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    calls = [
        call(0),
        call(1, role="shadow"),
        call(2, completion="", tool_calls=[tool]),
        call(3, role="draft"),
        call(4, status=500),
        call(5, broken=True),
        call(6, completion=""),
        call(7, messages=[]),
        call(8, endpoint="embeddings"),
    ]
    drawn = draw("a", calls, {}, Upper(), lambda i: "", items=20, seed=1, now=0.0)
    assert {f.interaction for f in drawn.hidden.facts} == {"i0", "i1", "i2"}
    assert any('"NAME":"LOOK"' in i.answer for i in drawn.sheet.items)
    with pytest.raises(NotEnoughData):
        draw("a", calls[3:], {}, Upper(), lambda i: "", items=20, seed=1, now=0.0)


cells = st.lists(
    st.tuples(st.sampled_from("abcde"), st.sampled_from("uvwxyz"), st.sampled_from("123456")), min_size=1, max_size=300
)


@given(cells, st.integers(10, 80))
def test_strata_cover_everything_once_and_each_gives_something(found: list[tuple[str, str, str]], items: int) -> None:
    strata = coarsened(found, items)
    assert len(strata) == len(found)
    bands = {s: {c[0] for c, of in zip(found, strata, strict=True) if of == s} for s in set(strata)}
    assert all(len(b) == 1 for b in bands.values()), "never merged over bands"
    population = {" / ".join(s): n for s, n in Counter(strata).items()}
    assert len(population) <= items
    taken = allocate(population, items)
    assert sum(taken.values()) == min(items, len(found))
    assert all(1 <= taken[s] <= population[s] for s in population)


def test_small_strata_get_more_than_their_share_and_large_ones_the_most() -> None:
    taken = allocate({"large": 9000, "small": 90, "tiny": 1}, 50)
    assert taken["tiny"] == 1 and 4 <= taken["small"] <= 6 and taken["large"] > 40  # sqrt: 10 to 1
    assert band(None) != band(0.0) and band(0.49) != band(0.5) and band(0.98) != band(0.99) == band(1.0)


# -- dealing


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 5), st.randoms(use_true_random=False))
def test_dealing_gives_each_item_its_raters_and_nobody_an_item_twice(
    items: int, needed: int, people: int, rng: random.Random
) -> None:
    drawn = sample(calls=items, items=max(10, items), raters=needed)
    names = [f"r{n}" for n in range(people)]
    ratings: list[Rating] = []
    while names:
        name = rng.choice(names)
        item = next_item(drawn.sheet, ratings, name)
        far = progress(drawn.sheet, ratings, name)
        assert (item is None) == (far.left == 0)
        if item is None:
            names.remove(name)
        else:
            ratings.append(rating(item.id, name))
    given_to = Counter((r.item, r.rater) for r in ratings)
    assert max(given_to.values()) == 1
    assert Counter(r.item for r in ratings) == {i.id: min(needed, people) for i in drawn.sheet.items}


def test_what_somebody_else_holds_is_dealt_to_others_only_while_there_is_room() -> None:
    drawn = sample(calls=1, items=10, raters=1)
    only = drawn.sheet.items[0].id
    assert next_item(drawn.sheet, [], "ben", [(only, "ann")]) is None
    assert next_item(drawn.sheet, [], "ann", [(only, "ann")]) is not None, "one's own"


def test_raters_names() -> None:
    assert rater_name(" Ann.B ") == "ann.b"
    for bad in ("", "a b", "../x", "ä", "-x", "x" * 41, "review:x"):
        with pytest.raises(NotAllowed):
            rater_name(bad)


# -- agreement, against published examples


def test_kappa_is_that_of_cohen_1960_table_2() -> None:
    """Cohen 1960, Educational and Psychological Measurement 20, table 2(b): 200 units, kappa .492."""
    table = ((88, 14, 18), (10, 40, 10), (2, 6, 12))
    rows, n = [], 0
    for i, row in enumerate(table):
        for j, times in enumerate(row):
            for _ in range(times):
                rows += [(str(n), "a", str(i)), (str(n), "b", str(j))]
                n += 1
    units = counted(rows)
    assert agreement.kappa(units) == pytest.approx(0.492, abs=5e-4)
    assert agreement.raw(units) == pytest.approx(0.70)


def matrix(*raters: str) -> Counter[agreement.Unit]:
    """Ratings as Krippendorff prints them: a line a rater, a character a unit, a dot where nothing was said."""
    return counted(
        (str(unit), f"r{n}", c) for n, line in enumerate(raters) for unit, c in enumerate(line.split()) if c != "."
    )


def test_alpha_is_that_of_krippendorff_2011() -> None:
    """Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", sections A (0.095), B (0.692) and C (0.743)."""
    assert agreement.alpha(matrix("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0")) == pytest.approx(0.095, abs=5e-4)
    nominal = matrix("a a b b d c c c e d d a", "b a b b b c c c e d d d")
    assert agreement.alpha(nominal) == pytest.approx(0.692, abs=5e-4)
    missing = matrix(
        "1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 ."
    )
    assert agreement.alpha(missing) == pytest.approx(0.743, abs=5e-4)


def test_agreement_that_is_not_defined_is_none() -> None:
    same = matrix("1 1 1", "1 1 1")
    assert agreement.kappa(same) is None and agreement.alpha(same) is None and agreement.raw(same) == 1
    assert agreement.kappa(matrix("1 0 1", "1 1 0", "0 0 0")) is None, "three raters"
    alone = matrix("1 0 1")
    assert agreement.alpha(alone) is None and agreement.raw(alone) is None


two_raters = st.lists(st.tuples(st.sampled_from("01."), st.sampled_from("01.")), min_size=2, max_size=40)


@given(two_raters, st.permutations(range(40)))
def test_agreement_does_not_depend_on_order_or_on_names(rows: list[tuple[str, str]], order: list[int]) -> None:
    units = matrix(" ".join(a for a, _ in rows), " ".join(b for _, b in rows))
    moved = [rows[n] for n in order if n < len(rows)]
    flip = {"0": "1", "1": "0", ".": "."}
    other = matrix(" ".join(flip[b] for _, b in moved), " ".join(flip[a] for a, _ in moved))
    for measure in (agreement.raw, agreement.kappa, agreement.alpha):
        mine, theirs = measure(units), measure(other)
        assert (mine is None) == (theirs is None) or measure is agreement.kappa
        if mine is not None and theirs is not None:
            assert mine == pytest.approx(theirs) and mine <= 1 + 1e-12


def test_the_bootstrap_interval_covers_about_as_often_as_it_says() -> None:
    rng, inside = random.Random(4), 0
    # Two raters who tell the truth (half of it "1") with 0.9: kappa is (2 * 0.9 - 1)^2 = 0.64.
    for seed in range(60):
        truth = [rng.random() < 0.5 for _ in range(80)]
        lines = [" ".join(str(int(t != (rng.random() < 0.1))) for t in truth) for _ in range(2)]
        e = agreement.with_interval(agreement.kappa, matrix(*lines), seed=seed)
        assert e.lower is not None and e.upper is not None and e.value is not None and e.lower <= e.value <= e.upper
        inside += e.lower <= 0.64 <= e.upper
    assert 60 * 0.95 - 3 * math.sqrt(60 * 0.95 * 0.05) <= inside


# -- intervals of a share


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (10, 10), (7, 10), (1, 300), (45, 50)])
def test_clopper_pearson_is_scipys(hits: int, n: int) -> None:
    from scipy.stats import binomtest

    theirs = binomtest(hits, n).proportion_ci(0.95, "exact")
    assert agreement.clopper_pearson(hits, n) == pytest.approx((theirs.low, theirs.high))


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.integers(1, 9999))
def test_one_stratum_is_a_simple_sample(counts: tuple[int, int], size: int) -> None:
    hits, n = counts
    e = agreement.weighted([Stratum(size, n, hits)])
    assert e.value == pytest.approx(hits / n)
    assert (e.lower, e.upper) == pytest.approx(agreement.clopper_pearson(hits, n))


def test_strata_weigh_what_they_stand_for() -> None:
    e = agreement.weighted([Stratum(900, 10, 10), Stratum(100, 10, 0), Stratum(5, 0, 0)])
    assert e.value == pytest.approx(0.9) and e.lower is not None and e.upper is not None and e.lower < 0.9 < e.upper
    assert agreement.weighted([]) == (None, 0.0, 1.0)


@pytest.mark.parametrize(
    ("sizes", "shares"),
    [
        ((300, 100, 100, 2000, 500), (0.95,) * 5),
        ((300, 100, 100, 2000, 500), (0.1, 0.4, 0.7, 0.97, 0.9)),
        ((300, 100, 100, 2000, 500), (0.3, 0.5, 0.9, 0.99, 0.97)),
        ((10_000, *(100,) * 10), (0.5, *(0.9,) * 10)),  # half of the items tell nearly all
    ],
)
def test_the_weighted_interval_covers_the_populations_share(sizes: tuple[int, ...], shares: tuple[float, ...]) -> None:
    taken = allocate({str(n): size for n, size in enumerate(sizes)}, 50)
    true = sum(s * p for s, p in zip(sizes, shares, strict=True)) / sum(sizes)
    rng, inside = random.Random(2), 0
    for _ in range(400):
        strata = [
            Stratum(size, k := taken[str(n)], sum(rng.random() < shares[n] for _ in range(k)))
            for n, size in enumerate(sizes)
        ]
        e = agreement.weighted(strata)
        assert e.lower is not None and e.upper is not None
        inside += e.lower <= true <= e.upper
    assert inside >= 400 * 0.95 - 3 * math.sqrt(400 * 0.95 * 0.05), "three standard errors of 400 draws below 95 %"


# -- accuracy


def rated(drawn: Sample, said: dict[str, str]) -> list[Rating]:
    """Verdicts of ann, ben, ...: one character each, r, w or c."""
    words: dict[str, Verdict] = {"r": "right", "w": "wrong", "c": "cannot_say"}
    return [
        rating(item, rater, words[c])
        for item, verdicts in said.items()
        for rater, c in zip(("ann", "ben", "cleo"), verdicts, strict=False)
    ]


def test_accuracy_counts_majorities_and_keeps_ties_and_the_unrated_apart() -> None:
    drawn = sample(calls=7, items=10)
    ids = [i.id for i in drawn.sheet.items]
    said = dict(zip(ids, ("rr", "rc", "rw", "cc", "ww", "r", ""), strict=True))
    found = review.accuracy(drawn, rated(drawn, said))
    assert (found.right, found.wrong, found.undecided, found.waiting, found.raters) == (2, 1, 2, 2, 2)
    assert 0 <= found.lower < found.estimate < found.upper <= 1
    assert [i for i, _ in review.disagreements(drawn.sheet, rated(drawn, said))] == [ids[2]]
    nothing = review.accuracy(drawn, [])
    assert math.isnan(nothing.estimate) and (nothing.lower, nothing.upper, nothing.waiting) == (0.0, 1.0, 7)
    three = review.accuracy(drawn, rated(drawn, {ids[0]: "rrw", ids[1]: "wwr"}))
    assert (three.right, three.wrong, three.kappa) == (1, 1, None) and three.alpha is not None


def test_the_estimate_is_of_the_population_not_of_the_sample() -> None:
    """Nine in ten answers are of the best band and right; the others, half of the sample, are wrong."""
    calls = [call(n, arm="one") for n in range(1000)]
    quality = {i.id: 1.0 if n % 10 else 0.0 for n, i in enumerate(calls)}
    drawn = draw("a", calls, quality, Upper(), lambda i: "", items=40, seed=1, now=0.0)
    facts = {f.item: f for f in drawn.hidden.facts}
    ratings = [rating(i, who, "right" if f.quality else "wrong") for i, f in facts.items() for who in ("ann", "ben")]
    found = review.accuracy(drawn, ratings)
    assert found.right / 40 < 0.8 and found.estimate == pytest.approx(0.9)
    rows = {r.name: r for r in review.groups(drawn, ratings, "band")}
    assert list(rows) == ["quality below 0.5", "quality 0.99 and more"]
    assert rows["quality below 0.5"].share.value == 0 and rows["quality below 0.5"].population == 100
    assert rows["quality 0.99 and more"].share.value == 1
    (arm,) = review.groups(drawn, ratings, "arm")
    assert arm.share.value == pytest.approx(0.9) and arm.population == 1000


def test_the_latest_accuracy_is_of_the_newest_complete_review(tmp_path: Path) -> None:
    reviews = Reviews(tmp_path)
    assert review.latest_accuracy(tmp_path, "a") is None
    old, new = sample(calls=4, items=10), sample(calls=5, items=10, seed=9)
    new = Sample(msgspec.structs.replace(new.sheet, at=6.0), new.hidden)
    for drawn in (old, new):
        assert reviews.add(drawn) and not reviews.add(drawn)
    assert review.latest_accuracy(tmp_path, "a") is None, "nobody has rated"

    def say(drawn: Sample, count: int) -> str:
        for item in drawn.sheet.items[:count]:
            for who in ("ann", "ben"):
                reviews.rate("a", drawn.sheet.id, rating(item.id, who))
        found = review.latest_accuracy(tmp_path, "a")
        assert found is not None
        return found.review

    assert say(new, 1) == new.sheet.id
    assert say(old, 4) == old.sheet.id, "the other one has just begun"
    assert say(new, 5) == new.sheet.id
    assert review.latest_accuracy(tmp_path, "a-b") is None and review.latest_accuracy(tmp_path, "*") is None


# -- files


def test_ratings_are_kept_once_and_a_damaged_line_is_not_passed_over(tmp_path: Path) -> None:
    reviews, drawn = Reviews(tmp_path), sample(calls=3, items=10)
    reviews.add(drawn)
    agent, identity, item = "a", drawn.sheet.id, drawn.sheet.items[0].id
    reviews.rate(agent, identity, rating(item, "ann", "wrong", correction="better"))
    reviews.rate(agent, identity, rating(item, "ann", "wrong", correction="better"))
    with pytest.raises(NotAllowed):
        reviews.rate(agent, identity, rating(item, "ann", "right"))
    with pytest.raises(NotAllowed):
        reviews.rate(agent, identity, rating("0" * 12, "ann"))
    assert len(reviews.ratings(agent, identity)) == 1
    path = tmp_path / f"a-{identity}.ratings.jsonl"
    with path.open("ab") as out:
        out.write(b'{"item": "to')
    assert len(reviews.ratings(agent, identity)) == 1
    reviews.rate(agent, identity, rating(item, "ben"))
    assert [r.rater for r in reviews.ratings(agent, identity)] == ["ann", "ben"]
    assert path.stat().st_mode & 0o077 == 0
    path.write_bytes(b"garbage\n" + path.read_bytes())
    with pytest.raises(LakeError, match="line 1 "):
        reviews.ratings(agent, identity)


def test_feedback_for_the_lake_is_the_same_each_time(tmp_path: Path) -> None:
    drawn = sample(calls=3, items=10)
    a, b, c = (i.id for i in drawn.sheet.items)
    ratings = [
        rating(a, "ann", "wrong", correction="better", comment="no"),
        rating(b, "ann", "right"),
        rating(c, "ann", "cannot_say"),
        rating("f" * 12, "ann"),
    ]
    made = review.feedback(drawn, ratings, "key")
    about = {f.item: f.interaction for f in drawn.hidden.facts}
    assert [(f.kind, f.score, f.interaction) for f in made] == [
        ("rating", 0.0, about[a]),
        ("correction", None, about[a]),
        ("rating", 1.0, about[b]),
    ]
    assert made[0].detail == {"review": drawn.sheet.id, "comment": "no"} and made[0].source == "review:ann"
    assert made[1].detail == {"review": drawn.sheet.id, "completion": "better"}
    assert review.feedback(drawn, ratings, "another key")[0].id == made[0].id
    assert len({f.id for f in made}) == 3


# -- calibration


def made_pairs(n: int, bend: float, seed: int = 1) -> list[review.Pair]:
    rng = random.Random(seed)
    return [review.Pair(q := rng.random(), rng.random() < q**bend, 1.0) for _ in range(n)]


def test_calibration_finds_that_a_score_is_too_high_and_leaves_a_good_one_alone() -> None:
    bent = fit("a", "r", made_pairs(400, 3.0))
    assert isinstance(bent, Calibration) and bent.helps and bent.brier_after < bent.brier_before - 0.03
    assert calibrate(bent.knots, 0.5) == pytest.approx(0.125, abs=0.1)
    honest = fit("a", "r", made_pairs(400, 1.0))
    assert isinstance(honest, Calibration) and abs(honest.brier_after - honest.brier_before) < 0.02
    assert all(abs(calibrate(honest.knots, q / 10) - q / 10) < 0.15 for q in range(1, 10))


def test_too_few_pairs_are_refused_by_a_value_and_all_alike_is_no_error() -> None:
    assert isinstance(fit("a", "r", made_pairs(29, 1.0)), NotCalibrated)
    alike = fit("a", "r", [review.Pair(1.0, True, 2.0)] * 30)
    assert isinstance(alike, Calibration) and calibrate(alike.knots, 0.3) == 1.0
    assert alike.folds == 30 and not alike.helps, "a score that is right already"


def test_the_score_after_is_of_pairs_left_out() -> None:
    """Where a score says nothing, a line fitted to chance must not look as if it helped."""
    rng, after = random.Random(3), []
    for _ in range(20):
        found = fit("a", "r", [review.Pair(rng.random(), rng.random() < 0.5, 1.0) for _ in range(40)])
        assert isinstance(found, Calibration)
        after.append(found.brier_after)
    assert sum(after) / 20 > 0.25, "a coin's own"


def test_a_pair_counts_by_what_it_stands_for() -> None:
    pairs = [review.Pair(0.5, n % 2 == 0, 9.0 if n % 2 == 0 else 1.0) for n in range(40)]
    found = fit("a", "r", pairs)
    assert isinstance(found, Calibration) and calibrate(found.knots, 0.5) == pytest.approx(0.9)


knots = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=9, unique_by=lambda k: k[0])


@given(knots, st.floats(-1, 2), st.floats(-1, 2))
def test_calibrated_scores_keep_their_order_and_stay_within(
    given_knots: list[tuple[float, float]], a: float, b: float
) -> None:
    xs, ys = sorted(x for x, _ in given_knots), sorted(y for _, y in given_knots)
    line = list(zip(xs, ys, strict=True))
    low, high = sorted((a, b))
    assert ys[0] <= calibrate(line, low) <= calibrate(line, high) <= ys[-1]
    assert all(calibrate(line, x) == pytest.approx(y) for x, y in line)


def test_pairs_are_of_decided_items_with_a_known_score() -> None:
    drawn = sample(calls=40, items=20)
    facts = {f.item: f for f in drawn.hidden.facts}
    ratings = [rating(i, who, "right") for i in facts for who in ("ann", "ben")]
    found = review.pairs(drawn, ratings)
    assert len(found) == sum(f.quality is not None for f in facts.values()) < 20
    assert sum(p.weight for p in found) < 40 and review.pairs(drawn, ratings[:1]) == []
    all_known = sample(calls=40, items=20, **{f"i{n}": 0.5 for n in range(0, 40, 4)})
    ratings = [rating(i.id, who) for i in all_known.sheet.items for who in ("ann", "ben")]
    assert sum(p.weight for p in review.pairs(all_known, ratings)) == pytest.approx(40), "all answers, by 20 of them"


# -- text

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(json_values, max_size=4) | st.dictionaries(st.text(max_size=6), json_values, max_size=4), st.booleans())
def test_laying_json_out_changes_blanks_only(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert json.loads(laid_out(text)) == value and compact(laid_out(text)) == compact(text)
    assert compact(laid_out(text)) == json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":"))


def test_numbers_and_keys_stay_as_they_were_sent() -> None:
    assert laid_out('{"a":12345678901234567890,"a":1e999,"b":[],"c":{}}') == (
        '{\n  "a": 12345678901234567890,\n  "a": 1e999,\n  "b": [],\n  "c": {}\n}'
    )
    assert readable('POST / x\n{"a":1}') == 'POST / x\n{\n  "a": 1\n}'
    assert readable("a\x1b[2J\u202eb\ud800") == "a\ufffd001B[2J\ufffd202Eb\ufffdD800"
    assert not is_json("[" * 100_000) and not is_json('"text"') and not is_json("{broken")


def test_a_correction_has_the_form_of_the_answer() -> None:
    assert corrected('{"a":1}', '{\n "a": 2\n}') == '{"a":2}'
    assert corrected('{"a": 1}', '{\n "a":2\n}') == '{"a": 2}'
    assert corrected('{\n"a":1}', '{\n "a": 2\n}') == '{\n "a": 2\n}'
    assert corrected('{"a":1}', '{ "a": 1 }') is None and corrected("x", "x") is None and corrected("x", " ") is None
    assert corrected("x", "y") == "y"
    with pytest.raises(ValueError, match="no longer JSON"):
        corrected('{"a":1}', '{"a":}')
