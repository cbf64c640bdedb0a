"""How long the server takes to be ready, what it takes of memory, and how large the Bento is."""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from feedsieve import models
from loadtests import page
from loadtests.plan import Failed, Plan
from loadtests.server import ROOT, bento
from loadtests.service import empty_store
from loadtests.watch import memory


def measure(plan: Plan) -> dict[str, Any]:
    """Return seconds to ready and sizes in bytes. Raises NoModel, NoAnswer, Failed."""
    models.find_pair(plan.model)
    seconds, sizes = [], []
    for _ in tqdm(range(plan.few_or_many(2, 5)), desc="start", unit="start"):
        began = time.monotonic()
        with bento(plan.folder / "start.log", empty_store(plan)) as server:
            seconds.append(time.monotonic() - began)
            time.sleep(2)  # what starting took is given back by now
            sizes.append(memory(server.pid))
    return {
        "seconds": statistics.median(seconds),
        "each": seconds,
        "pss": statistics.median(pss for pss, _rss in sizes),
        "rss": statistics.median(rss for _pss, rss in sizes),
        "bento": _bento_size(plan),
        "models": {name: _size(models.folder(tag)) for name, tag in _pair(plan).items()},
    }


def _pair(plan: Plan) -> dict[str, str]:
    classifier, encoder = models.find_pair(plan.model)
    return {"encoder": encoder, "classifier": classifier}


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _bento_size(plan: Plan) -> int:
    """Return the size of the exported Bento, which is built in a store that is gone afterwards."""
    home = plan.folder / "bentoml"
    (home / "models").mkdir(parents=True)
    for tag in _pair(plan).values():
        folder = models.folder(tag)
        (home / "models" / folder.parent.name).mkdir()
        (home / "models" / folder.parent.name / folder.name).symlink_to(folder)
    environment = {"BENTOML_HOME": str(home), "FEEDSIEVE_MODEL": plan.model}
    environment |= {"BENTOML_DO_NOT_TRACK": "True"}

    def bentoml(*words: str) -> str:
        done = subprocess.run(
            [Path(sys.executable).with_name("bentoml"), *words],
            cwd=ROOT,
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Failed(f"bentoml {words[0]} failed: {done.stderr.strip()[-500:]}")
        return done.stdout

    tag = bentoml("build", "--output", "tag").strip().rpartition("__tag__:")[2]
    exported = plan.folder / "feedsieve.bento"
    bentoml("export", tag, str(exported))
    return exported.stat().st_size


def section(found: dict[str, Any]) -> str:
    """Return the section of the page."""
    rows = [
        ["process start to `/readyz` 200, to within 0.2 s", f"{found['seconds']:.1f} s"],
        ["memory when ready, PSS of all processes", f"{page.mebibytes(found['pss'])} MiB"],
        ["the same, RSS", f"{page.mebibytes(found['rss'])} MiB"],
        ["Bento, as `bentoml export` writes it", f"{page.mebibytes(found['bento'])} MiB"],
        *(
            [f"{name} in it, unpacked", f"{page.mebibytes(size)} MiB"]
            for name, size in found["models"].items()
        ),
    ]
    return f"""## Start and size

Medians of {len(found["each"])} starts; memory under load is with the service above.

{page.table(("", ""), rows)}
"""
