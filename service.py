"""The Bento: image and service class. Routes and middleware are in feedsieve/api."""

import bentoml
from bentoml.models import BentoModel

from feedsieve import logs
from feedsieve.api import http_protocol, http_server
from feedsieve.api.middleware import install_middleware
from feedsieve.api.routes import install_openapi, runtime, score_texts, web
from feedsieve.api.schemas import Score, Texts
from feedsieve.scoring import model_store
from feedsieve.serving import server_exit
from feedsieve.settings import settings

TIMEOUT = 60  # seconds; BentoML keeps 800 bytes of each request for as long

# Exact tags: a Bento contains this pair, and `bentoml serve` fails if a model is missing.
CLASSIFIER, ENCODER = model_store.find_pair(settings().model)
logs.install(settings().log_format)
server_exit.install()
http_protocol.install()
http_server.install(settings().stop_seconds, runtime.begin_stop)
# For a distribution that BentoML knows it would install compilers, 460 MB of them.
IMAGE = (
    bentoml.images.Image(base_image="python:3.11-slim", distro="any", python_version="3.11")
    .run(
        "apt-get update && apt-get install -qy --no-install-recommends libgomp1"  # for LightGBM
        " && rm -rf /var/lib/apt/lists/*"
    )
    .python_packages("--constraint ../../src/constraints.txt")
    # For FEEDSIEVE_SOURCES: pyproject.toml's extra `watch`, of which BentoML reads no extras.
    .python_packages("feedparser", "httpx", "python-telegram-bot", "watchfiles")
    .python_packages("psycopg[binary]")  # for FEEDSIEVE_DB in PostgreSQL, extra `postgres`; 13 MB
    .pyproject_toml()
)


# BentoML's tracing, access log and metrics take three times as long as a small request itself.
@bentoml.service(
    name="feedsieve",
    image=IMAGE,
    traffic={"timeout": TIMEOUT},
    http={"host": "127.0.0.1"},  # BentoML's default is all interfaces, as in bentofile.yaml
    metrics={"enabled": False},  # feedsieve.metrics replaces them
    logging={"access": {"enabled": False}},  # feedsieve.api.request_log replaces it
    tracing={"excluded_urls": ".*"},
)
@bentoml.asgi_app(web)
class Feedsieve:
    """Ranks the messages of a chat, so that what matters comes first."""

    classifier = BentoModel(CLASSIFIER)
    encoder = BentoModel(ENCODER)

    @bentoml.on_startup
    def start(self) -> None:
        runtime.start()

    @bentoml.on_shutdown
    def stop(self) -> None:
        runtime.stop()

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
