"""The middleware of the service, the outermost first."""

from typing import Any

from feedsieve import metrics
from feedsieve.api.cors import CrossOriginMiddleware
from feedsieve.api.load_shedding import LoadSheddingMiddleware
from feedsieve.api.problems import ProblemMiddleware
from feedsieve.api.readiness import ReadinessMiddleware
from feedsieve.api.request_body import JsonBody, RequestBodyMiddleware
from feedsieve.api.root_path import RootPathMiddleware
from feedsieve.api.routes import web
from feedsieve.api.schemas import MAX_BODY, MAX_MESSAGES_BODY, NewMessagesBody, ScoreRequest
from feedsieve.serving.admission import AdmissionControl
from feedsieve.settings import Settings

BODIES = {
    "/score": JsonBody(ScoreRequest, MAX_BODY),
    "/messages": JsonBody(NewMessagesBody, MAX_MESSAGES_BODY),
}


def install_middleware(service: Any, admission: AdmissionControl, settings: Settings) -> None:
    """Add the middleware to a BentoML service."""
    service.add_asgi_middleware(RootPathMiddleware, root_path=settings.root_path)
    service.add_asgi_middleware(metrics.MetricsMiddleware)
    if settings.cors_origins:
        service.add_asgi_middleware(CrossOriginMiddleware, origins=settings.cors_origins)
    service.add_asgi_middleware(ProblemMiddleware)
    service.add_asgi_middleware(ReadinessMiddleware, web=web)
    service.add_asgi_middleware(LoadSheddingMiddleware, admission=admission, bodies=BODIES)
    service.add_asgi_middleware(RequestBodyMiddleware, bodies=BODIES)
