"""Data Docs: a page for every check and an index, built by Great Expectations, readable without a network."""

from __future__ import annotations

import datetime as dt
import fcntl
import html
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from pawl.errors import ResourceError
from pawl.validation.offline_pages import Run, index_page, outcome_of, run_page
from pawl.validation.report import Failure

_RESULTS = ".results"  # the library's own record of the checks, from which it makes the index
_BATCH = "window"
_SITE = "checks of the data"


class Docs(msgspec.Struct, frozen=True):
    """Where the pages are, and whose check this is."""

    folder: Path
    name: str  # the run's, e.g. the agent
    at: float  # epoch seconds
    keep: int = 100  # older checks go


def configuration(docs: Docs | None) -> Any:
    """A project that lives in memory, but for the results and the pages where there are any."""
    from great_expectations.data_context.types.base import DataContextConfig

    if docs:
        with _alone(docs.folder):
            pass  # what cannot be written is said before anything is checked
    return DataContextConfig(
        config_version=4.0,
        analytics_enabled=False,
        expectations_store_name="expectations",
        checkpoint_store_name="checkpoints",
        validation_results_store_name="results",
        stores={
            "expectations": {"class_name": "ExpectationsStore"},
            "checkpoints": {"class_name": "CheckpointStore"},
            "validation_definition_store": {"class_name": "ValidationDefinitionStore"},
            "results": {
                "class_name": "ValidationResultsStore",
                **({"store_backend": _files(docs.folder / _RESULTS)} if docs else {}),
            },
        },
        data_docs_sites={_SITE: site(docs)} if docs else {},
    )


def site(docs: Docs) -> dict[str, Any]:
    """The site's configuration."""
    return {
        "class_name": "SiteBuilder",
        "store_backend": _files(docs.folder),
        "show_how_to_buttons": False,
        "site_section_builders": {"expectations": "none", "profiling": "none"},
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder", "validation_results_limit": docs.keep},
    }


def publish(context: Any, result: Any, suite: str, docs: Docs, failures: Sequence[Failure]) -> Path:
    """Make the page of a check and the index anew; returns the page's file. Checks beyond `docs.keep` go."""
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types.resource_identifiers import (
        ExpectationSuiteIdentifier,
        ValidationResultIdentifier,
    )
    from great_expectations.render.renderer.site_builder import SiteBuilder

    run = RunIdentifier(run_name=docs.name, run_time=dt.datetime.fromtimestamp(docs.at, dt.UTC))
    result.meta["run_id"] = run
    for one in result.results:
        one.result = _escaped(one.result)
    suite_key = ExpectationSuiteIdentifier(name=suite)
    key = ValidationResultIdentifier(expectation_suite_identifier=suite_key, run_id=run, batch_identifier=_BATCH)
    with _alone(docs.folder):
        store = context.stores["results"]
        store.set(key, result)
        for old in sorted(store.list_keys(), key=lambda k: k.run_id.run_time, reverse=True)[docs.keep :]:
            store.remove_key(old)
        options = {k: v for k, v in site(docs).items() if k != "class_name"}
        builder = SiteBuilder(data_context=context, runtime_environment={}, site_name=_SITE, **options)
        # Its own `build` copies 4 MB of pictures and fonts that nothing refers to any more.
        builder.site_section_builders["validations"].build(resource_identifiers=[key])
        _, links = builder.site_index_builder.build()
        page = docs.folder / "validations" / Path(*key.to_tuple()).with_suffix(".html")
        page.write_text(run_page(page.read_text(), failures))
        index = docs.folder / "index.html"
        runs = [_run(docs.folder, link) for link in links.get("validations_links", [])]
        index.write_text(index_page(index.read_text(), runs))
    return page


def _files(folder: Path) -> dict[str, Any]:
    return {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)}


def _run(folder: Path, link: Mapping[str, Any]) -> Run:
    page = str(link["filepath"])
    with (folder / unquote(page)).open() as text:
        outcome = outcome_of(text.read(400))
    return Run(
        at=link["run_time"].strftime("%Y-%m-%d %H:%M:%S UTC"),
        name=str(link["run_name"]),
        suite=str(link["expectation_suite_name"]),
        outcome=outcome,
        page=page,
    )


def _escaped(value: Any) -> Any:
    """The library's templates print what they are given as it is."""
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, Mapping):
        return {k: _escaped(v) for k, v in value.items()}
    return [_escaped(v) for v in value] if isinstance(value, list | tuple) else value


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One writer at a time: each makes the index from what lies there. ResourceError where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as e:
        said = e.strerror or e
        raise ResourceError(
            f"Data Docs cannot be written in {folder}: {said}; free disk space, or check its owner"
        ) from e
