"""The middleware of the service, the outermost first."""

from typing import Any

from feedsieve.api.allowed_hosts import AllowedHostsMiddleware
from feedsieve.api.authentication import AuthenticationMiddleware
from feedsieve.api.cors import CrossOriginMiddleware
from feedsieve.api.own_routes import OwnRoutesMiddleware
from feedsieve.api.problems import ProblemMiddleware
from feedsieve.api.request_body import Body, RequestBodyMiddleware
from feedsieve.api.request_log import AccessLog, RequestLogMiddleware
from feedsieve.api.root_path import RootPathMiddleware
from feedsieve.api.routes import web
from feedsieve.api.schemas import NewMessagesBody, ScoreRequest
from feedsieve.serving.runtime import Runtime
from feedsieve.settings import Settings

BODIES = {"/score": Body(ScoreRequest, "scored"), "/messages": Body(NewMessagesBody, "stored")}


def install_middleware(service: Any, runtime: Runtime, settings: Settings) -> None:
    """Add the middleware to a BentoML service."""
    service.add_asgi_middleware(RootPathMiddleware, root_path=settings.root_path)
    log = AccessLog(settings.log_format) if settings.access_log else None
    service.add_asgi_middleware(RequestLogMiddleware, log=log)
    if settings.traces:
        from feedsieve.api.request_trace import RequestTraceMiddleware  # imports OpenTelemetry

        service.add_asgi_middleware(RequestTraceMiddleware)
    if "*" not in settings.allowed_hosts:
        service.add_asgi_middleware(AllowedHostsMiddleware, names=settings.allowed_hosts)
    if settings.cors_origins:
        service.add_asgi_middleware(CrossOriginMiddleware, origins=settings.cors_origins)
    service.add_asgi_middleware(ProblemMiddleware)
    service.add_asgi_middleware(AuthenticationMiddleware, keys=runtime.keys, settings=settings)
    service.add_asgi_middleware(OwnRoutesMiddleware, web=web)
    service.add_asgi_middleware(RequestBodyMiddleware, admission=runtime.admission, bodies=BODIES)
