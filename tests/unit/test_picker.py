"""The classifier behind `auto`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pawl.errors import ConfigError, NotEnoughData
from pawl.fleet.chain import AutoSpec
from pawl.gateway.auto import Picked, chosen, words
from pawl.learning.picker_sklearn import FilePicker, assess, load, pick, save, train

TEXTS = {
    "diffs": [f"--- a/file{n}.py\n+++ b/file{n}.py\n-    return value{n}\n+    return other{n}" for n in range(30)],
    "pages": [f"<html><body><img src='{n}.png'><p>Welcome number {n}</p></body></html>" for n in range(30)],
}
FOREIGN = ["What is the capital of France?", "Sing me a sea shanty about whales.", "17 apples cost how much?"]


def test_it_knows_what_it_learnt_and_is_unsure_of_the_rest() -> None:
    learnt = train({name: some[:20] for name, some in TEXTS.items()})
    found = assess(learnt, {**{name: some[20:] for name, some in TEXTS.items()}, "": FOREIGN}, 0.7)
    assert found.right == 1.0 and found.wrong == 0.0 and found.unsure == pytest.approx(3 / 23)
    assert found.by_agent == {"diffs": 1.0, "pages": 1.0, "": 1.0}


def test_what_is_kept_is_what_was_learnt(tmp_path: Path) -> None:
    learnt, path = train(TEXTS), tmp_path / "home" / "auto.npz"
    save(learnt, path)
    again = load(path)
    assert again.names == ("diffs", "pages") and np.array_equal(again.coef, learnt.coef)
    picker = FilePicker(path)
    assert picker.pick(TEXTS["pages"][0]) == pick(learnt, TEXTS["pages"][0])
    save(train({"cards": TEXTS["pages"], "diffs": TEXTS["diffs"]}), path)
    path.touch()
    assert picker.pick(TEXTS["pages"][0]).agent == "cards", "a newer file is taken without a restart"


def test_files_that_are_no_classifier_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pawl auto train"):
        load(tmp_path / "auto.npz")
    for n, wrong in enumerate((b"", b"PK\x03\x04", b"\x80\x04K\x01.")):
        path = tmp_path / f"{n}.npz"
        path.write_bytes(wrong)
        with pytest.raises(ConfigError, match="pawl auto train"):
            load(path)
    np.savez(tmp_path / "pickled.npz", format=1, names=np.array([{"a": 1}], dtype=object), coef=1, intercept=1)
    with pytest.raises(ConfigError, match="pawl auto train"):
        load(tmp_path / "pickled.npz")
    np.savez(tmp_path / "other.npz", format=1, names=np.array(["a"]), coef=np.zeros((1, 3)), intercept=np.zeros(1))
    with pytest.raises(ConfigError, match="another format"):
        load(tmp_path / "other.npz")


def test_nothing_to_choose_between_is_told() -> None:
    with pytest.raises(NotEnoughData, match="one agent only"):
        train({"diffs": TEXTS["diffs"]})
    with pytest.raises(NotEnoughData, match="pages has fewer than 10"):
        train({**TEXTS, "pages": TEXTS["pages"][:5]})


def test_the_unsure_agent_is_asked_unless_another_surely_fits() -> None:
    spec = AutoSpec(unsure="any", min_confidence=0.8)
    assert chosen(Picked("a", 0.8), spec, ["a"]) == "a"
    assert chosen(Picked("a", 0.79), spec, ["a"]) == "any"
    assert chosen(Picked("a", 0.99), spec, ["b"]) == "any", "the key may not use it"
    assert chosen(None, spec, ["a"]) == "any"
    assert chosen(Picked("a", float("nan")), spec, ["a"]) == "any", "no number is not sure"


def test_the_words_of_every_family_are_read() -> None:
    assert words({"messages": [{"content": "a"}, {"content": [{"type": "text", "text": "b"}]}]}) == "a\nb"
    assert words({"prompt": "p"}) == "p" == words({"input": ["p"]}) == words({"input": [{"content": "p"}]})
    assert words({"instructions": "be brief", "input": "p"}) == "be brief\np"
    assert words({"messages": 3}) == "" == words({"input": 3})
