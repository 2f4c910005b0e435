"""Answers that come piece by piece: loops over them that let go of the call when they end early.

    for response in conch.generate("Once upon a time", model="stories"):
        print(response.piece.text, end="", flush=True)

Leaving the loop (break, return, an exception) cancels the call, at the gateway too. Knows calls and their
errors; knows nothing about models.
"""

from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, overload

from conch.channels import typed_errors
from conch.v1 import inference_pb2

R = TypeVar("R")


class HasPiece(Protocol):
    """A response of Generate or Chat."""

    @property
    def piece(self) -> inference_pb2.TextPiece:
        """The next piece."""


class Stream(Iterator[R], Generic[R]):
    """The responses of one call, as they arrive; errors are `conch.errors`, also in the middle.

    A loop over it that ends early cancels the call, and so does the end of a `with` block around it; what
    was received stays valid. Asked for more after that, it raises Cancelled.
    """

    def __init__(self, call: Any) -> None:
        self._call = call  # grpc.CallIterator, which types-grpcio makes generic in ways of its own

    def __next__(self) -> R:
        with typed_errors():
            response: R = next(self._call)
            return response

    def __iter__(self) -> Iterator[R]:
        try:
            while True:
                try:
                    response = self.__next__()
                except StopIteration:
                    return
                yield response
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Ends the call, from any thread; nothing happens if it has ended."""
        self._call.cancel()

    close = cancel

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()


class AsyncStream(AsyncIterator[R], Generic[R]):
    """The same for asyncio: `async for`, `async with`; cancelling the task cancels the call."""

    def __init__(self, call: Any) -> None:
        self._call = call  # grpc.aio.UnaryStreamCall
        self._responses = aiter(call)

    async def __anext__(self) -> R:
        with typed_errors():
            response: R = await anext(self._responses)
            return response

    async def __aiter__(self) -> AsyncIterator[R]:
        try:
            while True:
                try:
                    response = await self.__anext__()
                except StopAsyncIteration:
                    return
                yield response
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Ends the call; nothing happens if it has ended."""
        self._call.cancel()

    async def aclose(self) -> None:
        """The same, for contextlib.aclosing."""
        self.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()


@overload
def text_of(stream: Iterable[HasPiece]) -> str: ...


@overload
def text_of(stream: AsyncIterable[HasPiece]) -> Coroutine[Any, Any, str]: ...


def text_of(stream: Iterable[HasPiece] | AsyncIterable[HasPiece]) -> str | Coroutine[Any, Any, str]:
    """Returns the whole text of a stream once it has ended; of an AsyncStream it is to be awaited."""
    if isinstance(stream, AsyncIterable):
        return _async_text_of(stream)
    return "".join(response.piece.text for response in stream)


async def _async_text_of(stream: AsyncIterable[HasPiece]) -> str:
    return "".join([response.piece.text async for response in stream])
