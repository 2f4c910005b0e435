"""Brings one staged version of a loaded model up: reads what Triton says of it, warms it, proves it.

Knows Triton's metadata and a version's files; knows nothing about routes, shares or other versions.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from conch.v1 import inference_pb2, job_pb2, models_pb2
from services.errors import BackendUnavailable, NotFound, NotReady, ServiceError
from services.gateway import proving
from services.gateway.batching import Batcher, BatchLimits, BatchObserver, Infer
from services.gateway.served import ServedVersion
from services.gateway.settings import GatewaySettings
from services.gateway.shapes import Shapes
from services.gateway.streams import StreamLimits, StreamObserver, Streams
from services.gateway.triton import Triton
from services.gateway.triton_streams import INPUTS, OUTPUTS, TritonWriter
from services.repository import certificates
from services.targets import runtime_name, runtime_of
from services.tasks import Architecture, Facts, Task, find_task
from services.tasks.encoding import Encoder
from services.tasks.tensors import Array

log = structlog.get_logger(__name__)

_PROOF_SECONDS = 120.0


class VersionMetrics(Protocol):
    """Where a version's batches and streams are counted."""

    def batches(self, model: str, version: int) -> BatchObserver:
        """Returns the observer of one version's batches."""

    def stream_gauges(self, model: str, version: int) -> StreamObserver:
        """Returns the observer of one version's streams."""


@dataclass(frozen=True)
class Warming:
    """What every version's way up needs; `on_lost` hears of each call that Triton did not answer."""

    settings: GatewaySettings
    triton: Triton
    metrics: VersionMetrics | None
    on_lost: Callable[[], None]

    async def bring_up(self, version: models_pb2.Version) -> ServedVersion:
        """Returns a version that Triton has loaded, once it is warm and proven.

        Raises NotReady with a sentence if it cannot serve, BackendUnavailable if Triton is gone.
        """
        verdict = await asyncio.to_thread(self._verdict, version)
        task = find_task(version.manifest.checkpoint.task)
        folder = self.settings.resolved_staged() / version.model / str(version.version)
        encoder = await asyncio.to_thread(_read_encoder, folder, version)
        try:
            runtime = await self._runtime(version, task)
            batcher, streams = await self._ways(version, task, encoder, runtime)
        except NotFound as error:
            raise BackendUnavailable(
                "Triton lost it while it came up", reason="TRITON_UNAVAILABLE"
            ) from error
        served = ServedVersion(
            version=version,
            task=task,
            facts=Facts.of(version.manifest.checkpoint),
            encoder=encoder,
            served_by=_served_by(version, verdict, runtime),
            batcher=batcher,
            streams=streams,
        )
        await self._prove(served, folder, verdict)
        return served

    def _verdict(self, version: models_pb2.Version) -> job_pb2.Verdict | None:
        try:
            return certificates.check(version, self.settings.runtime)
        except NotReady:
            if f"{version.model}@{version.version}" in self.settings.allow_uncertified:
                return None
            raise

    async def _runtime(self, version: models_pb2.Version, task: Task) -> job_pb2.Runtime.ValueType:
        form = task.form_in(runtime_of(self.settings.runtime))
        config = await self.triton.model_config(version.model, version.version)
        name = config.backend or config.platform.removesuffix("_onnx")
        if form is None or name != form.backend:
            raise NotReady(
                f"Triton runs it with {name or 'no known backend'}, this gateway expects "
                f"{form.backend if form else self.settings.runtime}: start both with the same CONCH_RUNTIME",
                reason="OTHER_RUNTIME",
            )
        return form.runtime

    async def _ways(
        self, version: models_pb2.Version, task: Task, encoder: Encoder, runtime: job_pb2.Runtime.ValueType
    ) -> tuple[Batcher | None, Streams | None]:
        if task.architecture is Architecture.DECODER:
            return None, await self._streams(version)
        return self._batcher(version, await self._infer(version, task), encoder, runtime), None

    async def _streams(self, version: models_pb2.Version) -> Streams:
        model, number = version.model, version.version
        metadata = await self.triton.metadata(model, number)
        _taken(INPUTS, [t.name for t in metadata.inputs], "does not take the inputs")
        _taken(OUTPUTS, [t.name for t in metadata.outputs], "does not give the outputs")
        return Streams(
            TritonWriter(self.triton, model, number, self.on_lost),
            limits=StreamLimits.of(self.settings),
            subject=f"{model}@{number}",
            observe=self.metrics.stream_gauges(model, number) if self.metrics else None,
        )

    async def _infer(self, version: models_pb2.Version, task: Task) -> Infer:
        metadata = await self.triton.metadata(version.model, version.version)
        taken = _taken(
            [t.name for t in metadata.inputs], [s.name for s in task.inputs], "asks for the inputs"
        )
        outputs = [spec.name for spec in task.outputs]
        _taken(outputs, [t.name for t in metadata.outputs], "does not give the outputs")

        async def infer(inputs: Mapping[str, Array], seconds: float | None) -> Mapping[str, Array]:
            wanted = {name: inputs[name] for name in taken}
            try:
                return await self.triton.infer(
                    version.model, version.version, wanted, outputs, timeout_seconds=seconds
                )
            except BackendUnavailable:
                self.on_lost()
                raise

        return infer

    def _batcher(
        self,
        version: models_pb2.Version,
        infer: Infer,
        encoder: Encoder,
        runtime: job_pb2.Runtime.ValueType,
    ) -> Batcher:
        return Batcher(
            infer,
            shapes=Shapes.of(self.settings, runtime_name(runtime), encoder.max_length),
            limits=BatchLimits.of(self.settings),
            pad_id=encoder.pad_id,
            subject=f"{version.model}@{version.version}",
            observe=self.metrics.batches(version.model, version.version) if self.metrics else None,
        )

    async def _prove(self, served: ServedVersion, folder: Path, verdict: job_pb2.Verdict | None) -> None:
        started = time.monotonic()
        golden = await asyncio.to_thread(proving.read_golden, folder)
        try:
            async with asyncio.timeout(_PROOF_SECONDS):
                figures = await self._figures(served, golden, verdict)
            seconds = round(time.monotonic() - started, 3)
            facts = {name: round(value, 6) for name, value in figures.items()}
            log.info(
                "version.proven",
                model=served.version.model,
                version=served.version.version,
                seconds=seconds,
                **facts,
            )
        except ServiceError:
            raise
        except TimeoutError as error:
            raise BackendUnavailable(
                f"Triton did not answer the golden examples within {_PROOF_SECONDS:.0f} s",
                reason="TRITON_UNAVAILABLE",
            ) from error
        except Exception as error:
            raise NotReady(
                f"it did not prove itself: its golden examples were not answered: {error}",
                reason="NOT_PROVEN",
            ) from error

    async def _figures(
        self,
        served: ServedVersion,
        golden: Sequence[models_pb2.GoldenExample],
        verdict: job_pb2.Verdict | None,
    ) -> dict[str, float]:
        task, encoder = served.task, served.encoder
        if served.streams:
            return await proving.prove_texts(golden, task=task, streams=served.streams, verdict=verdict)
        assert served.batcher, "what has no streams has a batcher"
        parameters = served.task.warming_parameters(served.facts)
        await served.batcher.warm(self.settings.warm_seconds, parameters=parameters)
        return await proving.prove(
            golden, task=task, facts=served.facts, encoder=encoder, batcher=served.batcher, verdict=verdict
        )


def _read_encoder(folder: Path, version: models_pb2.Version) -> Encoder:
    try:
        return Encoder.from_file(folder / "tokenizer.json", version.manifest.checkpoint.max_length)
    except Exception as error:  # tokenizers raises bare Exception for a bad file
        raise NotReady(f"its tokenizer.json cannot be read: {error}", reason="ARTIFACT_DAMAGED") from error


def _served_by(
    version: models_pb2.Version, verdict: job_pb2.Verdict | None, runtime: job_pb2.Runtime.ValueType
) -> inference_pb2.ServedBy:
    return inference_pb2.ServedBy(
        model=version.model,
        version=version.version,
        artifact_digest=version.digest,
        precision=verdict.precision if verdict else job_pb2.PRECISION_UNSPECIFIED,
        runtime=runtime,
        uncertified=verdict is None,
    )


def _taken(needed: Sequence[str], known: Sequence[str], complaint: str) -> list[str]:
    strange = [name for name in needed if name not in known]
    if strange:
        raise NotReady(f"it {complaint} {', '.join(strange)}", reason="OTHER_SIGNATURE")
    return list(needed)
