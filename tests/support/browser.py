"""A headless Chromium, controlled with the DevTools protocol over a pipe: no driver, no port."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-dev-shm-usage", "--remote-debugging-pipe"),
)
TIMEOUT = 120.0
"""Seconds to wait for an answer."""


class Page:
    """A tab of the browser.

    Attributes:
        events: method and parameters of everything that the browser has reported, oldest first.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._buffer, self._calls = b"", 0
        self._session: str | None = None
        self._answers: dict[int, dict[str, Any]] = {}
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.call(f"{domain}.enable")

    def open(self, path: Path) -> None:
        """Open a file, and wait until the page is loaded and every picture is decoded."""
        loads = len(self.reported("Page.loadEventFired"))
        self.call("Page.navigate", url=path.resolve().as_uri())
        self._until(lambda: self.reported("Page.loadEventFired")[loads:] or None)
        loaded = "new Promise(done => document.readyState === 'complete' ? done() : (window.onload = done))"
        self.evaluate(f"{loaded}.then(() => 0)")
        self.evaluate("Promise.allSettled([...document.images].map(image => image.decode()))")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; if it is a promise, wait for it."""
        given = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", **given)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def reported(self, method: str) -> list[dict[str, Any]]:
        """Return the parameters of the events of a method."""
        return [params for name, params in self.events if name == method]

    def set_screen(self, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Emulate a screen of this size that prefers light or dark colors."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        """Save the whole page as a PNG."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol, and return its result."""
        self._calls += 1
        number = self._calls
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda: self._answers.pop(number, None))
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _until(self, found: Callable[[], Any]) -> Any:
        """Read messages until `found` returns a value, and return that."""
        deadline = time.monotonic() + TIMEOUT
        while (value := found()) is None:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._from], [], [], left)[0]:
                raise TimeoutError(f"no answer from the browser in {TIMEOUT} s; events: {self.events[-5:]}")
            data = os.read(self._from, 1 << 20)
            if not data:
                raise RuntimeError("the browser has ended")
            *messages, self._buffer = (self._buffer + data).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers[message["id"]] = message
                else:
                    self.events.append((message["method"], message.get("params", {})))
        return value


@contextmanager
def browser_page(profile: Path) -> Iterator[Page]:
    """Start a browser with a fresh profile in this folder, and open a tab."""
    assert CHROMIUM is not None
    theirs_in, to_browser = os.pipe()
    from_browser, theirs_out = os.pipe()
    # The browser reads from descriptor 3 and writes to 4.
    command = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
    process = subprocess.Popen(
        ["bash", "-c", command, CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(theirs_in, theirs_out),
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Page(to_browser, from_browser)
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(to_browser)
        os.close(from_browser)
