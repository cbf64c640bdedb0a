"""The health check of the container: exit with 0 if the server is ready, else with 1."""

import os
import sys
from urllib.request import urlopen

port = os.environ.get("PORT") or os.environ.get("BENTOML_PORT") or "3000"  # as the entrypoint reads
try:
    urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
except OSError as error:  # HTTPError is one
    sys.exit(f"not ready: {error}")
