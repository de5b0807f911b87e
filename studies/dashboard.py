"""Optuna Dashboard on a storage, on this machine, until it is stopped."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from nas.errors import ConfigError
from studies.storage import open_storage


def serve(
    storage: str | None, *, host: str = "127.0.0.1", port: int = 8080, ready: Callable[[str], None] = lambda url: None
) -> None:
    """Serves Optuna Dashboard until interrupted; it has no passwords and can delete studies.

    Args:
        storage: URL as for `open_storage`.
        host: address to bind to.
        port: must be free.
        ready: called with the address once requests are answered.

    Raises:
        ConfigError: the port is taken or the host is not one of this machine's.
        StorageError: see `open_storage`.
    """
    from optuna_dashboard import wsgi

    if not 1 <= port <= 65535:
        raise ConfigError(f"--port {port} is not a port; give 1 to 65535")
    with open_storage(storage, must_exist=True) as opened:
        # The standard library's server would set SO_REUSEADDR and may then share a port that is in use.
        try:
            with socket.create_server((host, port)):
                pass
            server = make_server(host, port, wsgi(opened.optuna), WSGIServer, _Quiet)
        except OSError as error:
            reason = str(error.strerror or error).partition(" (")[0]
            raise ConfigError(f"--port {port} on {host}: {reason}; choose another port or stop what uses it") from None
        with server, _stopped_by_signals(server):
            ready(f"http://{host}:{port}/")
            server.serve_forever()


@contextlib.contextmanager
def _stopped_by_signals(server: WSGIServer) -> Iterator[None]:
    """SIGINT and SIGTERM end `serve_forever`. As exceptions they could be swallowed by a request's handler."""

    def stop(number: int, frame: object) -> None:
        threading.Thread(target=server.shutdown).start()  # it waits for the loop that this handler interrupts

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Quiet(WSGIRequestHandler):
    """Requests are not worth a line each."""

    def log_message(self, format: str, *args: object) -> None:
        pass
