"""Shows Prometheus a registry over HTTP. Knows nothing about what is in it."""

from prometheus_client import CollectorRegistry, start_http_server


class Exposition:
    """The HTTP server of /metrics, in a thread of its own."""

    def __init__(self, registry: CollectorRegistry, address: str) -> None:
        """Listens on `address` (host:port, port 0 = any free one). Raises OSError if it is taken."""
        host, _, port = address.rpartition(":")
        try:
            self._server, self._thread = start_http_server(int(port), host, registry=registry)
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {address} for metrics: {error.strerror}") from error
        self.port = int(self._server.server_port)

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
