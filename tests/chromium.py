"""Drives a headless Chromium over pipes, by its DevTools protocol; needs nothing but the browser on PATH."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
PATIENCE = 120.0  # seconds for one test, then the browser is ended: a busy machine takes ten times as long
FLAGS = (
    *("--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--disable-extensions", "--force-color-profile=srgb"),
)
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, "Tab": 9, "Enter": 13, " ": 32}


class Page:
    """The page of a browser. `errors` and `requests` collect what it threw and what it loaded."""

    def __init__(self, process: subprocess.Popen, to_browser: int, from_browser: int) -> None:
        self._process, self._to, self._from, self._number = process, to_browser, from_browser, 0
        self._buffer, self._session, self._watchdog = b"", None, None
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.loaded = False

    def renew(self, downloads: Path) -> "Page":
        """Start again with an empty tab; what it saves goes to `downloads`."""
        self._guard()
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.errors, self.requests = [], []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        return self

    def close(self) -> None:
        self._watchdog.cancel()
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def _guard(self) -> None:
        """End the browser if it does not finish in time."""
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._watchdog = threading.Timer(PATIENCE, self._process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()

    def call(self, method: str, **params: Any) -> dict:
        """Send a command and return its result; events that come before it are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return answer["result"]

    def open(self, path: Path, *, width: int = 1100, height: int = 900) -> None:
        """Open a file and wait until it has loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.loaded = False
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not self.loaded:
            self._read()

    def eval(self, expression: str) -> Any:
        """The JSON value of an expression, awaited if it is a promise."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, (expression, answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until an expression is true; the browser's end is the limit."""
        while not self.eval(condition):
            self.eval("new Promise((done) => setTimeout(done, 50))")

    def press(self, key: str, times: int = 1) -> None:
        """Press a key as a person does."""
        named = dict(key=key, code="Space" if key == " " else key, windowsVirtualKeyCode=KEYS[key])
        text = {"Enter": "\r", " ": " "}.get(key)
        for _ in range(times):
            down = {"type": "keyDown", "text": text} if text else {"type": "rawKeyDown"}
            self.call("Input.dispatchKeyEvent", **down, **named)
            self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def write(self, text: str) -> None:
        """Type a text into the focused control."""
        self.call("Input.insertText", text=text)

    def screenshot(self, path: Path) -> Path:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return path

    def _read(self) -> dict:
        while b"\0" not in self._buffer:
            content = os.read(self._from, 1 << 16)
            assert content, "the browser ended"
            self._buffer += content
        text, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(text)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, event: str | None, params: dict) -> None:
        if event == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        elif event == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event == "Page.loadEventFired":
            self.loaded = True


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A new browser with an empty profile in a folder; `renew` gives its page."""
    read_commands, to_browser = os.pipe()
    from_browser, write_answers = os.pipe()
    joined = f'exec "$0" "$@" 3<&{read_commands} 4>&{write_answers}'
    process = subprocess.Popen(
        ["bash", "-c", joined, CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(read_commands, write_answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_commands)
    os.close(write_answers)
    page = Page(process, to_browser, from_browser)
    try:
        yield page.renew(profile)
    finally:
        page.close()
