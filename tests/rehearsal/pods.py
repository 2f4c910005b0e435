"""A pod of a rendered manifest as processes of this machine: its volumes folders, its address one of 127/8.

Knows pod templates; knows nothing about Deployments or what the containers do. Containers see the paths of
their mounts rewritten to folders here, in arguments, environment and the files of ConfigMaps.
"""

import asyncio
import itertools
import os
import signal
import sys
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.triton import launcher
from services.triton.environment import Environment
from tests.integration.triton import environment

Object = dict[str, Any]
ReadConfigMap = Callable[[str], Mapping[str, str]]
_NUMBERS = itertools.count(1)
NAMESPACE = "default"
_OF_IMAGES = ("HOME", "PYTHONPATH")
"""Variables that speak of files in the container's image."""
_OWN_ADDRESSES = ("0.0.0.0", "127.0.0.1")
"""What means the pod's own network there, which all pods share here."""


class ContainerFailedError(Exception):
    """A container that had to succeed ended otherwise; the message holds the end of its log."""


@dataclass
class Site:
    """What all pods share: folders for their volumes, the claim, ConfigMaps, and further variables."""

    folder: Path
    storage: Path
    read_configmap: ReadConfigMap
    variables: Mapping[str, str] = field(default_factory=dict)
    rewrites: dict[str, str] = field(default_factory=dict)


class Pod:
    """One pod. `start`, wait for it with `ready`, `stop`."""

    def __init__(self, name: str, template: Object, site: Site) -> None:
        self.name = name
        number = next(_NUMBERS)
        self.address = f"127.1.{number // 250}.{number % 250 + 1}"
        self.uid = str(uuid.uuid4())
        self._spec: Object = template["spec"]
        self._site = site
        self._folder = site.folder / name
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    async def start(self) -> None:
        """Runs the init containers one after the other, then starts the others.

        Raises ContainerFailedError.
        """
        self._folder.mkdir(parents=True)
        for container in self._spec.get("initContainers", []):
            await self.run(container)
        for container in self._spec["containers"]:
            self._processes[container["name"]] = await self._spawn(container)

    async def run(self, container: Object) -> str:
        """Runs a container to its end and returns what it printed. Raises ContainerFailedError."""
        process = await self._spawn(container)
        code = await process.wait()
        if code:
            raise ContainerFailedError(
                f"{self.name}/{container['name']} ended with {code}: {self.log(container)}"
            )
        return self.log(container)

    def log(self, container: Object) -> str:
        """Returns what a container printed."""
        return (self._folder / f"{container['name']}.log").read_text(errors="replace")

    @property
    def containers(self) -> list[Object]:
        """The containers that run as long as the pod does."""
        return list(self._spec["containers"])

    def alive(self) -> bool:
        """Returns whether every container runs."""
        return all(process.returncode is None for process in self._processes.values())

    async def stop(self) -> None:
        """Ends the pod as a kubelet does: preStop hooks, SIGTERM, and SIGKILL after the grace."""
        leaves = [_leave_seconds(container) for container in self._spec["containers"]]
        await asyncio.sleep(max(leaves))
        for process in self._processes.values():
            _send(process, signal.SIGTERM)
        grace = self._spec.get("terminationGracePeriodSeconds", 30)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await asyncio.gather(*(process.wait() for process in self._processes.values()))
        self.kill()

    def kill(self) -> None:
        """Ends every container at once."""
        for process in self._processes.values():
            _send(process, signal.SIGKILL)

    async def _spawn(self, container: Object) -> asyncio.subprocess.Process:
        places = self._places(container)
        argv = _argv([self._rewritten(part, places) for part in _command(container)], container["name"])
        if container["name"] == "triton":
            argv += _here(self.address, self._folder)
        with (self._folder / f"{container['name']}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *argv,
                env=self._environment(container, places),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _environment(self, container: Object, places: Mapping[str, Path]) -> dict[str, str]:
        variables = {
            one["name"]: self._rewritten(self._value(one), places)
            for one in container.get("env", [])
            if one["name"] not in _OF_IMAGES
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CONCH_")}
        if container["name"] == "triton":
            return launcher.process_environment(Environment(environment()), inherited | variables)
        return inherited | variables | dict(self._site.variables)

    def _value(self, variable: Object) -> str:
        if "value" in variable:
            return str(variable["value"])
        facts = {"metadata.name": self.name, "metadata.uid": self.uid, "metadata.namespace": NAMESPACE}
        return facts[variable["valueFrom"]["fieldRef"]["fieldPath"]]

    def _places(self, container: Object) -> dict[str, Path]:
        """Returns the folder here behind each mount, and fills those of ConfigMaps."""
        volumes = {volume["name"]: volume for volume in self._spec.get("volumes", [])}
        mounts = container.get("volumeMounts", [])
        return {mount["mountPath"]: self._place(volumes[mount["name"]]) for mount in mounts}

    def _place(self, volume: Object) -> Path:
        if "persistentVolumeClaim" in volume:
            return self._site.storage
        folder = self._folder / volume["name"]
        folder.mkdir(exist_ok=True)
        if "configMap" in volume:
            for name, text in self._site.read_configmap(volume["configMap"]["name"]).items():
                (folder / name).write_text(text)
        return folder

    def _rewritten(self, text: str, places: Mapping[str, Path]) -> str:
        for mount in sorted(places, key=len, reverse=True):
            if text == mount or f"{mount}/" in text or text.endswith(f"={mount}"):
                text = text.replace(mount, str(places[mount]))
                break
        for old, new in self._site.rewrites.items():
            text = text.replace(old, new)
        for address in _OWN_ADDRESSES:
            text = text.replace(address, self.address)
        return text


def _command(container: Object) -> list[str]:
    return [str(part) for part in [*container.get("command", []), *container.get("args", [])]]


def _argv(command: list[str], name: str) -> list[str]:
    """Returns what runs here in the place of a container's command: this checkout's programs."""
    if name == "triton":
        return [str(Environment(environment()).server), *(p for p in command if p.startswith("--"))]
    return [sys.executable, "-m", *_module(command, name)]


def _module(command: list[str], name: str) -> list[str]:
    """Returns the module that the image's entry point runs, and its arguments."""
    if command[:1] == ["conch"]:
        command = command[1:]
    if command[:2] in (["python", "-m"], ["python3", "-m"]):
        return command[2:]
    return ["services.cli", *command] if command else [f"services.{name}"]


def _here(address: str, folder: Path) -> list[str]:
    """Returns what this machine's Triton has to be told beside the chart's arguments."""
    triton = Environment(environment())
    backends = launcher.prepare_backends(folder / "backends-here", triton)
    return [
        *(f"--{way}-address={address}" for way in ("http", "grpc", "metrics")),
        f"--backend-directory={backends}",
        f"--cache-directory={triton.caches}",
        "--pinned-memory-pool-byte-size=0",
    ]


def _leave_seconds(container: Object) -> float:
    hook = container.get("lifecycle", {}).get("preStop", {})
    return float(hook.get("sleep", {}).get("seconds", 0))


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if process.returncode is None:
            os.killpg(process.pid, number)
