"""A real Label Studio on a free port, started as `make labelstudio` starts it."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from serving import ROOT, free_port, stop

from labeling.server import ENVIRONMENT

PROGRAM = ROOT / ENVIRONMENT / "bin" / "label-studio"
START_WITHIN = 600.0  # seconds; it takes half a minute when the machine has nothing else to do


@dataclass
class Annotator:
    """A logged-in user who sends the requests of the labelling page."""

    client: httpx.Client

    def post(self, path: str, **request) -> httpx.Response:
        headers = {"Referer": str(self.client.base_url)}
        if "csrftoken" in self.client.cookies:
            headers["X-CSRFToken"] = self.client.cookies["csrftoken"]
        response = self.client.post(path, headers=headers, **request)
        assert response.is_success, response.text
        return response

    def tasks(self, project: int) -> dict[str, dict]:
        """Return the tasks of a project by msg_id, with annotations and predictions."""
        query = {"project": project, "fields": "all", "page_size": 1000}
        tasks = self.client.get("/api/tasks", params=query).json()["tasks"]
        return {task["data"]["msg_id"]: task for task in tasks}

    def label(self, task: dict, choice: str) -> None:
        value = {"choices": [choice]}
        result = {"from_name": "label", "to_name": "msg", "type": "choices", "value": value}
        self.post(f"/api/tasks/{task['id']}/annotations/", json={"result": [result]})


@dataclass
class StudioServer:
    """A running Label Studio: its URL, data folder and log."""

    url: str
    data: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def token(self) -> Path:
        return self.data / "token"

    def owner(self) -> Annotator:
        """Return the user created at the first start."""
        header = {"Authorization": f"Token {self.token.read_text().strip()}"}
        return Annotator(httpx.Client(base_url=self.url, headers=header, timeout=300))

    def join(self, email: str) -> Annotator:
        """Return a new user, signed up with the owner's invitation link."""
        client = httpx.Client(base_url=self.url, timeout=300)
        link = self.owner().client.get("/api/invite").json()["invite_url"]
        answer = self.sign_up(client, link, email)
        assert answer.status_code == 302, answer.text
        return Annotator(client)

    def sign_up(self, client: httpx.Client, link: str, email: str) -> httpx.Response:
        """Fill in the form at `link` and return the response."""
        field = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', client.get(link).text)
        assert field
        form = {"csrfmiddlewaretoken": field[1], "email": email, "password": "long-enough-1"}
        return client.post(link, data=form, headers={"Referer": self.url})


@contextmanager
def studio_server(folder: Path) -> Iterator[StudioServer]:
    """Run Label Studio with its data in `folder` during the block."""
    port = free_port()
    log = folder / "studio.log"
    data = folder / ".labelstudio"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "labeling.server", "--port", str(port), "--data", data]
            + ["--program", PROGRAM],
            cwd=ROOT,
            env=os.environ | {"HOST": "0.0.0.0", "PORT": "1"},  # meant for other servers
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = StudioServer(f"http://127.0.0.1:{port}", data, process, log)
    try:
        _wait(server)
        yield server
    finally:
        stop(process)


def _wait(server: StudioServer) -> None:
    deadline = time.monotonic() + START_WITHIN
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise AssertionError(f"Label Studio ended:\n{server.log.read_text()}")
        try:
            if httpx.get(f"{server.url}/health", timeout=60).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"Label Studio did not start:\n{server.log.read_text()}")
