"""Sends what rows write, and notices who gave up: in a thread of its own, beside the one that computes.

Sending and asking are round trips to Triton of some 100 us each, for which the engine must not wait. Runs
inside Triton's python stubs and cannot import Conch. Knows senders and rows; knows nothing about tokens.
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import contract
import triton_python_backend_utils as pb
from contract import Ask, RowGoneError
from writing import Piece

# How often each row's caller is asked for.
_ASK_EVERY_SECONDS = 0.01
_FINAL = pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class Reply:
    """The way back to one request's caller."""

    def __init__(self, replies: "Replies", sender: Any, ask: Ask, num_input_tokens: int) -> None:
        self._replies = replies
        self.sender, self.ask, self.num_input_tokens = sender, ask, num_input_tokens
        self.row: Any = None

    def emit(self, event: Piece | Exception) -> None:
        """Sends a piece, or an error as the last answer; returns at once."""
        self._replies.put(self, event)


class Replies:
    """All replies under way; `tick` is called some hundred times a second."""

    def __init__(self, decode: Callable[[int], str], tick: Callable[[], None]) -> None:
        self._decode, self._tick = decode, tick
        self._events: queue.SimpleQueue[tuple[Reply, Piece | Exception] | None] = queue.SimpleQueue()
        self._open: set[Reply] = set()
        self._asked = 0.0
        self._thread = threading.Thread(target=self._run, name="replies", daemon=True)
        self._thread.start()

    def open(self, sender: Any, ask: Ask, num_input_tokens: int) -> Reply:
        """Returns a reply; its `row` must be set before the row is submitted."""
        reply = Reply(self, sender, ask, num_input_tokens)
        self._open.add(reply)
        return reply

    def put(self, reply: Reply, event: Piece | Exception) -> None:
        """Queues what is to be sent."""
        self._events.put((reply, event))

    def close(self) -> None:
        """Sends what is queued and returns."""
        self._events.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                event = self._events.get(timeout=_ASK_EVERY_SECONDS)
            except queue.Empty:
                pass
            else:
                if event is None:
                    return
                self._guarded(self._send, *event)
            self._guarded(self._look_around)

    def _look_around(self) -> None:
        if time.monotonic() - self._asked < _ASK_EVERY_SECONDS:
            return
        for reply in list(self._open):
            if reply.row is not None and reply.sender.is_cancelled():
                reply.row.cancelled = True
                self._send(reply, RowGoneError("cancelled", pb.TritonError.CANCELLED))
        self._asked = time.monotonic()
        self._tick()

    def _send(self, reply: Reply, event: Piece | Exception) -> None:
        if reply not in self._open:  # cancelled meanwhile
            return
        is_last = isinstance(event, Exception) or event.finish_reason is not None
        if is_last:
            self._open.discard(reply)
        reply.sender.send(self._response(reply, event), flags=_FINAL if is_last else 0)

    def _response(self, reply: Reply, event: Piece | Exception) -> Any:
        if isinstance(event, Exception):
            return contract.failure(event)
        return contract.response(
            reply.ask, event, num_input_tokens=reply.num_input_tokens, decode=self._decode
        )

    @staticmethod
    def _guarded(action: Callable[..., None], *arguments: Any) -> None:
        try:
            action(*arguments)
        except Exception as error:  # one caller's trouble must not end the thread
            pb.Logger.log_error(f"a reply failed: {error}")
