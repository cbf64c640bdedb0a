"""HTML pages from templates that escape every text, JSON, and the choice between them."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

# No script runs, nothing is fetched and no form is sent, whatever a message contains.
_SAFETY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none';"
    " form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_MAX_CACHED = 500  # characters of an Accept header
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["path"] = lambda text: quote(text, safe="")  # one segment of a path


def page_or_json(request: Request, template: str, answer: BaseModel, **values: Any) -> Response:
    """Return `answer` as the client prefers: a page of it and `values`, or JSON.

    Its ETag is a hash of the body. Clients may cache it, and must revalidate it.
    """
    if prefers_page(request.headers.get("accept", "")):
        values |= {"answer": answer, "root": request.scope.get("root_path", "")}
        body = _TEMPLATES.get_template(template).render(values).encode()
        media_type, safety = "text/html", _SAFETY
    else:
        body = answer.model_dump_json().encode()
        media_type, safety = "application/json", {}
    tag = f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
    caching = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Accept"}
    return Response(body, headers=safety | caching, media_type=media_type)


def unless_cached(request: Request, response: Response) -> Response:
    """Return `response`, or 304 without a body if the client has it (If-None-Match, RFC 9110)."""
    cached = request.headers.get("if-none-match")
    if not cached:
        return response
    tags = {tag.strip().removeprefix("W/") for tag in cached.split(",")}
    if tags.isdisjoint((response.headers["ETag"], "*")):
        return response
    headers = {name: response.headers[name] for name in ("ETag", "Cache-Control", "Vary")}
    return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)


def render(
    request: Request, template: str, status: int, headers: Mapping[str, str], **values: Any
) -> HTMLResponse:
    """Return the page of `template` with `values`."""
    page = _TEMPLATES.get_template(template).render(values, root=request.scope.get("root_path", ""))
    return HTMLResponse(page, status, _SAFETY | {"Vary": "Accept"} | dict(headers))


def prefers_page(accept: str) -> bool:
    """Return whether an Accept header ranks HTML above JSON, as browsers' do (RFC 9110, 12.5.1)."""
    return _cached(accept) if len(accept) <= _MAX_CACHED else _prefers_page(accept)


def _prefers_page(accept: str) -> bool:
    quality: dict[str, float] = {}
    for part in accept.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weights = [value[2:] for value in parameters if value.startswith("q=")]
        try:
            quality[media_range] = float(weights[0]) if weights else 1.0
        except ValueError:
            quality[media_range] = 0.0
    default = quality.get("*/*", 0.0)
    page = quality.get("text/html", quality.get("text/*", default))
    data = quality.get("application/json", quality.get("application/*", default))
    return page > data


_cached = lru_cache(256)(_prefers_page)  # clients send few different ones
