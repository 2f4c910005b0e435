"""Kinds of objects in an emulated cluster, their names, their changes, and what is answered instead."""

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

KINDS = {
    ("", "pods"): "Pod",
    ("", "secrets"): "Secret",
    ("", "configmaps"): "ConfigMap",
    ("", "services"): "Service",
    ("", "events"): "Event",
    ("", "persistentvolumeclaims"): "PersistentVolumeClaim",
    ("", "serviceaccounts"): "ServiceAccount",
    ("batch", "jobs"): "Job",
    ("apps", "deployments"): "Deployment",
    ("apps", "statefulsets"): "StatefulSet",
    ("coordination.k8s.io", "leases"): "Lease",
}
RESOURCES = {kind: key for key, kind in KINDS.items()}


class ApiError(Exception):
    """What the API server answers in place of an object: an HTTP status and a reason."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message

    def status(self) -> Object:
        """Returns the Status object of the answer."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }


@dataclass(frozen=True)
class Key:
    """Names one object."""

    group: str
    plural: str
    namespace: str
    name: str


@dataclass(frozen=True)
class Change:
    """One line of the cluster's history; `before` is None for a new object, `after` for one that is gone."""

    version: int
    key: Key
    before: Object | None
    after: Object | None
