"""Publishes a version into the repository: it is there as a whole or not at all.

Local: the files are gathered in a hidden folder beside the versions, which is renamed at the end. Object
stores: manifest.json is written last. Knows configurations by their signature; knows nothing about how
files were made. Version numbers are claimed elsewhere: two publishers of one number are a mistake.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from conch.v1 import models_pb2
from services import storage, stores
from services.errors import AlreadyExists, NotFound, NotReady, ServiceError
from services.repository import layout, signature, versions
from services.repository.signature import Signature


def publish(
    folder: Path,
    *,
    repository_uri: str,
    model: str,
    version: int,
    configs: Mapping[str, str],
    manifest: models_pb2.VersionManifest,
) -> str:
    """Publishes the files in `folder` as a version and returns its digest; `folder` is left as it is.

    `configs` are the model's configurations by their path in the model's folder ("config.pbtxt",
    "configs/openvino.pbtxt"); they replace those that are published. What a killed publisher left of
    this number is removed first. A version that the same conversion job published before is kept, and
    its digest returned.

    Raises NotReady if inputs or outputs differ from those of the published versions (SIGNATURE_CHANGED,
    says what differs) or if there is no room (DISK_FULL), AlreadyExists if another job published this
    number. Versions that are there already are never touched.
    """
    layout.check_model_name(model)
    complete = _completed(manifest, model, version)
    new = _agreed(configs)
    with _held(repository_uri, model):
        if digest := _published_before(repository_uri, manifest):
            return digest
        _check_signature(repository_uri, model, new)
        local = storage.local_path(layout.model_uri(repository_uri, model))
        if local is not None:
            return _publish_locally(folder, local, configs, complete)
        return _publish_remotely(folder, layout.model_uri(repository_uri, model), configs, complete)


def _publish_locally(
    folder: Path, place: Path, configs: Mapping[str, str], manifest: models_pb2.Manifest
) -> str:
    target = place / str(manifest.version.version)
    partial = place / f".{target.name}{stores.PARTIAL}"
    for leftover in (partial, target):
        storage.remove(str(leftover))
    with _removed_on_failure(partial):
        digest = storage.upload(folder, str(partial), manifest)
        _protect(partial)
        _write_configs(str(place), configs)
        stores.move(partial, target)
    return digest


def _publish_remotely(
    folder: Path, uri: str, configs: Mapping[str, str], manifest: models_pb2.Manifest
) -> str:
    target = storage.join(uri, str(manifest.version.version))
    storage.remove(target)
    _write_configs(uri, configs)
    return storage.upload(folder, target, manifest)


def _completed(manifest: models_pb2.VersionManifest, model: str, version: int) -> models_pb2.Manifest:
    if version < 1 or (manifest.model, manifest.version) != (model, version):
        raise ValueError(f"the manifest is of {manifest.model}@{manifest.version}, not of {model}@{version}")
    return models_pb2.Manifest(version=manifest)


def _agreed(configs: Mapping[str, str]) -> Signature:
    """Returns the signature that all of `configs` share."""
    first, *others = [signature.read(text, source=path) for path, text in configs.items()]
    if any(other != first for other in others):
        raise ValueError(f"{', '.join(configs)} do not describe the same inputs and outputs")
    return first


def _published_before(repository_uri: str, manifest: models_pb2.VersionManifest) -> str:
    """Returns the digest if this very job has published this version, empty if nobody has."""
    try:
        found = versions.read_version(repository_uri, manifest.model, manifest.version)
    except NotFound:
        return ""
    if manifest.conversion_job and found.manifest.conversion_job == manifest.conversion_job:
        return found.digest
    raise AlreadyExists(
        f"version {manifest.version} of {manifest.model} is published already", reason="VERSION_EXISTS"
    )


def _check_signature(repository_uri: str, model: str, new: Signature) -> None:
    if not versions.list_versions(repository_uri, model):
        # Configurations without a version were left by a publisher that died: they bind nobody.
        return
    uri = layout.model_uri(repository_uri, model)
    for path in layout.CONFIGS.values():
        with suppress(NotFound):
            published = storage.read_bytes(storage.join(uri, path)).decode()
            differences = signature.differences(signature.read(published, source=path), new)
            if differences:
                raise NotReady(
                    f"this version does not fit the published versions of {model}: {'; '.join(differences)}. "
                    "Publish it under another model name",
                    reason="SIGNATURE_CHANGED",
                )


def _write_configs(uri: str, configs: Mapping[str, str]) -> None:
    """Writes what changed; an untouched file stays untouched, or Triton would reload the model."""
    for path, text in configs.items():
        place = storage.join(uri, path)
        with suppress(NotFound):
            if storage.read_bytes(place) == text.encode():
                continue
        storage.write_bytes(place, text.encode())


def _protect(folder: Path) -> None:
    # Staging hard-links these files: whoever writes to a staged one would change the published one.
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o444)


@contextmanager
def _removed_on_failure(partial: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(ServiceError):
            storage.remove(str(partial))
        raise


def _held(repository_uri: str, model: str) -> AbstractContextManager[None]:
    # Object stores have no locks; there the signature check of two first versions at once may race.
    place = storage.local_path(layout.model_uri(repository_uri, model))
    return nullcontext() if place is None else stores.locked(place)
