"""A page in Debian's headless Chromium, spoken to through its DevTools protocol over two pipes."""

from __future__ import annotations

import itertools
import json
import os
import select
import shutil
import subprocess

NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
PATH = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--remote-debugging-pipe",
]
SECONDS = 120  # to wait for an answer
CODES = {"Tab": 9, "Escape": 27, "End": 35, "ArrowUp": 38, "ArrowRight": 39}


def _is_end_of_loading(event, loader):
    of_page = event["method"] == "Page.lifecycleEvent" and event["params"]["loaderId"] == loader
    return of_page and event["params"]["name"] == "load"


class Browser:
    """One tab. `events` are all messages that it sent without being asked."""

    def __init__(self, profile):
        commands_out, commands = os.pipe()
        answers, answers_in = os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        redirected = f'exec "$@" 3<&{commands_out} 4>&{answers_in}'
        self._process = subprocess.Popen(
            ["bash", "-c", redirected, "bash", PATH, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(commands_out, answers_in),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands_out)
        os.close(answers_in)
        self._commands, self._answers = commands, answers
        self._numbers, self._unread, self._session = itertools.count(1), b"", None
        self.events = []
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        attached = self.do("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.do(f"{domain}.enable")
        self.do("Page.setLifecycleEventsEnabled", enabled=True)

    def do(self, method, **parameters):
        """The answer to a command of the protocol."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next_message()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _next_message(self):
        while b"\0" not in self._unread:
            readable, _, _ = select.select([self._answers], [], [], SECONDS)
            assert readable, "the browser does not answer"
            part = os.read(self._answers, 1 << 20)
            assert part, "the browser is gone"
            self._unread += part
        message, self._unread = self._unread.split(b"\0", 1)
        return json.loads(message)

    def open(self, url, width=1280, height=900):
        """Load a page in a window of this size."""
        self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self._navigate("about:blank")  # or another fragment of the same page would load nothing
        self.events.clear()
        self._navigate(url)

    def _navigate(self, url):
        loader = self.do("Page.navigate", url=url)["loaderId"]
        while not any(_is_end_of_loading(event, loader) for event in self.events):
            self.events.append(self._next_message())

    def value(self, expression):
        """What a piece of JavaScript gives, as plain data."""
        answer = self.do("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def point_at(self, x, y):
        """Move the pointer to a place in the window."""
        self.do("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key):
        number = CODES[key]
        for what in ("keyDown", "keyUp"):
            self.do("Input.dispatchKeyEvent", type=what, key=key, windowsVirtualKeyCode=number)

    def complaints(self):
        """What the page said on its console, and errors that nobody caught."""
        said = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}
        return [event["params"] for event in self.events if event["method"] in said]

    def requests(self):
        """Addresses that the page asked for, without data that it holds itself."""
        asked = [e["params"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        urls = [request["request"]["url"] for request in asked]
        return [url for url in urls if not url.startswith("data:")]

    def close(self):
        self._process.terminate()
        self._process.wait(SECONDS)
        os.close(self._commands)
        os.close(self._answers)
