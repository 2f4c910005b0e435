"""Kinds of Kubernetes objects and where they lie below an API server's address."""

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
"""A Kubernetes object as its JSON says it: `Any`, for every kind has fields of its own."""


@dataclass(frozen=True)
class Resource:
    """One kind of object."""

    group: str
    version: str
    plural: str

    def __str__(self) -> str:
        return f"{self.group}/{self.plural}" if self.group else self.plural

    def path(self, namespace: str, *names: str) -> str:
        """Returns the path of all objects in a namespace, or of one and what is below it."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return "/".join((root, "namespaces", namespace, self.plural, *names))


PODS = Resource("", "v1", "pods")
SECRETS = Resource("", "v1", "secrets")
SERVICES = Resource("", "v1", "services")
CONFIG_MAPS = Resource("", "v1", "configmaps")
JOBS = Resource("batch", "v1", "jobs")
