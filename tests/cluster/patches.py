"""The three kinds of PATCH of the Kubernetes API, as far as Conch and its tests use them."""

import copy
from typing import Any

from tests.cluster.objects import ApiError

# Lists that strategic patches merge by a key; others they replace.
_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "conditions": "type",
    "ownerReferences": "uid",
}


def patched(obj: dict[str, Any], patch: Any, content_type: str) -> dict[str, Any]:
    """Returns `obj` after a patch of the kind that its Content-Type says; ApiError 415 for any other kind."""
    if content_type == "application/json-patch+json":
        return _operated(copy.deepcopy(obj), patch)
    if content_type == "application/merge-patch+json":
        return _merged(obj, patch, strategic=False)
    if content_type == "application/strategic-merge-patch+json":
        return _merged(obj, patch, strategic=True)
    raise ApiError(415, "UnsupportedMediaType", f"no patch is sent as {content_type}")


def _merged(obj: Any, patch: Any, *, strategic: bool) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = copy.deepcopy(obj) if isinstance(obj, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif strategic and isinstance(value, list) and name in _MERGE_KEYS:
            result[name] = _merged_list(result.get(name, []), value, _MERGE_KEYS[name])
        else:
            result[name] = _merged(result.get(name), value, strategic=strategic)
    return result


def _merged_list(present: list[Any], patch: list[Any], key: str) -> list[Any]:
    items = {item[key]: item for item in present}
    for item in patch:
        if item.get("$patch") == "delete":
            items.pop(item[key], None)
        else:
            items[item[key]] = _merged(items.get(item[key]), item, strategic=True)
    return list(items.values())


def _operated(obj: dict[str, Any], operations: list[dict[str, Any]]) -> dict[str, Any]:
    for operation in operations:
        *parents, last = [p.replace("~1", "/").replace("~0", "~") for p in operation["path"].split("/")[1:]]
        target: Any = obj
        try:
            for name in parents:
                target = target[int(name)] if isinstance(target, list) else target[name]
            _operate(target, last, operation)
        except (KeyError, IndexError, ValueError) as error:
            raise ApiError(422, "Invalid", f"the operation cannot be done: {operation['path']}") from error
    return obj


def _operate(target: Any, name: str, operation: dict[str, Any]) -> None:
    if isinstance(target, list):
        return _operate_list(target, name, operation)
    if operation["op"] == "test":
        if target.get(name) != operation["value"]:
            raise ApiError(422, "Invalid", f"the test of {operation['path']} failed")
    elif operation["op"] == "remove":
        del target[name]
    elif operation["op"] == "replace" and name not in target:
        raise KeyError(name)
    else:
        target[name] = operation["value"]
    return None


def _operate_list(target: list[Any], name: str, operation: dict[str, Any]) -> None:
    if operation["op"] == "add":
        target.insert(len(target) if name == "-" else int(name), operation["value"])
    elif operation["op"] == "remove":
        del target[int(name)]
    else:
        target[int(name)] = operation["value"]
