"""The JSON Schemas in the package, which refer to each other by their file names."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any

import jsonschema
from referencing import Registry, Resource


def validator(name: str) -> jsonschema.Draft202012Validator:
    """What holds JSON to one of them."""
    return jsonschema.Draft202012Validator(_SCHEMAS[name], registry=_REGISTRY)


def _schema(name: str) -> Any:
    found = json.loads(importlib.resources.files("tagged_vmstate").joinpath(f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(found)
    assert found["$id"] == f"{name}.schema.json"
    return found


_SCHEMAS = {name: _schema(name) for name in ("snapshot", "reports", "tables")}
_REGISTRY: Registry[Any] = Registry().with_resources(
    (f"{name}.schema.json", Resource.from_contents(each)) for name, each in _SCHEMAS.items()
)
