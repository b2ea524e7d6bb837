"""JupyterLab on this machine, and a headless Chromium before it that is told what to do by the
Chrome DevTools protocol."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
LACKING = [
    name
    for name, there in (
        ("chromium", CHROMIUM),
        ("jupyterlab", find_spec("jupyterlab")),
        ("websocket-client", find_spec("websocket")),
    )
    if not there
]
SETTINGS = {  # whole notebooks in the page, however long; nothing is asked of the network
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/apputils-extension:themes": {"theme": "JupyterLab Light"},
}


def _line(process: subprocess.Popen, pattern: str, file: Path, seconds: float = 60) -> str:
    """What `pattern` finds in what a process writes to a file."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if match := re.search(pattern, file.read_text(errors="replace")):
            return match[1]
        assert process.poll() is None, file.read_text(errors="replace")[-2000:]
        time.sleep(0.2)
    raise AssertionError(
        f"no {pattern} after {seconds} s:\n{file.read_text(errors='replace')[-2000:]}"
    )


@contextmanager
def started(words: list[str], pattern: str, file: Path, **how: Any) -> Iterator[str]:
    """A process, and what it says of itself; it is ended afterwards."""
    with open(file, "w") as stream:
        process = subprocess.Popen(words, stdout=stream, stderr=subprocess.STDOUT, **how)
    try:
        yield _line(process, pattern, file)
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextmanager
def jupyterlab(folder: Path, **environment: str) -> Iterator[str]:
    """The address of a JupyterLab that shows `folder`; it keeps no settings of somebody's own, and
    leaves none."""
    with tempfile.TemporaryDirectory() as own:
        (Path(own) / "overrides.json").write_text(json.dumps(SETTINGS))
        homes = {f"JUPYTER_{n}_DIR": f"{own}/{n}" for n in ("CONFIG", "DATA", "RUNTIME")}
        homes |= {"JUPYTERLAB_SETTINGS_DIR": f"{own}/s", "JUPYTERLAB_WORKSPACES_DIR": f"{own}/w"}
        words = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0"]
        words += [
            "--ServerApp.ip=127.0.0.1",
            "--IdentityProvider.token=lab",
            "--expose-app-in-browser",
        ]
        words += [f"--ServerApp.root_dir={folder}", f"--LabApp.app_settings_dir={own}"]
        how = {"env": {**os.environ, **homes, **environment}, "cwd": folder}
        pattern = r"(http://127\.0\.0\.1:\d+)/lab"
        with started(words, pattern, Path(own) / "log.txt", **how) as address:
            yield address


class Browser:
    """One page of a headless Chromium."""

    def __init__(self, address: str, width: int, height: int):
        from websocket import create_connection

        with urllib.request.urlopen(f"http://{address}/json/list", timeout=30) as answer:
            page = next(one for one in json.load(answer) if one["type"] == "page")
        self.socket = create_connection(
            page["webSocketDebuggerUrl"], suppress_origin=True, timeout=60
        )
        self.numbers = count(1)
        self.ask("Emulation.setFocusEmulationEnabled", enabled=True)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", **size)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one command of the protocol."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives, awaited if it is a promise."""
        answer = self.ask(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 120) -> Any:
        """The value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if value := self.value(expression):
                    return value
            except AssertionError:  # the page is not so far
                pass
            time.sleep(0.2)
        text = self.value("document.body.innerText")
        raise AssertionError(f"not so after {seconds} s: {expression}\n{text[-3000:]}")

    def picture(self, file: Path, **clip: float) -> Path:
        """A PNG of what is in the window, or of a part of it (x, y, width, height)."""
        part = {"clip": clip | {"scale": 1}} if clip else {}
        answer = self.ask("Page.captureScreenshot", format="png", **part)
        file.write_bytes(base64.b64decode(answer["data"]))
        return file


@contextmanager
def browser(width: int = 1180, height: int = 860) -> Iterator[Browser]:
    """A headless Chromium."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:
        words = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        words += ["--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage"]
        words += ["--remote-debugging-port=0", f"--user-data-dir={own}/profile"]
        words += ["about:blank"]
        pattern = r"DevTools listening on ws://([\d.:]+)/"
        with started(words, pattern, Path(own) / "log.txt") as address:
            yield Browser(address, width, height)
