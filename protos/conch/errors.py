"""What a call to Conch can fail with, as exceptions that carry everything the service said.

    ConchError
    ├── InvalidArgument      can never succeed as sent: `field_violations` says what is wrong
    ├── NotFound             no such model, version or job is known there
    ├── AlreadyExists        the id belongs to another spec
    ├── FailedPrecondition   exists, but its state forbids the call
    ├── ResourceExhausted    overloaded: come back after `retry_after_seconds`
    ├── Unavailable          nothing answered, or it is still loading: come back likewise
    ├── DeadlineExceeded     the deadline passed, or was too near for the work
    ├── Cancelled            the call was cancelled
    ├── Unauthenticated      no or wrong credentials
    ├── PermissionDenied     the caller is known and may not
    └── Internal             a fault of the service; its log knows more

Knows google.rpc; knows nothing about channels. Any status without a class of its own is a plain ConchError.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import grpc
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True)
class FieldViolation:
    """One field of a request and what is wrong with it."""

    field: str
    description: str


class ConchError(Exception):
    """A call that failed; `code` is its gRPC status, `reason` is UPPER_SNAKE and stable, for programs.

    `reason` is empty where the failure came from no Conch service (a refused connection, say);
    `retry_after_seconds` is None where the service asked for no wait.
    """

    default_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        field_violations: tuple[FieldViolation, ...] = (),
        retry_after_seconds: float | None = None,
        code: grpc.StatusCode | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.field_violations = field_violations
        self.retry_after_seconds = retry_after_seconds
        self.code = code or self.default_code


class InvalidArgument(ConchError):
    """The request can never succeed as sent."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(ConchError):
    """No such model, version or job is known there."""

    default_code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(ConchError):
    """The id belongs to another spec."""

    default_code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(ConchError):
    """It exists, but its state forbids what was asked."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION


class ResourceExhausted(ConchError):
    """The service is overloaded or a quota is spent."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(ConchError):
    """Nothing answered, or the version is still loading; the retries of the channel are used up."""

    default_code = grpc.StatusCode.UNAVAILABLE


class DeadlineExceeded(ConchError):
    """The deadline passed, or was too near for the work that was left."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED


class Cancelled(ConchError):
    """The call was cancelled."""

    default_code = grpc.StatusCode.CANCELLED


class Unauthenticated(ConchError):
    """No or wrong credentials."""

    default_code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDenied(ConchError):
    """The caller is known and may not."""

    default_code = grpc.StatusCode.PERMISSION_DENIED


class Internal(ConchError):
    """A fault of the service."""

    default_code = grpc.StatusCode.INTERNAL


_BY_CODE = {kind.default_code: kind for kind in ConchError.__subclasses__()}


def from_rpc_error(error: grpc.RpcError) -> ConchError:
    """Returns the ConchError of what a sync or aio call raised."""
    call: Any = error  # grpc raises RpcError objects that are also Calls; its types do not say so
    status = _rich_status(call.trailing_metadata())
    return _build(call.code(), status.message or call.details() or "", status)


def from_status(status: status_pb2.Status) -> ConchError:
    """Returns the ConchError of a status inside a message, such as `job.status.error`."""
    codes = {code.value[0]: code for code in grpc.StatusCode}
    return _build(codes.get(status.code, grpc.StatusCode.UNKNOWN), status.message, status)


def _build(code: grpc.StatusCode, message: str, status: status_pb2.Status) -> ConchError:
    info, bad, retry = (
        _detail(status, kind)
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
    )
    return _BY_CODE.get(code, ConchError)(
        message,
        reason=info.reason if info else "",
        field_violations=tuple(FieldViolation(v.field, v.description) for v in bad.field_violations)
        if bad
        else (),
        retry_after_seconds=retry.retry_delay.ToMilliseconds() / 1000 if retry else None,
        code=code,
    )


def _rich_status(metadata: Any) -> status_pb2.Status:
    status = status_pb2.Status()
    for key, value in metadata or ():
        if key == _DETAILS_KEY:
            status.ParseFromString(value)
    return status


def _detail(status: status_pb2.Status, kind: Any) -> Any:
    """Returns the status's detail of that message type, None if it has none."""
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):
            detail = kind()
            packed.Unpack(detail)
            return detail
    return None
