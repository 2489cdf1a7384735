"""Objects against Kubernetes' own schemas, strictly, and against small ones of ours for what KEDA and others define."""

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
from kubernetes_validate.utils import all_versions, schema_contents  # type: ignore[import-untyped]  # it has no stubs
from referencing import Registry, Resource

from chart.rendering import CHART, Object, documents, title

SCHEMAS = Path(__file__).parent / "schemas"
# As jsonschema's types name it: a schema may also be just true or false.
Schema = bool | Mapping[str, Any]


def minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def supported_minors() -> tuple[str, str]:
    """The oldest minor that the chart's `kubeVersion` names, and the newest that we have schemas of."""
    metadata = documents((CHART / "Chart.yaml").read_text(encoding="utf-8"))[0]
    oldest = re.fullmatch(r">=\s*v?(\d+\.\d+)\.\d+-0", metadata["kubeVersion"])
    assert oldest, f"kubeVersion {metadata['kubeVersion']!r} must be '>=1.x.0-0': managed clusters add a suffix"
    return oldest[1], ".".join(map(str, max(map(minor, all_versions()))))


def faults(found: Object, version: str) -> list[str]:
    """What is wrong with an object for the API server of this minor."""
    return [
        f"{title(found)}: {'.'.join(map(str, error.path))}: {error.message}"
        for error in _validator(found["apiVersion"], found["kind"], version).iter_errors(found)
    ]


@functools.cache
def _validator(api_version: str, kind: str, version: str) -> jsonschema.Draft202012Validator:
    own = SCHEMAS / f"{kind.lower()}.json"
    if own.exists():
        return jsonschema.Draft202012Validator(
            _own(own.name), registry=_resource(_own("definitions.json")) @ Registry()
        )
    # rbac.authorization.k8s.io/v1 is filed as rbac-v1.
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    try:
        schema = schema_contents(f"{_folder(version)}/{kind.lower()}-{group}.json", version)
    except FileNotFoundError:
        raise AssertionError(f"Kubernetes {version} has no {kind} of {api_version}, nor is there {own}") from None
    return jsonschema.Draft202012Validator(schema, registry=_resource(schema) @ _definitions(version))


@functools.cache
def _own(name: str) -> Object:
    schema: Object = json.loads((SCHEMAS / name).read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


def _folder(version: str) -> str:
    assert version in map(".".join, (one.split(".")[:2] for one in all_versions())), f"no schemas of {version}"
    return f"kubernetes-json-schema/v{version}.0-local-strict"


@functools.cache
def _definitions(version: str) -> "Registry[Schema]":
    return _resource(schema_contents(f"{_folder(version)}/_definitions.json", version)) @ Registry()


def _resource(schema: Object) -> "Resource[Schema]":
    return Resource.from_contents(schema)
