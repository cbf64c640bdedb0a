"""`python -m loadtests.behind_bulk`: measure how long one text waits behind large requests."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

from feedsieve.command import run_command
from feedsieve.scoring import model_store
from feedsieve.settings import settings
from loadtests.harness.clients import Job, load
from loadtests.harness.engine import rates_without_server
from loadtests.harness.messages import read_texts
from loadtests.harness.processes import bento, in_new_process

BULK = 256  # texts of a large request
BULK_CLIENTS = (1, 3)
RATE = 2.0  # requests of one text, a second
LONG = 1_200  # characters, which the encoder truncates
# The encoder reads every text: neither the score cache nor the cascade answers.
PLAIN = {"FEEDSIEVE_RECALLED": "0", "FEEDSIEVE_CASCADE": "0"}


def long_texts(texts: Sequence[str], how_many: int) -> list[str]:
    """Return texts of `LONG` characters, made of `texts` in order."""
    words = list(islice(cycle(" ".join(texts).split()), how_many * LONG))
    return [" ".join(words[i * LONG :][:LONG])[:LONG] for i in range(how_many)]


def measure(model: str, texts: Sequence[str], batch: int, seconds: float, folder: Path) -> str:
    """Return a table of latencies in milliseconds. Raises ProgramFailed and ServerTimeout."""
    long = long_texts(texts, BULK)
    alone = in_new_process(rates_without_server, model, long, 1, batch, seconds)["scorer"]
    rows = ["| bulk requests of long texts | one text: median | p95 | p99 | failed |"]
    rows += ["|---|---|---|---|---|"]
    with bento(folder / "server.log", PLAIN | {"FEEDSIEVE_MODEL": model}) as server:
        one = Job(server.url, seconds, warm_up=5.0, rate=RATE, texts=list(texts))
        bulk = Job(server.url, seconds, 5.0, texts=long, texts_a_request=batch)
        served = load(bulk).throughput * batch
        for clients in (0, *BULK_CLIENTS):
            bulks = Job(
                server.url, seconds + 5.0, texts=long, texts_a_request=BULK, clients=clients
            )
            with ThreadPoolExecutor() as threads:
                ones = threads.submit(load, one)
                if clients:
                    threads.submit(load, bulks).result()
                result = ones.result()
            latency, failed = result.success, sum(result.failures.values())
            figures = [f"{value:,.0f}" for value in latency[1:]] if latency else ["–"] * 3
            rows.append(f"| {clients} | {' | '.join(figures)} | {failed} |")
    share = f"Bulk alone: {served:.1f} texts a second, {served / alone:.2f} of one call's"
    return "\n".join([*rows, "", f"{share} ({batch} texts each)."])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.behind_bulk",
        description="Start the service, and measure the latency of requests of one text, in"
        f" milliseconds, alone and beside clients that send {BULK} long texts at a time; then"
        " compare the speed of bulk requests with that of the scorer without a server.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--seconds", type=float, default=60.0, help="duration of each of the measurements")
    add("--texts", type=int, default=64, metavar="N", help="of a bulk request that is alone")
    add("--data", type=Path, metavar="FILE", help="messages to send, instead of the sample")
    options = parser.parse_args()
    return run_command("loadtests.behind_bulk", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    model, _encoder = model_store.find_pair(settings().model)
    texts = read_texts(options.data)
    with tempfile.TemporaryDirectory(prefix="feedsieve-behind-bulk-") as folder:
        print(measure(model, texts, options.texts, options.seconds, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
