"""A bill of materials in CycloneDX (ECMA-424): libraries of this environment, models, datasets and cloud services."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata
from typing import TYPE_CHECKING

from pawl import __version__
from pawl.compliance.facts import Channel, Licensed
from pawl.compliance.licences import ORDER, category

if TYPE_CHECKING:
    from cyclonedx.model.license import License

_LONGEST = 80  # characters of a licence's name; some packages put the whole text there
_CLASSIFIER = "License :: "


def libraries() -> list[Licensed]:
    """What is installed in this environment, each once, with the licence that its metadata declare."""
    found: dict[str, Licensed] = {}
    for package in metadata.distributions():
        name = package.metadata["Name"]
        if name and _normal(name) not in found:
            licence = declared(package.metadata)
            found[_normal(name)] = Licensed(
                kind="library", name=name, version=package.version, licence=licence, category=category(licence)
            )
    return [found[name] for name in sorted(found)]


def declared(about: metadata.PackageMetadata) -> str:
    """The licence that a package's core metadata declare (PEP 639, else classifiers, else the field); "" for none."""
    if expression := _field(about, "License-Expression"):
        return expression
    told = [
        c for c in about.get_all("Classifier") or () if c.startswith(_CLASSIFIER) and not c.endswith(":: OSI Approved")
    ]
    classified = [c.removeprefix(_CLASSIFIER).removeprefix("OSI Approved :: ") for c in told]
    field = _field(about, "License").splitlines()
    short = field[0].strip() if len(field) == 1 and len(field[0]) <= _LONGEST and field[0] != "UNKNOWN" else ""
    # A classifier says "BSD License" where the field often has the exact one; a stricter one is not hidden by it.
    found, others = category(short), {category(c) for c in classified} - {"unknown"}
    if found != "unknown" and all(ORDER.index(o) >= ORDER.index(found) for o in others):
        return short
    # Words of their own beside a classifier that says it say nothing more.
    told = classified if others and found == "unknown" else [*classified, short]
    return "; ".join(dict.fromkeys(filter(None, told)))


def _field(about: metadata.PackageMetadata, name: str) -> str:
    return str(about[name]).strip() if name in about else ""


def bill(items: Iterable[Licensed], services: Iterable[Channel]) -> str:
    """The document as JSON, CycloneDX 1.6. Models are components of type machine-learning-model, datasets of type data.

    Nothing of this machine is in it: no path, no host but those of cloud upstreams.
    """
    from cyclonedx.model import XsUri
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.service import Service
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    types = {
        "model": ComponentType.MACHINE_LEARNING_MODEL,
        "adapter": ComponentType.MACHINE_LEARNING_MODEL,
        "dataset": ComponentType.DATA,
        "library": ComponentType.LIBRARY,
    }
    bom = Bom()
    root = Component(name="pawl", version=__version__, type=ComponentType.APPLICATION, bom_ref="pawl",
                     licenses=_licences("Apache-2.0"))  # fmt: skip
    bom.metadata.component = root
    made = []
    for item in items:
        if item.kind == "service" or (item.kind == "library" and _normal(item.name) == "pawl"):
            continue
        is_library = item.kind == "library"
        made.append(
            Component(
                name=item.name,
                version=item.version or None,
                type=types[item.kind],
                bom_ref=f"{item.kind}:{item.name}@{item.version}",
                licenses=_licences(item.licence),
                description=item.note or None,
                purl=PackageURL("pypi", name=_normal(item.name), version=item.version) if is_library else None,
            )
        )
    bom.components.update(made)
    bom.register_dependency(root, made)
    for channel in services:
        bom.services.add(
            Service(
                name=channel.name,
                bom_ref=f"service:{channel.name}",
                endpoints=[XsUri(f"{channel.scheme}://{channel.host}")],
                x_trust_boundary=True,
                description=channel.carries,
            )
        )
    return str(JsonV1Dot6(bom).output_as_string(indent=1))


def problems(document: str) -> str:
    """What is wrong with a document by CycloneDX's own schema 1.6, which comes along; "" where nothing is."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(document)
    return "" if found is None else str(found)


def _licences(name: str) -> list[License]:
    from cyclonedx.contrib.license.factories import LicenseFactory

    return [LicenseFactory().make_from_string(name)] if name else []


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()  # PEP 503
