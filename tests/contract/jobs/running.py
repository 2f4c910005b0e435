"""Starts real trainer and converter processes, whose workers follow scripts, and talks to them."""

import itertools
import json
import os
import queue
import select
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc

from conch.v1 import conversion_pb2_grpc, job_pb2, training_pb2, training_pb2_grpc
from tests.contract.jobs.places import Local, Place

ROOT = Path(__file__).parents[3]
_WORKER = "tests.contract.jobs.scripted_worker"
_START_SECONDS = 60


class Service:
    """One service process; `kill` and `start` again as you like: the home stays."""

    place: Place = Local()

    def __init__(self, name: str, home: Path, place: Place | None = None, **settings: str) -> None:
        if place is not None:
            self.place = place
        self.name = name
        self.home = home
        self.settings = settings
        self.log: list[dict[str, Any]] = []
        self.logged = threading.Condition()
        self.address = ""
        self._channel: grpc.Channel | None = None
        self.start()

    def start(self) -> None:
        """Starts the process and returns once it listens."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"services.{self.name}"],
            cwd=ROOT,
            env=environment(self.home, **self.place.settings() | self.settings),
            stderr=subprocess.PIPE,
            text=True,
        )
        lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, args=(self.process.stderr, lines), daemon=True).start()
        self._connect(self._port(lines))

    def kill(self) -> None:
        """kill -9."""
        self._close(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        return self._close(signal.SIGTERM)

    def end(self) -> None:
        """Ends the service and every worker that it started, whatever happened before."""
        self.place.end([entry["worker"] for entry in self.log if entry.get("worker")])
        if self.process.poll() is None:
            self.kill()

    @property
    def training(self) -> training_pb2_grpc.TrainingServiceStub:
        return training_pb2_grpc.TrainingServiceStub(self.channel)

    @property
    def conversion(self) -> conversion_pb2_grpc.ConversionServiceStub:
        return conversion_pb2_grpc.ConversionServiceStub(self.channel)

    @property
    def channel(self) -> grpc.Channel:
        assert self._channel is not None
        return self._channel

    def train(self, script: Sequence[dict[str, Any]], *, job_id: str = "", max_attempts: int = 3) -> str:
        """Creates a training job with a script; returns its id."""
        path = self.home / f"{job_id or 'script'}.jsonl"
        path.write_text("\n".join(json.dumps(step) for step in script))
        spec = training_spec(path, max_attempts=max_attempts)
        request = training_pb2.CreateTrainingJobRequest(id=job_id, spec=spec)
        return self.training.CreateTrainingJob(request).job.id

    def job(self, job_id: str) -> training_pb2.TrainingJob:
        return self.training.GetTrainingJob(training_pb2.GetTrainingJobRequest(id=job_id)).job

    def watch(self, job_id: str, from_sequence: int = 0) -> Iterator[job_pb2.JobEvent]:
        """Gives the job's events until it is over."""
        request = training_pb2.WatchTrainingJobRequest(id=job_id, from_sequence=from_sequence)
        for response in self.training.WatchTrainingJob(request, timeout=60):
            yield response.event

    def events(self, job_id: str) -> list[job_pb2.JobEvent]:
        """Returns the events that the job has by now."""
        last = self.job(job_id).status.last_sequence
        return list(itertools.islice(self.watch(job_id), last))

    def wait_for(self, job_id: str, text: str) -> list[job_pb2.JobEvent]:
        """Returns the events up to the first that has `text` in it."""
        events = []
        for event in self.watch(job_id):
            events.append(event)
            if text in str(event):
                return events
        raise AssertionError(f"no {text!r} among {events}")

    def wait_for_log(self, event: str, **facts: Any) -> None:
        """Returns once the service logged an event with these facts."""
        wanted = {"event": event, **facts}
        with self.logged:
            assert self.logged.wait_for(
                lambda: any(wanted.items() <= entry.items() for entry in self.log), timeout=60
            )

    def finish(self, job_id: str) -> training_pb2.TrainingJob:
        """Returns the job once it is over."""
        for _ in self.watch(job_id):
            pass
        return self.job(job_id)

    def worker_pid(self, job_id: str) -> int:
        """Returns the pid of the worker that the service started or adopted last for a job."""
        workers = (e["worker"] for e in reversed(self.log) if e.get("job") == job_id and e.get("worker"))
        return self.place.pid(next(workers))

    def _read(self, stream: Any, lines: "queue.Queue[dict[str, Any] | None]") -> None:
        for line in stream:
            entry = json.loads(line) if line.startswith("{") else {"event": line}
            with self.logged:
                self.log.append(entry)
                self.logged.notify_all()
            lines.put(entry)
        lines.put(None)

    def _port(self, lines: "queue.Queue[dict[str, Any] | None]") -> int:
        while (entry := lines.get(timeout=_START_SECONDS)) is not None:
            if entry["event"] == "server.started":
                return int(entry["port"])
        raise AssertionError(f"{self.name} did not start: {self.log}")

    def _connect(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self._channel = grpc.insecure_channel(self.address)

    def _close(self, number: signal.Signals) -> int:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self.process.send_signal(number)
        return self.process.wait(timeout=30)


def environment(home: Path, **settings: str) -> dict[str, str]:
    """Returns the environment of a service over `home`, on any free port, with scripted workers."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("CONCH_")},
        "CONCH_HOME": str(home),
        "CONCH_REPOSITORY_URI": str(home / "repository"),
        "CONCH_TRAINER_ADDRESS": "127.0.0.1:0",
        "CONCH_CONVERTER_ADDRESS": "127.0.0.1:0",
        "CONCH_TRAINER_WORKER_MODULE": _WORKER,
        "CONCH_CONVERTER_WORKER_MODULE": _WORKER,
        "CONCH_DRAIN_SECONDS": "2",
        "CONCH_RETRY_DELAY_SECONDS": "0.2",
        **settings,
    }


def start_in_vain(name: str, home: Path, **settings: str) -> "subprocess.CompletedProcess[str]":
    """Starts a service that cannot start; returns how it ended."""
    command = [sys.executable, "-m", f"services.{name}"]
    return subprocess.run(
        command, cwd=ROOT, env=environment(home, **settings), capture_output=True, text=True, timeout=60
    )


def wait_for_exit(pid: int) -> None:
    """Returns once a process is gone, whoever its parent is."""
    fd = os.pidfd_open(pid)
    assert select.select([fd], [], [], 30)[0]
    os.close(fd)


def forget_worker(home: Path) -> None:
    """Leaves the database as a service does that is killed right after it started a worker."""
    with sqlite3.connect(home / "conch.db") as connection:
        connection.execute("UPDATE jobs SET worker_name = NULL, worker_mark = NULL")
    connection.close()


def training_spec(train_uri: Path | str, **fields: Any) -> training_pb2.TrainingSpec:
    """Returns a spec that passes validation."""
    return training_pb2.TrainingSpec(
        task="text-classification",
        base_model="some/model",
        dataset=training_pb2.Dataset(train_uri=str(train_uri)),
        **fields,
    )


def sequences(events: Sequence[job_pb2.JobEvent]) -> list[int]:
    return [event.sequence for event in events]


def warnings(events: Sequence[job_pb2.JobEvent], reason: str = "SCRIPTED") -> list[str]:
    """Returns the messages of the warnings of one reason, in order."""
    return [event.warning.message for event in events if event.warning.reason == reason]


def states(events: Sequence[job_pb2.JobEvent]) -> list[int]:
    """Returns the states entered, in order."""
    return [e.state_changed.state for e in events if e.WhichOneof("event") == "state_changed"]
