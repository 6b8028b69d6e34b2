"""Continued pre-training: which of a team's own files are read, and how they become sequences without padding.

Method: the next token of plain text, as in the base model's own training (Gururangan et al., "Don't Stop Pretraining",
arXiv 2004.10964, section 3: adaptation to the domain), on the adapter that the examples train afterwards.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from pawl.errors import ConfigError, NotEnoughData
from pawl.fleet.training import PretrainSpec
from pawl.scrubbing.scrub import Scrubbed

MOST_BYTES = 1_000_000
HELD_OUT_EVERY = 20

# The texts of one document a time, in order.
Scrub = Callable[[Iterable[Sequence[str]]], Iterator[Scrubbed]]


class Gathered(msgspec.Struct, frozen=True, kw_only=True):
    """A team's texts, scrubbed, in the order of their paths."""

    documents: tuple[str, ...]  # to learn from
    held_out: tuple[str, ...] = ()  # to measure perplexity on, never learnt
    paths: tuple[str, ...] = ()  # of `documents`, relative to the root
    skipped: dict[str, int] = {}  # why -> files
    scrubbed: dict[str, int] = {}  # kind of personal data or secret -> occurrences replaced

    @property
    def note(self) -> str:
        """One line for a reader of the run."""
        parts = [f"{len(self.documents)} documents, {len(self.held_out)} held out"]
        parts += [f"{n} {why}" for why, n in sorted(self.skipped.items())]
        if self.scrubbed:
            parts.append("scrubbed: " + ", ".join(f"{n} {kind}" for kind, n in sorted(self.scrubbed.items())))
        return "; ".join(parts)


def gather(spec: PretrainSpec, root: Path, scrub: Scrub | None = None) -> Gathered:
    """The documents that `spec.files` names under `root`, each file one, without personal data and secrets.

    Left out and counted: files over 1 MB, files that are not UTF-8 text, empty ones, exact copies of another, hidden
    ones (`.env`, `.git/...`), and those that a link leads to from outside `root`. Every 20th document is held out; of
    fewer than 20 none is. The order is that of the paths, whatever the file system says.

    `scrub` replaces personal data and secrets; by default by Presidio's recognizers with names of persons, which takes
    seconds to open. Names are best effort: what must not be learnt should not be named by the patterns.

    Raises ConfigError (a pattern that leaves the folder), NotEnoughData (no document found), ResourceError (scrubbing
    ran out of memory).
    """
    skipped: Counter[str] = Counter()
    found: dict[str, str] = {}
    seen: set[bytes] = set()
    for path in _files(spec.files, root):
        text, why = _read(path, root)
        digest = hashlib.sha256((text or "").encode()).digest()
        if text is not None and digest in seen:
            text, why = None, "copies of another file"
        if text is None:
            skipped[why] += 1
            continue
        seen.add(digest)
        found[path.relative_to(root).as_posix()] = text
    if not found:
        why = "; ".join(f"{n} {why}" for why, n in sorted(skipped.items())) or "no file matches"
        raise NotEnoughData(
            f"training.pretrain.files found no text in {root} ({', '.join(spec.files)}: {why}); correct the patterns, "
            "or leave pretrain out"
        )
    clean = list((scrub or _scrubber)([text] for text in found.values()))
    kinds: Counter[str] = Counter()
    for c in clean:
        kinds.update(c.found)
    texts = dict(zip(found, (c.texts[0] for c in clean), strict=True))
    held = {p for n, p in enumerate(texts, start=1) if n % HELD_OUT_EVERY == 0}
    return Gathered(
        documents=tuple(t for p, t in texts.items() if p not in held),
        held_out=tuple(t for p, t in texts.items() if p in held),
        paths=tuple(p for p in texts if p not in held),
        skipped=dict(skipped),
        scrubbed=dict(kinds),
    )


def digest(spec: PretrainSpec, root: Path) -> str:
    """sha256 over names and texts of the files that are read, before they are scrubbed: whether they changed."""
    found = hashlib.sha256()
    for path in _files(spec.files, root):
        text, _ = _read(path, root)
        if text is not None:
            content = hashlib.sha256(text.encode()).hexdigest()
            found.update(f"{path.relative_to(root).as_posix()}\0{content}\0".encode())
    return found.hexdigest()


def pack(token_lists: Iterable[Sequence[int]], max_tokens: int, end_id: int) -> list[list[int]]:
    """Sequences of `max_tokens` tokens, filled without padding; the last may be shorter (at least 2 tokens).

    The documents stand one after the other, each followed by `end_id`; where one does not fit into a sequence it goes
    on in the next. Every token occurs once, in order; only a single token that would be left over at the end is
    dropped, since there is nothing to predict it from.

    Attention crosses from one document to the next inside a sequence, as in GPT-3's training (Brown et al., arXiv
    2005.14165, section B: the end token tells that what stands before it is unrelated). Masking it apart needs kernels
    for sequences of varying length, which a CPU has not.
    """
    stream: list[int] = []
    for tokens in token_lists:
        if tokens:
            stream += [*tokens, end_id]
    found = [stream[at : at + max_tokens] for at in range(0, len(stream), max_tokens)]
    return found[:-1] if found and len(found[-1]) < 2 else found


def _files(patterns: Sequence[str], root: Path) -> list[Path]:
    wrong = [p for p in patterns if Path(p).is_absolute() or ".." in Path(p).parts or not p.strip()]
    if wrong:
        problems = [f"training.pretrain.files: {p!r} must name files inside the fleet's folder" for p in wrong]
        raise ConfigError(str(root), problems)
    return sorted({p for pattern in patterns for p in root.glob(pattern) if p.is_file()})


def _read(path: Path, root: Path) -> tuple[str | None, str]:
    """(text, "") or (None, why it is left out)."""
    if any(part.startswith(".") for part in path.relative_to(root).parts):
        return None, "hidden files"
    if not path.resolve().is_relative_to(root.resolve()):
        return None, "links out of the folder"
    try:
        if path.stat().st_size > MOST_BYTES:
            return None, "files over 1 MB"
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        return None, "files that are not UTF-8 text"
    except OSError:
        return None, "unreadable files"
    if "\0" in text:
        return None, "files that are not UTF-8 text"
    text = text.replace("\r\n", "\n").strip()
    return (text, "") if text else (None, "empty files")


def _scrubber(texts: Iterable[Sequence[str]]) -> Iterator[Scrubbed]:
    from pawl.scrubbing.scrubber_presidio import scrub_all

    return scrub_all(texts, names=True)
