"""The operator's templates of Jobs, one file a profile: which there are and whether they can be filled.

Knows what a template must have; what goes into its gaps is `services.cluster.manifests`'.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from services.cluster.names import INSTANCE, check_profile
from services.cluster.objects import Object
from services.errors import InvalidRequest

CONTAINER = "worker"
"""Name of the container that runs the worker."""


@dataclass(frozen=True)
class Templates:
    """The templates in a folder, read anew each time: a ConfigMap that is mounted changes in place."""

    folder: Path
    default: str

    def check(self) -> None:
        """Raises OSError with a sentence if the folder or the default profile's template cannot be used."""
        if not self.folder.is_dir():
            raise OSError(f"CONCH_JOB_TEMPLATES: there is no folder {self.folder}")
        try:
            self.find("")
        except InvalidRequest as error:
            raise OSError(error.message) from error

    def find(self, profile: str) -> Object:
        """Returns a profile's template, the default one's if it is empty; raises InvalidRequest."""
        profile = profile or self.default
        check_profile(profile)
        path = self.folder / f"{profile}.yaml"
        try:
            template = yaml.safe_load(path.read_text())
        except FileNotFoundError:
            raise _unusable(f"there is no profile {profile!r}; there are: {self._names()}") from None
        except (OSError, yaml.YAMLError) as error:
            raise _unusable(f"the template of profile {profile!r} cannot be read: {error}") from error
        if (problem := _problem(template)) is not None:
            raise _unusable(f"the template of profile {profile!r} {problem}")
        found: Object = template
        return found

    def instance(self) -> Mapping[str, str]:
        """Returns the labels that tell this release's Jobs from those of another in the same namespace."""
        metadata = self.find("").get("metadata") or {}
        present = (metadata.get("labels") or {}).get(INSTANCE)
        return {INSTANCE: present} if present else {}

    def _names(self) -> str:
        return ", ".join(sorted(path.stem for path in self.folder.glob("*.yaml"))) or "none"


def containers(job: Object) -> list[dict[str, Any]]:
    """Returns the containers of a Job's pods, to be changed in place."""
    found: list[dict[str, Any]] = job["spec"]["template"]["spec"]["containers"]
    return found


def _problem(template: Any) -> str | None:
    if not isinstance(template, dict) or template.get("kind") != "Job":
        return "is no batch/v1 Job"
    try:
        names = [container["name"] for container in containers(template)]
    except (KeyError, TypeError):
        return "has no containers in spec.template.spec"
    return None if CONTAINER in names else f"has no container named {CONTAINER!r}"


def _unusable(description: str) -> InvalidRequest:
    return InvalidRequest.field("spec.profile", description, reason="UNKNOWN_PROFILE")
