"""Reads what is published: models, their complete versions, and each version's manifest and certificate.

Knows the layout; knows nothing about whether a version may be served (certificates) or is (gateway).
"""

import hashlib

from google.protobuf import json_format

from conch.v1 import models_pb2
from services import storage
from services.errors import NotFound, NotReady
from services.repository import layout


def list_models(repository_uri: str) -> list[str]:
    """Returns the names of the models that have a complete version, sorted."""
    return sorted({model for model, _ in _published(repository_uri, prefix="")})


def list_versions(repository_uri: str, model: str) -> list[int]:
    """Returns the complete versions of a model, ascending; none if there is no such model."""
    layout.check_model_name(model)
    uri = layout.model_uri(repository_uri, model)
    return sorted(version for _, version in _published(uri, prefix=f"{model}/"))


def read_version(repository_uri: str, model: str, version: int) -> models_pb2.Version:
    """Returns a version with uri, digest, manifest and, if it has one, certificate; state is PUBLISHED.

    Raises NotFound if there is no complete version of that number, NotReady if manifest or certificate
    is damaged or belongs to another version.
    """
    layout.check_model_name(model)
    uri = layout.version_uri(repository_uri, model, version)
    try:
        manifest, digest = storage.read_manifest(uri)
    except NotFound as error:
        raise NotFound(
            f"there is no version {version} of model {model}", reason="VERSION_NOT_FOUND"
        ) from error
    _check_identity(manifest, uri, model, version)
    return models_pb2.Version(
        model=model,
        version=version,
        uri=uri,
        digest=digest,
        manifest=manifest.version,
        certificate=_read_certificate(uri, manifest),
        state=models_pb2.Version.STATE_PUBLISHED,
    )


def _published(uri: str, *, prefix: str) -> set[tuple[str, int]]:
    """Returns model and version of every manifest below `uri`, whose paths lack `prefix`."""
    found = set()
    for path in storage.list_files(uri):
        parts = (prefix + path).split("/")
        if len(parts) != 3 or parts[2] != storage.MANIFEST or not layout.is_model_name(parts[0]):
            continue
        if version := layout.parse_version(parts[1]):
            found.add((parts[0], version))
    return found


def _check_identity(manifest: models_pb2.Manifest, uri: str, model: str, version: int) -> None:
    said = manifest.version
    if (said.model, said.version) != (model, version):
        raise NotReady(
            f"{uri} says that it is version {said.version} of {said.model or 'no model'}",
            reason="ARTIFACT_DAMAGED",
        )


def _read_certificate(uri: str, manifest: models_pb2.Manifest) -> models_pb2.Certificate | None:
    recorded = [file for file in manifest.files if file.path == layout.CERTIFICATE]
    if not recorded:
        return None
    place = storage.join(uri, layout.CERTIFICATE)
    try:
        data = storage.read_bytes(place)
    except NotFound as error:
        raise NotReady(f"{place} is missing", reason="ARTIFACT_DAMAGED") from error
    if hashlib.sha256(data).hexdigest() != recorded[0].sha256:
        raise NotReady(
            f"{place} is damaged: its sha256 is not the one in the manifest", reason="ARTIFACT_DAMAGED"
        )
    return json_format.Parse(data, models_pb2.Certificate(), ignore_unknown_fields=True)
