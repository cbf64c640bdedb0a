"""Pages for people, made from templates in which every text is escaped."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

# No script runs, nothing is fetched, no form is sent, whatever a message may hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["path"] = lambda text: quote(text, safe="")  # one segment of a path


def page_or_json(
    request: Request,
    template: str,
    answer: BaseModel,
    **values: Any,
) -> Response:
    """Return `answer` as the client prefers it: a page of it and `values`, or JSON."""
    if prefers_page(request.headers.get("accept", "")):
        return render(template, answer=answer, **values)
    return Response(
        answer.model_dump_json(), headers={"Vary": "Accept"}, media_type="application/json"
    )


def render(
    template: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
) -> HTMLResponse:
    """Return the page that `template` makes of `values`."""
    page = _TEMPLATES.get_template(template).render(values)
    safety = {
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Vary": "Accept",
    }
    return HTMLResponse(page, status, safety | dict(headers or {}))


def prefers_page(accept: str) -> bool:
    """Return whether an Accept header ranks HTML above JSON (RFC 9110, 12.5.1), as browsers do."""
    quality: dict[str, float] = {}
    for part in accept.split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weights = [value[2:] for value in parameters if value.startswith("q=")]
        try:
            quality[media_range] = float(weights[0]) if weights else 1.0
        except ValueError:
            quality[media_range] = 0.0
    anything = quality.get("*/*", 0.0)
    page = quality.get("text/html", quality.get("text/*", anything))
    data = quality.get("application/json", quality.get("application/*", anything))
    return page > data
