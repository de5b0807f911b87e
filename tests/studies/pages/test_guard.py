"""Who may ask the dashboard, and what becomes of a study that is renamed or deleted in it."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from command_samples import Studied

from studies.pages.dashboard import _bind
from studies.pages.guard import Guard
from studies.store.connection import Storage
from studies.store.database import open_storage
from studies.store.ledger import SqlLedger


class Asked:
    """A dashboard that notes what it was asked, and answers a picture to everybody."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.paths.append(environ["PATH_INFO"])
        start_response("200 OK", [("Access-Control-Allow-Origin", "*"), ("Content-Type", "image/png")])
        return [b"picture"]


def ask(
    guard: Any, path: str, method: str = "GET", body: Any = None, **headers: str
) -> tuple[int, dict[str, str], Any]:
    """Status, headers and content of the answer to a request."""
    sent = json.dumps(body).encode()
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "127.0.0.1:8080",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(sent)),
        "wsgi.input": io.BytesIO(sent),
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
    } | {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    got: list[Any] = []
    content = b"".join(guard(environ, lambda status, headers, *_: got.extend((int(status[:3]), dict(headers)))))
    return got[0], got[1], content


@pytest.fixture
def storage(studied: Studied) -> Any:
    with open_storage("runs/studies.db") as opened:
        yield opened


@pytest.mark.parametrize(
    ("bound", "host", "headers", "status"),
    [
        ("127.0.0.1", "127.0.0.1:8080", {}, 200),
        ("127.0.0.1", "localhost:8080", {}, 200),
        ("127.0.0.1", "[::1]:8080", {}, 200),
        ("::1", "[::1]:8080", {}, 200),
        ("127.0.0.1", "evil.example:8080", {}, 403),
        ("127.0.0.1", "127.0.0.1.evil.example", {}, 403),
        ("127.0.0.1", "", {}, 403),
        ("0.0.0.0", "192.0.2.7:8080", {}, 200),
        ("0.0.0.0", "evil.example:8080", {}, 403),
        ("lab", "lab:8080", {}, 200),
        ("127.0.0.1", "127.0.0.1:8080", {"origin": "http://127.0.0.1:8080"}, 200),
        ("127.0.0.1", "127.0.0.1:8080", {"origin": "http://evil.example"}, 403),
        ("127.0.0.1", "127.0.0.1:8080", {"origin": "http://127.0.0.1:9090"}, 403),
        ("127.0.0.1", "127.0.0.1:8080", {"origin": "null"}, 403),
        ("127.0.0.1", "127.0.0.1:8080", {"sec_fetch_site": "same-origin"}, 200),
        ("127.0.0.1", "127.0.0.1:8080", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}, 403),
        ("127.0.0.1", "127.0.0.1:8080", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}, 200),
    ],
)
def test_only_its_own_pages_may_ask(
    storage: Storage, bound: str, host: str, headers: dict[str, str], status: int
) -> None:
    inner = Asked()
    found, answered, content = ask(Guard(inner, storage, bound), "/artifacts/1/2/ab-1", host=host, **headers)
    assert (found, bool(inner.paths)) == (status, status == 200)
    assert not any(name.lower().startswith("access-control-") for name in answered)
    if status == 200:
        assert answered["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answered["Content-Type"] == "image/png"
    else:
        assert "reason" in json.loads(content)


def test_a_study_that_is_worked_on_is_neither_renamed_nor_deleted(storage: Storage) -> None:
    inner = Asked()
    guard = Guard(inner, storage, "127.0.0.1")
    with SqlLedger.open("small", storage.masked) as ledger, ledger.drive():
        for method, path in (("DELETE", ""), ("POST", "/rename")):
            body = {"study_name": "large"}
            status, _, content = ask(guard, f"/api/studies/{ledger.study_id}{path}", method, body)
            assert status == 409
            assert "is being worked on" in json.loads(content)["reason"]
        assert inner.paths == []
        study_id = ledger.study_id
    for number in (study_id, 10**6):  # of which one is no study
        assert ask(guard, f"/api/studies/{number}", "DELETE")[0] == 200
    assert inner.paths == [f"/api/studies/{number}" for number in (study_id, 10**6)], "the dashboard deletes it"
    assert Path("runs/small").is_dir()


def test_a_connection_that_sends_nothing_keeps_nobody_waiting() -> None:
    server = _bind(Asked(), "127.0.0.1", 18080, 100)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=20):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"picture"
            connection.close()
    finally:
        server.shutdown()
        server.server_close()
        thread.join(20)
