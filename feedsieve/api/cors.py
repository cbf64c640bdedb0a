"""Cross-origin requests: pages of other sites that read and write through a browser."""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from feedsieve.api.problems import respond

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
EXPOSED = (
    "ETag",
    "Retry-After",
    "X-Request-ID",
)  # what scripts may read beside the safelisted headers


class CrossOriginMiddleware(CORSMiddleware):
    """Allows pages of some origins to send any request, without cookies (Fetch, CORS protocol).

    To be placed around all that answers, as browsers hide errors without these headers as well.
    """

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        """`origins` are like `https://example.org`; `*` is any."""
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=METHODS,
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return what the browser may send, or a problem."""
        response = super().preflight_response(request_headers)
        if response.status_code == HTTPStatus.OK:
            return response
        detail = (
            "cross-origin requests of this kind are not allowed: FEEDSIEVE_CORS_ORIGINS lists the"
            f" origins; methods are {', '.join(METHODS)}"
        )
        return respond(None, HTTPStatus.FORBIDDEN, detail)
