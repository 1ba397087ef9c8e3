"""The service under measurement, as the launcher starts it, and plain requests to it."""

import json
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.embedded.folder import temporary_folder
from tests.test_launcher import Launcher

KEY = "prn_bench"
"""The key of the first workspace, ``default``; it may make others."""


@dataclass(frozen=True, slots=True)
class Service:
    """A running service. ``folder`` is thrown away with all of it; its data folder is in there."""

    url: str
    folder: Path

    @property
    def database_url(self) -> str:
        return f"postgresql://perennial@/perennial?host={self.folder}/data/socket"


@contextmanager
def served(**settings: str) -> Iterator[Service]:
    """Embedded server with the product's own settings but for those given, one web process, one worker."""
    settings = {"PERENNIAL_BOOTSTRAP_KEY": KEY, **settings}
    with temporary_folder("perennial-bench-") as folder, Launcher(folder, **settings) as launcher:
        yield Service(launcher.until_serving(), folder)


def call(url: str, key: str, path: str, body: Any = None) -> Any:
    """The answer to a request that must succeed, over a connection of its own."""
    request = urllib.request.Request(
        url + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def add_workspace(url: str, name: str, time_zone: str = "UTC") -> str:
    """Make a workspace of US dollars; answers its key."""
    body = {"id": name, "currency": "USD", "time_zone": time_zone}
    return str(call(url, KEY, "/v1/workspaces", body)["key"])


def score(url: str, key: str, model: str) -> str:
    """Start a run by a model and wait for it; answers the model that it fitted."""
    run = call(url, key, "/v1/runs", {"settings": {"clv": {"model": model}}})
    while run["status"] in ("queued", "running"):
        time.sleep(0.1)
        run = call(url, key, f"/v1/runs/{run['id']}")
    assert run["status"] == "succeeded", run
    return str(run["fitted"]["clv"]["model"])
