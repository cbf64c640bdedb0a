"""A Bento with nothing in it, as BentoML configures it: what its GET costs is what ours adds to."""

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
