"""What stands before Optuna Dashboard: only its own pages may ask it, and studies keep their records."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from nas.errors import SkipnasError
from studies.store.connection import Storage
from studies.store.deletion import refuse_driven

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Guard:
    """A WSGI application around the dashboard's.

    Args:
        inner: the dashboard.
        storage: the database that it serves.
        host: the address that the server is bound to.
    """

    def __init__(self, inner: Application, storage: Storage, host: str) -> None:
        self._inner, self._storage, self._host = inner, storage, host

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if why := self._stranger(environ):
            return _answer(start_response, "403 Forbidden", why)
        try:
            self._check_study(environ)
        except SkipnasError as error:
            return _answer(start_response, "409 Conflict", str(error))

        def own(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            kept = [(name, value) for name, value in headers if not name.lower().startswith("access-control-")]
            kept += [("Cross-Origin-Resource-Policy", "same-origin"), ("X-Frame-Options", "DENY")]
            return start_response(status, kept, *rest)

        return self._inner(environ, own)

    def _stranger(self, environ: dict[str, Any]) -> str:
        """Returns the reason why a request is refused; "" for one of the dashboard's own pages.

        A page of another site can make a browser ask here, under a name that leads to this machine, or for a picture.
        """
        asked = environ.get("HTTP_HOST", "")
        name = re.sub(r":\d+$", "", asked).lower()
        if not self._is_own(name):
            return f"the dashboard is not at {asked!r}; open it at the address that it printed"
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and origin.lower() != f"http://{asked.lower()}":
            return f"a page of {origin!r} may not ask the dashboard"
        site, mode = environ.get("HTTP_SEC_FETCH_SITE", "none"), environ.get("HTTP_SEC_FETCH_MODE", "")
        reads = environ["REQUEST_METHOD"] in ("GET", "HEAD")
        if site not in ("none", "same-origin") and not (mode == "navigate" and reads):
            return "a page of another site may not ask the dashboard"
        return ""

    def _is_own(self, name: str) -> bool:
        if name in LOOPBACK or name in (self._host.lower(), f"[{self._host.lower()}]"):
            return True
        if self._host not in ("0.0.0.0", "::"):
            return False
        try:  # bound to every address of the machine; a name could be anybody's that leads here
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True

    def _check_study(self, environ: dict[str, Any]) -> None:
        """Raises StudyError for a request that would delete or rename a study that is being worked on."""
        match = re.fullmatch(r"/api/studies/(\d{1,18})(/rename)?", environ.get("PATH_INFO", ""))
        method = environ["REQUEST_METHOD"]
        if match is None or (method, match[2]) not in (("DELETE", None), ("POST", "/rename")):
            return
        study_id = int(match[1])
        with self._storage.guard():
            try:
                name = self._storage.optuna.get_study_name_from_id(study_id)
            except KeyError:
                return
        # The dashboard deletes a study's pictures before its database refuses; to rename one is to make another one and
        # to delete this one.
        with self._storage.transaction() as connection:
            refuse_driven(connection, study_id, name, "delete" if method == "DELETE" else "rename")


def _answer(start_response: Callable[..., Any], status: str, reason: str) -> list[bytes]:
    content = json.dumps({"reason": reason}).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(content)))])
    return [content]
