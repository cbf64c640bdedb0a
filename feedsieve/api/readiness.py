"""`GET /readyz`: whether the model is loaded and the message store can be read and written."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from fastapi import FastAPI
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from feedsieve.api import problems
from feedsieve.serving.runtime import Runtime
from feedsieve.serving.store_health import StoreState

PATH = "/readyz"
MAX_WAIT = 5.0  # seconds for the database; Kubernetes' probes have less by default


class Readiness(BaseModel):
    """The state of a server that answers requests."""

    status: Literal["ready", "degraded"] = Field(description="degraded: nothing can be stored")
    detail: str | None = Field(
        default=None, exclude_if=lambda value: value is None, description="why it is degraded"
    )


class StoreProbe:
    """The state of the store, read at most once a second and by one request at a time."""

    def __init__(self, runtime: Runtime, seconds: float = 1.0) -> None:
        self._runtime = runtime
        self._seconds = seconds
        self._reading: asyncio.Future[StoreState] | None = None
        self._thread = ThreadPoolExecutor(1, "probe")  # requests may hold all others
        self._started = 0.0

    async def state(self) -> StoreState:
        """Return the state; "unavailable" if the database does not answer within `MAX_WAIT`."""
        now = time.monotonic()
        is_old = now - self._started >= self._seconds
        if self._reading is None or (self._reading.done() and is_old):
            self._started = now
            loop = asyncio.get_running_loop()
            self._reading = loop.run_in_executor(self._thread, self._runtime.store_state)
        try:
            async with asyncio.timeout(MAX_WAIT):
                return await asyncio.shield(self._reading)  # others wait for it
        except TimeoutError:
            return StoreState("unavailable", "the database does not answer")


def install(web: FastAPI, runtime: Runtime, probe: StoreProbe) -> None:
    """Add the route, which `OwnRoutesMiddleware` puts before BentoML's."""

    @web.get(
        PATH,
        tags=["Operations"],
        response_model=Readiness,
        responses=problems.documented(503),
    )
    async def readyz(request: Request) -> Response:
        """200 once the model is loaded and the store can be read; degraded if it is read-only."""
        _ = runtime.model  # raises ModelNotReady
        if not runtime.is_ready:
            return problems.respond(request, 503, "the server is stopping")
        state = await probe.state()
        if state.status == "unavailable":
            return problems.respond(request, 503, f"message store: {state.reason}")
        answer = Readiness(status=state.status)
        if state.status == "degraded":
            answer.detail = f"messages and scores cannot be stored: {state.reason}"
        return Response(answer.model_dump_json(), media_type="application/json")
