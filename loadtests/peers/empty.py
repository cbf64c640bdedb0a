"""A Bento with one empty route and BentoML's default settings: the cost of an empty GET."""

import bentoml
from fastapi import FastAPI

web = FastAPI()


@web.get("/empty")
async def empty() -> None:
    return None


@bentoml.service
@bentoml.asgi_app(web)
class Empty:
    """Serves one empty route."""
