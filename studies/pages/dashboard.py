"""Optuna Dashboard on a storage, on this machine, until it is stopped, with the picture and notes of every trial."""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, BinaryIO
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.artifacts.exceptions import ArtifactNotFound

from nas.errors import ConfigError, SkipnasError
from nas.training.checkpoint import strip_path
from studies.pages.guard import Guard
from studies.pages.notes import annotate
from studies.reading.study import StudyReader
from studies.store.catalog import StudySummary, list_studies
from studies.store.connection import Storage
from studies.store.database import open_storage
from studies.store.files import files_dir

log = logging.getLogger(__name__)
NOTES_SECONDS = 30.0
"""The seconds between two looks for ended trials that need notes, while the dashboard runs."""

PORTS_TRIED = 100
IDLE_SECONDS = 60.0


def serve(
    storage: str | None,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    next_free: bool = False,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serves Optuna Dashboard until interrupted. It has no passwords and can delete studies.

    Args:
        storage: URL as for `open_storage`.
        host: address to bind to.
        port: port to use.
        next_free: whether to take the next free port when this one is taken.
        ready: called with the address once requests are answered.

    Raises:
        ConfigError: the port is taken or the host is not one of this machine's.
        StorageError: see `open_storage`.
    """
    from optuna_dashboard import wsgi

    with open_storage(storage, must_exist=True) as opened:
        application = Guard(wsgi(opened.optuna, artifact_store=Pictures(opened)), opened, host)
        server = _bind(application, host, port, PORTS_TRIED if next_free else 1)
        with server, _stopped_by_signals(server), _notes_kept(opened):
            ready(f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}/")
            server.serve_forever()


def _bind(application: Any, host: str, port: int, tries: int) -> WSGIServer:
    """Returns a server on the first free one of `tries` ports."""
    for at in range(port, min(port + tries, 65536)):
        # The standard library's server would set SO_REUSEADDR, and may then share a port that is in use.
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.create_server((host, at), family=family):
                pass
            _Server.address_family = family
            return make_server(host, at, application, _Server, _Quiet)
        except OSError as error:
            failure = error
            if failure.errno != errno.EADDRINUSE:
                break
    reason = str(failure.strerror or failure).partition(" (")[0]
    raise ConfigError(f"`port` {port} on {host}: {reason}; choose another port, or `next_free`") from None


class Pictures:
    """Optuna's artifact store. Pictures of trials lie where their searches put them, uploads of people in a folder."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._uploads = files_dir(storage.url, "artifacts")

    def open_reader(self, artifact_id: str) -> BinaryIO:
        try:
            return self._path(artifact_id).open("rb")
        except FileNotFoundError:
            raise ArtifactNotFound(f"there is no picture {artifact_id} on this machine") from None

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        self._uploads.mkdir(parents=True, exist_ok=True)
        with self._path(artifact_id).open("wb") as file:
            shutil.copyfileobj(content_body, file)

    def remove(self, artifact_id: str) -> None:
        self._path(artifact_id).unlink(missing_ok=True)

    def _path(self, artifact_id: str) -> Path:
        if match := re.fullmatch(r"([0-9a-f]+)-([0-9a-f]+)", artifact_id):  # see `picture_attribute`
            return strip_path(self._folder(int(match[1], 16)), int(match[2], 16))
        if not re.fullmatch(r"[0-9a-fA-F-]+", artifact_id):
            raise ArtifactNotFound(f"{artifact_id!r} is not the id of an artifact")
        return self._uploads / artifact_id

    def _folder(self, study_id: int) -> Path:
        with self._storage.guard():
            return files_dir(self._storage.url, self._storage.optuna.get_study_name_from_id(study_id))


@contextlib.contextmanager
def _notes_kept(storage: Storage) -> Iterator[None]:
    """Writes notes at once, and again while the block runs, in the background."""
    stop = threading.Event()
    noted: dict[str, StudySummary] = {}

    def keep() -> None:
        while True:
            write_notes(storage, noted)
            if stop.wait(NOTES_SECONDS):
                return

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


def write_notes(storage: Storage, noted: dict[str, StudySummary]) -> None:
    """Writes the notes of every study that changed since it was `noted`. Errors are logged, and the notes tried again.

    A study that cannot be read must neither keep the others from their notes nor end this thread.
    """
    try:
        summaries = list_studies(storage)
    except Exception as error:
        log.warning("notes are not written: %s", error, exc_info=not isinstance(error, SkipnasError))
        return
    for summary in summaries:
        if noted.get(summary.name) == summary:
            continue
        try:
            annotate(StudyReader.open(summary.name, storage))
        except Exception as error:
            told = not isinstance(error, SkipnasError)  # only a bug needs its traceback
            log.warning("notes of study %s are not written: %s", summary.name, error, exc_info=told)
        else:
            noted[summary.name] = summary


@contextlib.contextmanager
def _stopped_by_signals(server: WSGIServer) -> Iterator[None]:
    """Lets SIGINT and SIGTERM end `serve_forever`. As exceptions they could be swallowed by a request's handler."""

    def stop(number: int, frame: object) -> None:
        threading.Thread(target=server.shutdown).start()  # it waits for the loop that this handler interrupts

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Server(ThreadingMixIn, WSGIServer):
    """A server with a thread for each request, so that a connection that sends nothing keeps nobody waiting."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    """A handler that does not print a line for each request, and gives up a connection that sends nothing."""

    timeout = IDLE_SECONDS

    def log_message(self, format: str, *args: object) -> None:
        pass
