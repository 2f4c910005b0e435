"""Holds objects (lines of ["name", {object}]) against Kubernetes' strict schemas, by the tools' own python.

    python kubernetes_schemas.py 1.36 1.37 <objects

Prints a line for each violation. The schemas are kubernetes-validate's; its own validator takes seconds for
what this does in a tenth.
"""

import json
import re
import sys
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from jsonschema_rs import Draft7Validator


def _folder(version: str) -> Traversable:
    return files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"


@cache
def _definitions(version: str) -> object:
    return json.loads((_folder(version) / "_definitions.json").read_text())


@cache
def _validator(version: str, kind: str, api_version: str) -> Draft7Validator | None:
    # "rbac.authorization.k8s.io/v1" -> "rbac-v1", as the files are called.
    short = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    path = _folder(version) / f"{kind.lower()}-{short}.json"
    if not path.is_file():
        return None
    return Draft7Validator(json.loads(path.read_text()), retriever=lambda uri: _definitions(version))


def main() -> None:
    """Reads, validates, prints."""
    for line in sys.stdin:
        named, found = json.loads(line)
        for version in sys.argv[1:]:
            validator = _validator(version, found["kind"], found["apiVersion"])
            if validator is None:
                print(f"{named}: Kubernetes {version} knows no {found['apiVersion']} {found['kind']}")
                continue
            for error in validator.iter_errors(found):
                print(f"{named}: Kubernetes {version}: {error.instance_path}: {error.message[:300]}")


main()
