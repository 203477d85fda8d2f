"""A real browser, driven as a person would: W3C WebDriver over HTTP to chromedriver."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
# What WebDriver calls the keys that are no characters.
KEYS = {
    "ArrowDown": "\ue015", "ArrowUp": "\ue013", "ArrowLeft": "\ue012", "ArrowRight": "\ue014",
    "PageDown": "\ue00f", "PageUp": "\ue00e", "Home": "\ue011", "End": "\ue010",
    "Enter": "\ue007", "Escape": "\ue00c", "Tab": "\ue004",
}  # fmt: skip


def missing() -> str:
    """Why there is no browser to test with; empty when there is one."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"no {program} is installed (apt-get install chromium chromium-driver)"
    return ""


class Browser:
    """One window of headless Chromium. Nothing is fetched from outside this machine."""

    def __init__(self, profile: Path) -> None:
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.driver.stdout is not None
        self.base = ""
        for line in self.driver.stdout:
            if "started successfully on port" in line:
                port = line.rsplit(" ", 1)[1].strip().rstrip(".")
                self.base = f"http://127.0.0.1:{port}"
                break
        options = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--hide-scrollbars", "--force-device-scale-factor=1", f"--user-data-dir={profile}",
        ]  # fmt: skip
        wanted = {"alwaysMatch": {"goog:chromeOptions": {"args": options}}}
        session = self._send("POST", "/session", {"capabilities": wanted})["sessionId"]
        self.base += f"/session/{session}"

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        payload = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.base + path, payload, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=40) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                message = json.load(error)["value"]["message"]
            raise AssertionError(f"{path}: {message.splitlines()[0]}") from None

    def close(self) -> None:
        try:
            self._send("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait()
            assert self.driver.stdout is not None
            self.driver.stdout.close()

    def open(self, page: Path, fragment: str = "") -> None:
        # A change of the fragment alone would not load the page anew.
        self._send("POST", "/url", {"url": "about:blank"})
        self._send("POST", "/url", {"url": page.as_uri() + fragment})
        self.settle()

    def size(self, width: int, height: int) -> None:
        self._send("POST", "/window/rect", {"width": width, "height": height})

    def colours(self, scheme: str) -> None:
        """What the page is told the person prefers: light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        body = {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}}
        self._send("POST", "/goog/cdp/execute", body)

    def js(self, script: str, *args: Any) -> Any:
        return self._send("POST", "/execute/sync", {"script": script, "args": list(args)})

    def settle(self) -> None:
        """Until what was done has been drawn."""
        script = "const d = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(d))"
        self._send("POST", "/execute/async", {"script": script, "args": []})

    def text(self, selector: str) -> str:
        return str(self.js("return document.querySelector(arguments[0]).innerText", selector))

    def _element(self, selector: str) -> str:
        found = self._send("POST", "/element", {"using": "css selector", "value": selector})
        return str(found[ELEMENT])

    def click(self, selector: str) -> None:
        """A click of the mouse in the middle of the element."""
        self._send("POST", f"/element/{self._element(selector)}/click", {})

    def hover(self, selector: str) -> None:
        origin = {ELEMENT: self._element(selector)}
        move = {"type": "pointerMove", "duration": 0, "x": 0, "y": 0, "origin": origin}
        mouse = {"type": "pointer", "id": "mouse", "actions": [move]}
        self._send("POST", "/actions", {"actions": [mouse]})

    def type(self, selector: str, text: str) -> None:
        self._send("POST", f"/element/{self._element(selector)}/value", {"text": text})

    def press(self, *names: str) -> None:
        """Keys pressed one after the other, wherever the focus is."""
        keys = [KEYS.get(name, name) for name in names]
        actions = [{"type": kind, "value": k} for k in keys for kind in ("keyDown", "keyUp")]
        self._send(
            "POST", "/actions", {"actions": [{"type": "key", "id": "k", "actions": actions}]}
        )

    def errors(self) -> list[str]:
        log = self._send("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._send("GET", "/screenshot")))
