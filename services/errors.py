"""The errors that a caller can meet, and the gRPC status that each one is.

    ServiceError
    ├── InvalidRequest      INVALID_ARGUMENT     can never succeed as sent
    ├── NotFound            NOT_FOUND            no such job, model, version
    ├── AlreadyExists       ALREADY_EXISTS       the id is taken by another spec
    ├── NotReady            FAILED_PRECONDITION  exists, but its state forbids it
    ├── Overloaded          RESOURCE_EXHAUSTED   queue full, quota spent
    ├── DeadlineExceeded    DEADLINE_EXCEEDED    no time left, or not enough
    ├── Cancelled           CANCELLED            stopped because someone asked for it
    ├── Unauthenticated     UNAUTHENTICATED      no or wrong credentials
    ├── Forbidden           PERMISSION_DENIED    not yours
    └── BackendUnavailable  UNAVAILABLE          Triton, database, Kubernetes did not answer

Knows google.rpc; knows nothing about servers. Foreign exceptions become one of these where the
foreign library is called. Anything else that escapes is a bug and becomes INTERNAL in
`services.interceptors`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

DOMAIN = "conch"


@dataclass(frozen=True)
class Violation:
    """One field of a request and what is wrong with it."""

    field: str
    description: str


class ServiceError(Exception):
    """An error that knows its gRPC status; `reason` is UPPER_SNAKE and stable, for programs."""

    code: ClassVar[int] = code_pb2.UNKNOWN
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, reason: str, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})

    def details(self) -> Sequence[Message]:
        """Returns what goes into the status beside google.rpc.ErrorInfo."""
        return ()

    def to_status(self) -> status_pb2.Status:
        """Returns the google.rpc.Status with ErrorInfo first and `details()` after it."""
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata)
        return status_pb2.Status(
            code=self.code, message=self.message, details=[_packed(d) for d in (info, *self.details())]
        )


class InvalidRequest(ServiceError):
    """The request can never succeed as sent: says which fields and why."""

    code = code_pb2.INVALID_ARGUMENT

    def __init__(self, *violations: Violation, reason: str = "INVALID_FIELD") -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in violations), reason=reason)
        self.violations = violations

    @classmethod
    def field(cls, field: str, description: str, *, reason: str = "INVALID_FIELD") -> "InvalidRequest":
        """Returns the error of one bad field."""
        return cls(Violation(field, description), reason=reason)

    def details(self) -> Sequence[Message]:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(
                field=v.field, description=v.description, reason=self.reason
            )
            for v in self.violations
        ]
        return (error_details_pb2.BadRequest(field_violations=violations),)


class NotFound(ServiceError):
    """No such job, model or version."""

    code = code_pb2.NOT_FOUND


class AlreadyExists(ServiceError):
    """The id is taken by something else."""

    code = code_pb2.ALREADY_EXISTS


class NotReady(ServiceError):
    """It exists, but its state forbids what was asked."""

    code = code_pb2.FAILED_PRECONDITION


class DeadlineExceeded(ServiceError):
    """The deadline passed, or is too near for the work that is left."""

    code = code_pb2.DEADLINE_EXCEEDED


class Cancelled(ServiceError):
    """Stopped because someone asked for it."""

    code = code_pb2.CANCELLED


class Unauthenticated(ServiceError):
    """No or wrong credentials."""

    code = code_pb2.UNAUTHENTICATED


class Forbidden(ServiceError):
    """The caller is known and may not."""

    code = code_pb2.PERMISSION_DENIED


class _RetryLater(ServiceError):
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        retry_seconds: float = 1.0,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.retry_seconds = retry_seconds

    def details(self) -> Sequence[Message]:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(max(1, round(self.retry_seconds * 1000)))
        return (error_details_pb2.RetryInfo(retry_delay=delay),)


class Overloaded(_RetryLater):
    """A queue is full or a quota spent; RetryInfo says when to come back."""

    code = code_pb2.RESOURCE_EXHAUSTED

    def __init__(self, message: str, *, reason: str, subject: str, retry_seconds: float = 1.0) -> None:
        super().__init__(message, reason=reason, retry_seconds=retry_seconds)
        self.subject = subject

    def details(self) -> Sequence[Message]:
        violation = error_details_pb2.QuotaFailure.Violation(subject=self.subject, description=self.message)
        return (*super().details(), error_details_pb2.QuotaFailure(violations=[violation]))


class BackendUnavailable(_RetryLater):
    """Something behind us did not answer; safe to retry after RetryInfo."""

    code = code_pb2.UNAVAILABLE


def internal_status() -> status_pb2.Status:
    """Returns the status of a fault of ours: no detail leaks; the traceback is in the log."""
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN)
    return status_pb2.Status(code=code_pb2.INTERNAL, message="internal error", details=[_packed(info)])


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
