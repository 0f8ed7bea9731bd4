#!/usr/bin/env python3
"""schemas.py OUT VERSION: the schemas of Kubernetes' own kinds, as kubeconform reads them, from the package
kubernetes-validate; and those of the custom kinds, from the definitions in tests/helm/crds. A field that a definition does
not list is refused, as the API server drops it."""

import json
import pathlib
import sys

import kubernetes_validate
import yaml


def close(schema):
    """Refuses what is not listed, wherever something is."""
    if not isinstance(schema, dict):
        return
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        schema.pop("type", None)
        schema.pop("anyOf", None)
        schema["oneOf"] = [{"type": "string"}, {"type": "integer"}]
    for key, value in schema.items():
        if key == "properties":
            for inner in value.values():
                close(inner)
        elif key in ("items", "additionalProperties"):
            close(value)


out, version = pathlib.Path(sys.argv[1]), sys.argv[2]
making = out.with_suffix(".part")
source = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{version}-local-strict"
builtin = making / "builtin"
builtin.mkdir(parents=True, exist_ok=True)
for file in source.glob("*.json"):
    # The package points at kubernetes.io; what is meant lies beside.
    schema = json.loads(file.read_text().replace('"/api/_definitions.json', '"_definitions.json'))
    schema.pop("$id", None)
    (builtin / file.name).write_text(json.dumps(schema))
for file in (pathlib.Path(__file__).parent / "crds").glob("*.yaml"):
    for crd in yaml.safe_load_all(file.read_text()):
        spec = crd["spec"]
        for served in spec["versions"]:
            schema = served["schema"]["openAPIV3Schema"]
            schema["properties"].update(apiVersion={"type": "string"}, kind={"type": "string"})
            schema["properties"]["metadata"] = {"type": "object", "required": ["name"], "additionalProperties": True}
            close(schema)
            place = making / spec["group"] / f"{spec['names']['kind'].lower()}_{served['name']}.json"
            place.parent.mkdir(exist_ok=True)
            place.write_text(json.dumps(schema))
making.rename(out)
