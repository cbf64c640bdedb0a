"""The Bento service: routes and schemas, nothing else."""

import asyncio
import logging
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Literal

import bentoml
from bentoml.exceptions import ServiceUnavailable
from bentoml.models import BentoModel
from fastapi import FastAPI, Query, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from pydantic import BaseModel, Field, TypeAdapter
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse

from feedsieve import __version__, metrics, models, problems, server_exit
from feedsieve.backend_selection import figures
from feedsieve.bodies import BodyMiddleware
from feedsieve.logs import OneLine
from feedsieve.pages import page_or_json, prefers_page, unless_known
from feedsieve.problems import ProblemResponse
from feedsieve.recent import Recent
from feedsieve.routes import PlainRoute
from feedsieve.runtime import Runtime
from feedsieve.scorer import By, Label
from feedsieve.settings import settings
from feedsieve.store import Cursor, StoreUnavailable
from feedsieve.text import LONGEST, normalise
from feedsieve.waiting import WaitingMiddleware, WaitingRoom

MOST_TEXTS = 256  # a request
LARGEST_BODY = MOST_TEXTS * LONGEST * 12 + 1024  # bytes, were every character \uD83D\uDE00
PAGE_SECONDS = 1.0  # that a page of the feed may be old
PAGES_AT_ONCE = 2  # are read; more threads than that take turns for the interpreter
MOST_BYTES = 8_000_000  # of bodies at /score at once; what is in them takes memory
SLOWEST_ANSWER = 60  # seconds; for as long BentoML's time-out keeps 800 bytes of each request

ABOUT = "Ranks the messages of a chat, so that what matters comes first."

Text = Annotated[str, Field(max_length=LONGEST)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MOST_TEXTS)]
Limit = Annotated[int, Query(ge=1, le=100, description="how many, 1 to 100")]
Explain = Annotated[
    Literal["0", "1", "false", "true"],
    Query(description="1 or true: say why the score is what it is"),
]


class ScoreRequest(BaseModel):
    """Texts to score; of a long one the encoder reads the first 256 tokens, or 160."""

    texts: Texts


class Score(BaseModel):
    """What the model says of one text."""

    score: float = Field(ge=0, le=1, description="calibrated probability of positive")
    label: Label
    by: By = Field(description="what gave the score: words alone, or the encoder")


SCORES = TypeAdapter(list[Score])


class ScoredMessage(BaseModel):
    """A message and what the model says of it."""

    id: str
    text: str
    score: float = Field(ge=0, le=1)
    label: Label


class Item(ScoredMessage):
    """A message in the feed; messages with the same text are one item."""

    rank: int = Field(ge=1)


class Feed(BaseModel):
    """A page of the feed; pass `next` as `cursor` to get the following one."""

    model: str = Field(description="tag of the classifier")
    items: list[Item]
    next: str | None = Field(description="null on the last page")


class Feature(BaseModel):
    """What a named feature of the text contributes to its score."""

    name: str
    value: float | None = Field(description="null for what is no single number, or not in the text")
    contribution: float = Field(description="in log-odds; above 0 it speaks for positive")


class Words(BaseModel):
    """What words that follow one another contribute to the score."""

    text: str
    contribution: float = Field(description="log-odds of the score, less those without the words")


class Explanation(BaseModel):
    """Why a score is what it is: `base` and the contributions of features add up to `logit`."""

    base: float = Field(description="log-odds before anything is known of the text")
    logit: float = Field(description="log-odds of the score")
    features: list[Feature] = Field(description="strongest first, without those that add nothing")
    words: list[Words] = Field(description="the whole text, in its order and with single spaces")


class MessageAnswer(ScoredMessage):
    """One message."""

    model: str
    explanation: Explanation | None = Field(
        None, exclude_if=lambda value: value is None, description="there if it was asked for"
    )


class MessageIds(BaseModel):
    """Identifiers of messages drawn at random."""

    msg_ids: list[str]


class Backend(BaseModel):
    """The encoder's backend and why it was chosen; cosines are to the model's reference outputs."""

    backend: str
    reason: str
    cpu: str
    lowest_cosine: float | None = Field(description="null if the model has no reference outputs")
    mean_cosine: float | None
    passed_over: dict[str, str] = Field(description="backends that are refused here, and why")


class Version(BaseModel):
    """Versions of feedsieve and its models, and the encoder's backend."""

    version: str = Field(description="feedsieve's own")
    model: str = Field(description="tag of the classifier")
    encoder: str = Field(description="tag of the encoder")
    backend: Backend


# Exact tags: a Bento takes along the very pair, and a missing model ends `bentoml serve` at once.
CLASSIFIER, ENCODER = models.find_pair(settings().model)
logging.getLogger("feedsieve").setLevel(logging.INFO)
for name in ("feedsieve", "bentoml.access"):  # a path may hold line ends
    logging.getLogger(name).addFilter(OneLine())
# A distribution unknown to BentoML: for one it knows it would install compilers, 460 MB of them.
IMAGE = (
    bentoml.images.Image(base_image="python:3.11-slim", distro="any", python_version="3.11")
    .run(
        "apt-get update && apt-get install -qy --no-install-recommends libgomp1"  # for LightGBM
        " && rm -rf /var/lib/apt/lists/*"
    )
    .python_packages("--constraint ../../src/constraints.txt")
    .pyproject_toml()
)
server_exit.install()
web = FastAPI(
    docs_url=None,
    redoc_url=None,
    openapi_url=None,
    telemetry={"tracing": False, "metrics": False, "logs": False},
)
web.router.route_class = PlainRoute
problems.install(web)
PROBLEMS = problems.documented(422, 503)
runtime = Runtime(settings())
room = WaitingRoom(settings().waiting, MOST_BYTES)
pages = Recent[Response](PAGE_SECONDS, most=256, at_once=PAGES_AT_ONCE)
explaining = asyncio.Semaphore(1)  # one at a time: the others wait outside the threads


# Tracing, the access log and BentoML's metrics take three times the time of a small request itself.
@bentoml.service(
    name="feedsieve",
    image=IMAGE,
    traffic={"timeout": SLOWEST_ANSWER},
    metrics={"enabled": False},  # feedsieve.metrics are in their place
    logging={"access": {"enabled": False}},
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
        """Score texts, in their order; requests that come together are scored together."""
        try:
            verdicts = await runtime.score(texts)
        except ServiceUnavailable as error:  # of which BentoML would log a trace each time
            return problems.respond(None, 503, str(error))  # type: ignore[return-value]
        label = runtime.scorer.label
        answer = [Score(score=score, label=label(score), by=by) for score, by in verdicts]
        # Whole: BentoML would check it once more, and send it in two parts.
        body = SCORES.dump_json(answer)
        return Response(body, media_type="application/json")  # type: ignore[return-value]


# Functions, not methods: for those BentoML looks up the service in a thread at each request.
@web.get("/feed", tags=["Feed"], response_model=Feed, responses=PROBLEMS)
@web.get("/feed/", include_in_schema=False)
async def feed(request: Request, limit: Limit = 10, cursor: str | None = None) -> Response:
    """Messages by falling score, `limit` a page. Browsers get a page to read."""
    try:
        after = Cursor.decode(cursor) if cursor else None
    except ValueError as error:
        raise ProblemResponse(422, f"cursor: {error}") from None
    question = limit, after, prefers_page(request.headers.get("accept", ""))
    read = partial(run_in_threadpool, read_feed, request, limit, after)
    try:
        page = await pages.answer(question, read)
    except TimeoutError:
        raise StoreUnavailable("the pages asked for before take too long to be read") from None
    return unless_known(request, page)


def read_feed(request: Request, limit: int, after: Cursor | None) -> Response:
    scorer, store = runtime.scorer, runtime.store
    page = store.feed(store.shown_model(scorer.model), limit, after)
    items = [
        Item(
            id=item.id,
            text=item.text,
            score=item.score,
            label="positive" if item.is_positive else "negative",
            rank=item.rank,
        )
        for item in page.items
    ]
    copies = {item.id: item.copies for item in page.items}
    following = page.next.encode() if page.next else None
    answer = Feed(model=page.model, items=items, next=following)
    shown = {"limit": limit, "is_first": after is None, "copies": copies}
    return page_or_json(request, "feed.html", answer, **shown)


@web.get("/messages", tags=["Feed"], responses=PROBLEMS)
@web.get("/messages/", include_in_schema=False)
def messages(limit: Limit = 10) -> MessageIds:
    """Identifiers of `limit` messages drawn at random."""
    return MessageIds(msg_ids=runtime.store.sample(limit))


@web.get(
    "/messages/{identifier:path}",
    tags=["Feed"],
    response_model=MessageAnswer,
    responses=PROBLEMS | problems.documented(404),
)
async def message(identifier: str, request: Request, explain: Explain = "0") -> Response:
    """One message with its score, which is computed if it has none yet."""
    scorer, found = runtime.scorer, await runtime.find(identifier)
    if found is None:
        raise ProblemResponse(404, "no message has this identifier")
    message, score = found.message, found.score
    if score is None:
        with room.place():
            [(score, _by)] = await runtime.score([message.text])
        runtime.remember(message.text, score)
    explanation = None
    if explain in ("1", "true"):
        async with explaining:
            text = normalise(message.text)[:LONGEST]
            explanation = await run_in_threadpool(runtime.explain, text)
    answer = MessageAnswer(
        id=message.id,
        text=message.text,
        score=score,
        label=scorer.label(score),
        model=scorer.model,
        explanation=Explanation(**asdict(explanation)) if explanation else None,
    )
    return unless_known(request, page_or_json(request, "message.html", answer))


@web.get("/", include_in_schema=False)
def index() -> Response:
    return RedirectResponse("/feed")


@web.get("/metrics", include_in_schema=False)
def show_metrics() -> Response:
    return metrics.show()


@web.get("/version", tags=["Operations"], response_model=Version, responses=PROBLEMS)
def show_version() -> Version:
    """The version of feedsieve, the pair of models, and the encoder's backend."""
    backend = Backend(**figures(runtime.scorer.encoder.selection))
    return Version(version=__version__, model=CLASSIFIER, encoder=ENCODER, backend=backend)


@web.get("/openapi.json", include_in_schema=False)
def openapi() -> dict[str, Any]:
    """Return BentoML's document of every route, with our words and our errors."""
    document = Feedsieve.openapi_spec.asdict()  # type: ignore[attr-defined]
    about = {"title": "feedsieve", "description": ABOUT, "version": CLASSIFIER}
    errors = problems.documented(400, 413, 415, 503)
    return problems.with_errors(document | {"info": about}, "/score", errors)


@web.get("/docs", include_in_schema=False)
def docs() -> Response:
    """Show the document with the scripts that BentoML brings along: no network is needed."""
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="feedsieve",
        swagger_js_url="/static_content/swagger-ui-bundle.js",
        swagger_css_url="/static_content/swagger-ui.css",
        swagger_favicon_url="/static_content/favicon-light-32x32.png",
    )


Feedsieve.add_asgi_middleware(metrics.MetricsMiddleware)  # type: ignore[attr-defined]
Feedsieve.add_asgi_middleware(problems.ProblemMiddleware)  # type: ignore[attr-defined]
Feedsieve.add_asgi_middleware(  # type: ignore[attr-defined]
    WaitingMiddleware, path="/score", room=room, largest=LARGEST_BODY
)
Feedsieve.add_asgi_middleware(  # type: ignore[attr-defined]
    BodyMiddleware, path="/score", schema=ScoreRequest, largest=LARGEST_BODY
)
