"""The routes. BentoML serves `POST /score`, which calls `score_texts`."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse

from feedsieve import __version__, metrics
from feedsieve.api import problems, readiness
from feedsieve.api.authentication import with_security
from feedsieve.api.page_cache import PageCache
from feedsieve.api.problems import ProblemResponse
from feedsieve.api.rendering import page_or_json, prefers_page, unless_cached
from feedsieve.api.route_class import DirectRoute, HeadRoute
from feedsieve.api.schemas import (
    SCORES,
    STORED,
    Backend,
    Explain,
    Limit,
    MessageAnswer,
    MessageIds,
    NewMessages,
    Score,
    StoredMessage,
    Version,
    Wait,
)
from feedsieve.errors import FeedsieveError
from feedsieve.message import Label, StoreUnavailable
from feedsieve.serving.admission import ExplanationQueue, Overloaded
from feedsieve.serving.runtime import ModelNotReady, Runtime
from feedsieve.settings import settings
from feedsieve.store.feed import Cursor, FeedPage
from feedsieve.tracing import span

_log = logging.getLogger("feedsieve")
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

PAGE_SECONDS = 1.0  # largest age of a cached page of the feed
MAX_PAGES_BYTES = 32_000_000  # cached; a page of 100 long messages has 2 MB
MAX_EXPLANATIONS = 64  # that are waited for; each takes some 50 ms
PAGES_AT_ONCE = 2  # pages rendered at once; more threads would wait for the interpreter

ABOUT = "Ranks the messages of a chat, so that what matters comes first."
PROBLEMS = problems.documented(422, 503, 504)

web = FastAPI(
    docs_url=None,
    redoc_url=None,
    openapi_url=None,
    telemetry={"tracing": False, "metrics": False, "logs": False},
)
web.router.route_class = HeadRoute
problems.install(web)
runtime = Runtime(settings())
pages = PageCache[Response](PAGE_SECONDS, MAX_PAGES_BYTES, at_once=PAGES_AT_ONCE)
deleting = ThreadPoolExecutor(1, "deleting")
explaining = ExplanationQueue(MAX_EXPLANATIONS)
probe = readiness.StoreProbe(runtime)
readiness.install(web, runtime, probe)


def _get_directly(path: str, **options: Any) -> Callable[[Endpoint], Endpoint]:
    """Return a decorator that adds a GET route of the class DirectRoute."""

    def add(endpoint: Endpoint) -> Endpoint:
        web.router.add_api_route(
            path, endpoint, methods=["GET"], route_class_override=DirectRoute, **options
        )
        return endpoint

    return add


async def score_texts(texts: list[str]) -> Response:
    """Return the scores of `texts` in their order, or a problem."""
    try:
        model = runtime.model
        scored = await runtime.score(model, texts)
    except FeedsieveError as error:
        return problems.unavailable(None, error)
    label = model.scorer.label
    answer = [Score(score=score, label=label(score), by=by) for score, by in scored]
    # A Response: BentoML would validate the answer again and send it in two parts.
    return Response(SCORES.dump_json(answer), media_type="application/json")


# Functions, not methods of the service: BentoML looks up the service in a thread for those.
@_get_directly("/feed", tags=["Feed"], response_model=FeedPage, responses=PROBLEMS)
@_get_directly("/feed/", include_in_schema=False)
async def feed(request: Request, limit: Limit = 10, cursor: str | None = None) -> Response:
    """Messages by falling score, `limit` a page. Browsers get a page to read."""
    try:
        after = Cursor.decode(cursor) if cursor else None
    except ValueError as error:
        raise ProblemResponse(422, f"cursor: {error}") from None
    root = request.scope["root_path"]
    key = limit, after, prefers_page(request.headers.get("accept", "")), root
    render = partial(run_in_threadpool, _render_feed, request, limit, after)
    try:
        page = await pages.get(key, render)
    except TimeoutError:
        raise StoreUnavailable("earlier requests for pages take too long") from None
    return unless_cached(request, page)


def _render_feed(request: Request, limit: int, after: Cursor | None) -> Response:
    model, store = runtime.model, runtime.store  # the model loads first, so it is named first
    with span("store"):
        page = store.feed(store.shown_model(model.scorer.model), limit, after)
    if failure := store.write_failure:
        notice = f"New messages and scores cannot be stored: {failure}."
        page = page.model_copy(update={"notice": notice})
    with span("page"):
        return page_or_json(request, "feed.html", page, limit=limit, is_first=after is None)


@web.get("/messages", tags=["Feed"], responses=PROBLEMS)
@web.get("/messages/", include_in_schema=False)
def messages(limit: Limit = 10) -> MessageIds:
    """Identifiers of `limit` messages drawn at random."""
    return MessageIds(msg_ids=runtime.store.sample(limit))


@web.post(
    "/messages",
    tags=["Feed"],
    response_model=list[StoredMessage],
    responses=PROBLEMS | problems.documented(400, 408, 413, 415),
)
async def add_messages(body: NewMessages, wait: Wait = "1") -> Response:
    """Store one message or up to 256, and score them.

    The answer comes after the commit, in the order of the messages. Repeating a request changes
    nothing, and a new text for a source and id is an edit. If scoring is refused, because the model
    is not loaded or too much waits for it, the messages are stored all the same, and scored later.
    """
    messages = [one.message() for one in body]
    stored = await runtime.add(messages)
    scores: dict[str, tuple[float, Label]] = {}
    if wait in ("1", "true"):
        texts = {
            one.id: message.text
            for one, message in zip(stored, messages, strict=True)
            if one.outcome != "deleted"
        }
        scores = await _scores_if_possible(texts)
    answer = [
        StoredMessage(
            id=one.id,
            outcome=one.outcome,
            score=score,
            label=label,
        )
        for one in stored
        for score, label in [scores.get(one.id, (None, None))]
    ]
    return Response(STORED.dump_json(answer), media_type="application/json")


async def _scores_if_possible(texts: dict[str, str]) -> dict[str, tuple[float, Label]]:
    """Return scores and labels of stored messages by identifier; none if scoring is refused."""
    try:
        model = runtime.model
        scored = await runtime.score(model, list(texts.values()), stored=True)
    except (Overloaded, ModelNotReady):
        return {}
    label = model.scorer.label
    return {key: (one.score, label(one.score)) for key, one in zip(texts, scored, strict=True)}


@web.delete(
    "/messages/{identifier:path}",
    tags=["Feed"],
    status_code=204,
    responses=PROBLEMS | problems.documented(404),
)
async def delete_message(identifier: str) -> Response:
    """Delete a message, its earlier texts, labels and scores. Later imports skip it."""
    # One at a time: those that wait for an import hold no thread that others need.
    loop = asyncio.get_running_loop()
    with span("store"):
        is_deleted = "\x00" not in identifier and await loop.run_in_executor(
            deleting, runtime.store.delete, identifier, "api"
        )
    if not is_deleted:
        raise ProblemResponse(404, "no message has this identifier")
    _log.info("deleted a message")  # its identifier may be a phone number
    return Response(status_code=204)


@_get_directly(
    "/messages/{identifier:path}",
    tags=["Feed"],
    response_model=MessageAnswer,
    responses=PROBLEMS | problems.documented(404),
)
async def message(identifier: str, request: Request, explain: Explain = "0") -> Response:
    """One message with its score, which is computed if missing."""
    model = runtime.model
    scorer, scored = model.scorer, await runtime.find(model, identifier)
    if scored is None:
        raise ProblemResponse(404, "no message has this identifier")
    message, score = scored.message, scored.score
    if score is None:
        with runtime.admission.request("scored"):
            [(score, _by)] = await runtime.score(model, [message.text], stored=True)
    explanation = None
    if explain in ("1", "true"):
        async with explaining.turn():
            with span("explanation"):
                explanation = await run_in_threadpool(runtime.explain, model, message.text)
    answer = MessageAnswer(
        id=message.id,
        text=message.text,
        score=score,
        label=scorer.label(score),
        model=scorer.model,
        explanation=explanation,
    )
    return unless_cached(request, page_or_json(request, "message.html", answer))


@web.get("/", include_in_schema=False)
def index(request: Request) -> Response:
    return RedirectResponse(f"{request.scope['root_path']}/feed")


@web.get("/metrics", include_in_schema=False)
async def show_metrics() -> Response:
    await probe.state()
    return await run_in_threadpool(metrics.show)


@web.get("/version", tags=["Operations"], response_model=Version, responses=PROBLEMS)
def version() -> Version:
    """The version and commit of feedsieve, the pair of models, and the encoder's backend."""
    scorer = runtime.model.scorer
    return Version(
        version=__version__,
        commit=web.state.commit,
        model=scorer.model,
        encoder=scorer.classifier.description.encoder_tag,
        backend=Backend(**scorer.encoder.selection.figures()),
    )


@web.get("/docs", include_in_schema=False)
def docs(request: Request) -> Response:
    """Swagger UI with the scripts that BentoML ships, so that no network is needed."""
    root = request.scope["root_path"]
    return get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title="feedsieve",
        swagger_js_url=f"{root}/static_content/swagger-ui-bundle.js",
        swagger_css_url=f"{root}/static_content/swagger-ui.css",
        swagger_favicon_url=f"{root}/static_content/favicon-light-32x32.png",
    )


def install_openapi(service: Any, model: str) -> None:
    """Add `/openapi.json`: BentoML's document of all routes, with our errors.

    Its version is the served model, or the tag `model` until one is loaded.
    """

    @web.get("/openapi.json", include_in_schema=False)
    def openapi(request: Request) -> dict[str, Any]:
        document = service.openapi_spec.asdict()
        version = runtime.model.scorer.model if runtime.is_ready else model
        about = {"title": "feedsieve", "description": ABOUT, "version": version}
        if root := request.scope["root_path"]:
            document |= {"servers": [{"url": root}]}
        errors = problems.documented(400, 408, 413, 415, 503, 504)
        document = problems.with_errors(document | {"info": about}, "/score", errors)
        return with_security(document, settings())
