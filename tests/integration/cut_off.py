"""A way to a TCP server that can go dead: nothing comes through any more, and nobody is told."""

import socket
import threading
from contextlib import suppress

_ENOUGH = 65536


class Way:
    """Listens on a port of its own and passes everything on, until `die`."""

    def __init__(self, port: int) -> None:
        """`port` is that of the server, on this machine."""
        self._to = port
        self._dead = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def die(self) -> None:
        """Lets nothing through from now on; connections stay as they are."""
        self._dead.set()

    def close(self) -> None:
        """Ends everything."""
        for end in (self._listener, *self._sockets):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near = self._listener.accept()[0]
                self._sockets.append(near)
                if not self._dead.is_set():
                    self._join(near, socket.create_connection(("127.0.0.1", self._to)))

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        self._sockets.append(far)
        for ends in ((near, far), (far, near)):
            threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(_ENOUGH):
                if not self._dead.is_set():
                    target.sendall(data)
            if not self._dead.is_set():
                target.shutdown(socket.SHUT_WR)
