"""The service that BentoML runs. Routes and middleware are in feedsieve/api."""

from typing import Any

import bentoml
from bentoml.models import BentoModel

from feedsieve import __version__, logs, tracing
from feedsieve.api import http_protocol, http_server
from feedsieve.api.middleware import install_middleware
from feedsieve.api.problems import ANSWER_SECONDS
from feedsieve.api.routes import install_openapi, runtime, score_texts, web
from feedsieve.api.schemas import Score, Texts
from feedsieve.commit import find_commit
from feedsieve.scoring import model_store
from feedsieve.serving import server_exit
from feedsieve.settings import settings

# Seconds; BentoML keeps 800 bytes of each request for as long. Ours ends before, with a problem.
TIMEOUT = ANSWER_SECONDS + 5

# Exact tags: a Bento contains this pair, and `bentoml serve` fails if a model is missing.
CLASSIFIER, ENCODER = model_store.find_pair(settings().model)
COMMIT = find_commit()
logs.install(settings().log_format)
server_exit.install()
http_protocol.install()
http_server.install(settings().stop_seconds, runtime.begin_stop)


def _commit_of(service: Any) -> str | None:
    """Return the commit that a Bento was built of; without a Bento, that of this code."""
    source = service.bento.info if service.bento else service
    commit: str | None = source.labels.get("commit")
    return commit


# BentoML's tracing, log and metrics take three times as long as a small request, and its spans hold
# queries.
@bentoml.service(
    name="feedsieve",
    labels={"commit": COMMIT} if COMMIT else {},  # a Bento keeps them
    traffic={"timeout": TIMEOUT},
    http={"host": "127.0.0.1"},  # BentoML's default is all interfaces, as in bentofile.yaml
    metrics={"enabled": False},  # feedsieve.metrics replaces them
    logging={"access": {"enabled": False}},  # feedsieve.api.request_log replaces it
    tracing={"excluded_urls": ".*"},  # feedsieve.tracing replaces it
)
@bentoml.asgi_app(web)
class Feedsieve:
    """Ranks the messages of a chat, so that what matters comes first."""

    classifier = BentoModel(CLASSIFIER)
    encoder = BentoModel(ENCODER)

    @bentoml.on_startup
    def start(self) -> None:
        web.state.commit = _commit_of(Feedsieve)
        tracing.install(settings(), __version__)
        runtime.start()

    @bentoml.on_shutdown
    def stop(self) -> None:
        runtime.stop()
        tracing.stop()

    async def __is_ready__(self) -> bool:
        return runtime.is_ready

    async def __is_alive__(self) -> bool:
        return not runtime.has_failed

    @bentoml.api
    async def score(self, texts: Texts) -> list[Score]:
        """Score texts, in their order; concurrent requests are scored together."""
        return await score_texts(texts)  # type: ignore[return-value]


install_openapi(Feedsieve, CLASSIFIER)
install_middleware(Feedsieve, runtime, settings())
