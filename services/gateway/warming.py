"""Brings one version up at one server: reads what Triton says of it, warms it, proves it.

Knows Triton's metadata and a version's dossier; knows nothing about routes, shares or other versions.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from conch.v1 import inference_pb2, job_pb2
from services.errors import BackendUnavailable, NotFound, NotReady, ServiceError
from services.gateway import proving
from services.gateway.batching import Batcher, BatchLimits, BatchObserver, Infer
from services.gateway.crew import Crew, Place
from services.gateway.dossier import Dossier
from services.gateway.served import ServedVersion
from services.gateway.servers import Server
from services.gateway.settings import GatewaySettings
from services.gateway.shapes import Shapes
from services.gateway.streams import StreamLimits, StreamObserver, Streams
from services.gateway.triton_streams import INPUTS, OUTPUTS
from services.targets import runtime_name
from services.tasks import Architecture, Facts

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
    """What every version's way up needs."""

    settings: GatewaySettings
    metrics: VersionMetrics | None

    def served(self, dossier: Dossier, *, pool: str = "") -> ServedVersion:
        """Returns a version that answers as soon as a place joins its crew."""
        crew = Crew(dossier.name, pool=pool)
        is_decoder = dossier.task.architecture is Architecture.DECODER
        served = ServedVersion(
            version=dossier.version,
            task=dossier.task,
            facts=Facts.of(dossier.version.manifest.checkpoint),
            encoder=dossier.encoder,
            served_by=_served_by(
                dossier, dossier.forms[0].runtime, dossier.verdicts[dossier.forms[0].backend]
            ),
            crew=crew,
            pool=pool,
            batcher=None if is_decoder else self._batcher(dossier, crew.infer, with_metrics=True),
            streams=self._streams(dossier, crew) if is_decoder else None,
        )
        crew.on_size = served.spread
        return served

    async def prove(self, dossier: Dossier, server: Server, warm: bool) -> Place:
        """Returns the place that a version has at a server, once it is proven there, if `warm` warmed before.

        Raises NotReady with a sentence if it answers wrong there, BackendUnavailable if Triton is gone.
        """
        try:
            place, verdict = await self._place(dossier, server)
        except NotFound as error:
            raise BackendUnavailable(
                "Triton lost it while it came up", reason="TRITON_UNAVAILABLE"
            ) from error
        started = time.monotonic()
        figures = await self._proof(dossier, place, verdict, warm=warm)
        log.info(
            "version.proven",
            model=dossier.version.model,
            version=dossier.version.version,
            server=server.address,
            seconds=round(time.monotonic() - started, 3),
            **{name: round(value, 6) for name, value in figures.items()},
        )
        return place

    async def _place(self, dossier: Dossier, server: Server) -> tuple[Place, job_pb2.Verdict | None]:
        model, number = dossier.key
        form, verdict = dossier.form_run_by(await server.triton.model_config(model, number))
        metadata = await server.triton.metadata(model, number)
        takes, gives = [t.name for t in metadata.inputs], [t.name for t in metadata.outputs]
        served_by = _served_by(dossier, form.runtime, verdict)
        if dossier.task.architecture is Architecture.DECODER:
            _taken(INPUTS, takes, "does not take the inputs")
            _taken(OUTPUTS, gives, "does not give the outputs")
            return Place(server, served_by, INPUTS, OUTPUTS), verdict
        outputs = [spec.name for spec in dossier.task.outputs]
        _taken(outputs, gives, "does not give the outputs")
        taken = _taken(takes, [s.name for s in dossier.task.inputs], "asks for the inputs")
        return Place(server, served_by, taken, outputs), verdict

    async def _proof(
        self, dossier: Dossier, place: Place, verdict: job_pb2.Verdict | None, *, warm: bool
    ) -> dict[str, float]:
        try:
            async with asyncio.timeout(_PROOF_SECONDS):
                return await self._figures(dossier, place, verdict, warm=warm)
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
        self, dossier: Dossier, place: Place, verdict: job_pb2.Verdict | None, *, warm: bool
    ) -> dict[str, float]:
        task, golden = dossier.task, dossier.golden
        if task.architecture is Architecture.DECODER:
            crew = Crew(dossier.name)
            crew.join(place)
            streams = Streams(crew, limits=StreamLimits.of(self.settings), subject=dossier.name)
            return await proving.prove_texts(golden, task=task, streams=streams, verdict=verdict)
        facts = Facts.of(dossier.version.manifest.checkpoint)
        # Not the version's own batcher: what it answers must come from this server alone.
        batcher = self._batcher(dossier, place.infer, with_metrics=False)
        figures = await proving.prove(
            golden, task=task, facts=facts, encoder=dossier.encoder, batcher=batcher, verdict=verdict
        )
        if warm:  # last: what is wrong is not worth it
            await batcher.warm(self.settings.warm_seconds, parameters=task.warming_parameters(facts))
        return figures

    def _batcher(self, dossier: Dossier, infer: Infer, *, with_metrics: bool) -> Batcher:
        runtime = runtime_name(dossier.forms[0].runtime)
        return Batcher(
            infer,
            shapes=Shapes.of(self.settings, runtime, dossier.encoder.max_length),
            limits=BatchLimits.of(self.settings),
            pad_id=dossier.encoder.pad_id,
            subject=dossier.name,
            observe=self.metrics.batches(*dossier.key) if self.metrics and with_metrics else None,
        )

    def _streams(self, dossier: Dossier, crew: Crew) -> Streams:
        return Streams(
            crew,
            limits=StreamLimits.of(self.settings),
            subject=dossier.name,
            observe=self.metrics.stream_gauges(*dossier.key) if self.metrics else None,
        )


def _served_by(
    dossier: Dossier, runtime: job_pb2.Runtime.ValueType, verdict: job_pb2.Verdict | NotReady | None
) -> inference_pb2.ServedBy:
    certified = isinstance(verdict, job_pb2.Verdict)
    return inference_pb2.ServedBy(
        model=dossier.version.model,
        version=dossier.version.version,
        artifact_digest=dossier.version.digest,
        precision=verdict.precision
        if isinstance(verdict, job_pb2.Verdict)
        else job_pb2.PRECISION_UNSPECIFIED,
        runtime=runtime,
        uncertified=not certified,
    )


def _taken(needed: Sequence[str], known: Sequence[str], complaint: str) -> list[str]:
    strange = [name for name in needed if name not in known]
    if strange:
        raise NotReady(f"it {complaint} {', '.join(strange)}", reason="OTHER_SIGNATURE")
    return list(needed)
