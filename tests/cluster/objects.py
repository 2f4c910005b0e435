"""The objects of an emulated cluster: stored, versioned, owned, deleted as the API server does it.

Knows resource versions, conflicts, owner references, grace and finalizers; knows nothing of HTTP, nor of
what the objects mean.
"""

import base64
import copy
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tests.cluster.kinds import KINDS, RESOURCES, ApiError, Change, Key, Object
from tests.cluster.selectors import matches

_FOREGROUND = "foregroundDeletion"


class Objects:
    """All objects of a cluster. Safe to use from any thread; what it hands out are copies."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self._objects: dict[Key, Object] = {}
        self._history: list[Change] = []
        self._version = 1
        self._compacted = 0
        self._listeners: list[Callable[[Change], None]] = []

    @property
    def version(self) -> int:
        """The newest resourceVersion."""
        return self._version

    def listen(self, listener: Callable[[Change], None]) -> Callable[[], None]:
        """Calls `listener` at every change, under the lock; returns what ends that."""
        with self.lock:
            self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def create(self, obj: Object, namespace: str = "default") -> Object:
        """Stores a new object (with `kind`) and returns it; ApiError 409 if its name is taken."""
        obj = copy.deepcopy(obj)
        metadata = obj.setdefault("metadata", {})
        namespace = metadata.setdefault("namespace", namespace)
        if "name" not in metadata:
            metadata["name"] = metadata["generateName"] + uuid.uuid4().hex[:5]
        _encode_secret(obj)
        key = key_of(obj)
        with self.lock:
            if key in self._objects:
                raise ApiError(409, "AlreadyExists", f'{key.plural} "{key.name}" already exists')
            metadata["uid"] = str(uuid.uuid4())
            metadata["creationTimestamp"] = timestamp()
            return self._store(key, obj)

    def get(self, kind: str, name: str, namespace: str = "default") -> Object:
        """Returns an object; ApiError 404 if there is none."""
        with self.lock:
            return copy.deepcopy(self._existing(Key(*RESOURCES[kind], namespace, name)))

    def all(self, kind: str, namespace: str = "", *, labels: str = "", fields: str = "") -> list[Object]:
        """Returns what both selectors match of a kind, by name; of all namespaces if none is named."""
        group, plural = RESOURCES[kind]
        with self.lock:
            found = [
                copy.deepcopy(obj)
                for key, obj in self._objects.items()
                if (key.group, key.plural) == (group, plural)
                and namespace in ("", key.namespace)
                and matches(obj, labels, fields)
            ]
        return sorted(found, key=lambda o: (o["metadata"]["namespace"], o["metadata"]["name"]))

    def replace(self, obj: Object) -> Object:
        """Stores another content of an object; ApiError 404, or 409 if it names an old resourceVersion."""
        key = key_of(obj)
        with self.lock:
            present = self._existing(key)
            asked = obj["metadata"].get("resourceVersion")
            if asked is not None and asked != present["metadata"]["resourceVersion"]:
                raise ApiError(409, "Conflict", f'{key.plural} "{key.name}": the object has been modified')
            obj = copy.deepcopy(obj)
            _encode_secret(obj)
            for name in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
                if name in present["metadata"]:
                    obj["metadata"][name] = present["metadata"][name]
            marked = obj["metadata"].get("deletionTimestamp") and key.plural != "pods"
            if marked and not obj["metadata"].get("finalizers"):
                return self._remove(key)
            return self._store(key, obj)

    def change(
        self, kind: str, name: str, edit: Callable[[Object], None], namespace: str = "default"
    ) -> Object:
        """Edits an object in place, as a controller does that has read it this moment."""
        with self.lock:
            obj = self.get(kind, name, namespace)
            edit(obj)
            return self.replace(obj)

    def delete(
        self,
        kind: str,
        name: str,
        namespace: str = "default",
        *,
        propagation: str = "Background",
        grace: int | None = None,
    ) -> Object:
        """Deletes an object, or marks it where finalizers or a running pod hold it; ApiError 404."""
        key = Key(*RESOURCES[kind], namespace, name)
        with self.lock:
            obj = copy.deepcopy(self._existing(key))
            if kind == "Pod":
                return self._end_pod(key, obj, grace)
            if propagation == "Foreground" and self._dependents(obj):
                obj["metadata"].setdefault("finalizers", []).append(_FOREGROUND)
            if not obj["metadata"].get("finalizers"):
                return self._remove(key)
            marked = self._mark(key, obj, 0)
            self._delete_dependents(marked)
            return marked

    def remove(self, kind: str, name: str, namespace: str = "default") -> None:
        """Takes an object away at once and for good, as a kubelet does with a pod whose processes ended."""
        with self.lock:
            key = Key(*RESOURCES[kind], namespace, name)
            if key in self._objects:
                self._remove(key)

    def since(self, version: int) -> list[Change]:
        """Returns the changes after `version`; ApiError 410 if they are no longer known."""
        with self.lock:
            if version < self._compacted:
                raise ApiError(410, "Expired", f"too old resource version: {version} ({self._compacted})")
            return [change for change in self._history if change.version > version]

    def compact(self) -> None:
        """Forgets the history: whoever wants to go on from before gets 410."""
        with self.lock:
            self._history.clear()
            self._version += 1
            self._compacted = self._version

    def wait_for(self, ready: Callable[[], bool], timeout: float = 30) -> None:
        """Returns once `ready()`, which is asked at every change; fails after `timeout` seconds."""
        with self.changed:
            assert self.changed.wait_for(ready, timeout), "the cluster never came to be so"

    def _end_pod(self, key: Key, pod: Object, grace: int | None) -> Object:
        seconds = grace if grace is not None else pod["spec"].get("terminationGracePeriodSeconds", 30)
        ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if seconds == 0 or ended or not pod["spec"].get("nodeName"):
            return self._remove(key)
        return self._mark(key, pod, seconds)

    def _mark(self, key: Key, obj: Object, seconds: int) -> Object:
        obj["metadata"].setdefault("deletionTimestamp", timestamp(seconds))
        obj["metadata"].setdefault("deletionGracePeriodSeconds", seconds)
        return self._store(key, obj)

    def _remove(self, key: Key) -> Object:
        gone = self._objects.pop(key)
        self._version += 1
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._record(Change(self._version, key, copy.deepcopy(gone), None))
        self._delete_dependents(gone)
        self._release_owners(gone)
        return copy.deepcopy(gone)

    def _dependents(self, owner: Object) -> list[Key]:
        uid = owner["metadata"]["uid"]
        return [key for key, obj in self._objects.items() if uid in owners(obj)]

    def _delete_dependents(self, owner: Object) -> None:
        for key in self._dependents(owner):
            if not self._objects[key]["metadata"].get("deletionTimestamp"):
                self.delete(KINDS[key.group, key.plural], key.name, key.namespace)

    def _release_owners(self, gone: Object) -> None:
        for key, obj in list(self._objects.items()):
            waits = _FOREGROUND in obj["metadata"].get("finalizers", [])
            if waits and obj["metadata"]["uid"] in owners(gone) and not self._dependents(obj):
                self._remove(key)

    def _existing(self, key: Key) -> Object:
        if key not in self._objects:
            raise ApiError(404, "NotFound", f'{key.plural} "{key.name}" not found')
        return self._objects[key]

    def _store(self, key: Key, obj: Object) -> Object:
        self._version += 1
        obj["metadata"]["resourceVersion"] = str(self._version)
        before = self._objects.get(key)
        self._objects[key] = obj
        self._record(Change(self._version, key, before, copy.deepcopy(obj)))
        return copy.deepcopy(obj)

    def _record(self, change: Change) -> None:
        self._history.append(change)
        for listener in list(self._listeners):
            listener(change)
        self.changed.notify_all()


def key_of(obj: Object) -> Key:
    """Returns the name of an object that has its kind, name and namespace."""
    group, plural = RESOURCES[obj["kind"]]
    return Key(group, plural, obj["metadata"]["namespace"], obj["metadata"]["name"])


def owners(obj: Object) -> set[str]:
    """Returns the uids of an object's owners."""
    return {owner["uid"] for owner in obj["metadata"].get("ownerReferences", [])}


def _encode_secret(obj: Object) -> None:
    for name, text in obj.pop("stringData", {}).items() if obj["kind"] == "Secret" else ():
        obj.setdefault("data", {})[name] = base64.b64encode(text.encode()).decode()


def timestamp(seconds: float = 0) -> str:
    """Returns the time so many seconds from now as Kubernetes writes it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
