"""Drive Chromium without a screen, through its DevTools protocol on a pair of pipes."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from itertools import count

import cv2
import numpy as np
import pytest

_FLAGS = (
    "--headless",
    "--no-sandbox",  # as root in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


class Browser:
    """A page in Chromium.

    Attributes:
        errors: what the page has written to the console, and its errors.
    """

    def __init__(self, executable, profile):
        (commands, self._commands), (self._answers, answers) = os.pipe(), os.pipe()

        def connect():  # Chromium reads commands from descriptor 3 and answers on 4
            for number in (commands, answers):
                os.set_inheritable(number, True)
            kept = os.dup(commands), os.dup(answers)
            os.dup2(kept[0], 3)
            os.dup2(kept[1], 4)

        self._process = subprocess.Popen(
            [executable, *_FLAGS, f"--user-data-dir={profile}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=connect,
        )
        os.close(commands)
        os.close(answers)
        self._numbers, self._buffer, self._session = count(1), b"", None
        self.errors, self._events = [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Call a method of the protocol, and return its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self):
        while b"\0" not in self._buffer:
            data = os.read(self._answers, 1 << 20)
            assert data, "Chromium has ended"
            self._buffer += data
        message, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(message)
        method, params = message.get("method"), message.get("params", {})
        if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.errors.append(params)
        if method == "Page.loadEventFired":
            self._events.append(method)
        return message

    def open(self, path):
        """Open a local file."""
        self._events.clear()
        self.call("Page.navigate", url=path.absolute().as_uri())
        self.wait_for_load()

    def wait_for_load(self):
        """Wait until the page has been loaded since the last call of `open` or of this."""
        while not self._events:
            self._receive()
        self._events.clear()

    def evaluate(self, expression):
        """Return the value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def resize(self, width, height, scheme="light"):
        """Set the size in pixels, and the colour scheme that the user prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self):
        """Return what is on the screen, uint8 (height, width, 3)."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)

    def press(self, key):
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def point(self, x, y):
        """Move the mouse to a point of the screen, in pixels."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def close(self):
        with suppress(OSError):
            os.close(self._commands)
        self._process.kill()
        self._process.wait()
        os.close(self._answers)


@pytest.fixture(scope="module")
def browser():
    """A page in Chromium; skips the test if it isn't installed."""
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if executable is None:
        pytest.skip("Chromium isn't installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        page = Browser(executable, profile)
        yield page
        page.close()
