"""A page in a browser, with all that goes wrong on it."""

from __future__ import annotations

from typing import Any


class Visit:
    """A page at an address, and what went wrong on it: errors, and requests to any other place."""

    def __init__(self, browser: Any, address: str, **context: Any) -> None:
        self.page = browser.new_context(**context).new_page()
        self.address = address
        self.wrong: list[str] = []
        self.page.on("console", lambda message: message.type == "error" and self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", self._asked)
        self.page.goto(address)

    def _asked(self, request: Any) -> None:
        if request.url != self.address and not request.url.startswith(("data:", "blob:")):
            self.wrong.append(f"asked for {request.url}")
