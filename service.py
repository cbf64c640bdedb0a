"""The Bento: its image, and the service of feedsieve/service.py, which `feedsieve serve` starts."""

import bentoml

from feedsieve.service import Feedsieve

__all__ = ["Feedsieve"]

# For a distribution that BentoML knows it would install compilers, 460 MB of them.
Feedsieve.image = (  # type: ignore[attr-defined]
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
