"""Time to readiness, memory when ready, and size of the Bento."""

import statistics
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from feedsieve.scoring import model_store
from loadtests.harness import page
from loadtests.harness.plan import Plan
from loadtests.harness.processes import BENTOML, bento, memory, run_program
from loadtests.sections.service import REPEATING, our_settings


def measure(plan: Plan) -> dict[str, Any]:
    """Return seconds, and sizes in bytes. Raises ModelNotFound, ServerTimeout, ProgramFailed."""
    classifier, encoder = map(model_store.folder, model_store.find_pair(plan.model))
    seconds, sizes = [], []
    for _ in tqdm(range(plan.few_or_many(2, 5)), desc="start", unit="start"):
        start = time.monotonic()
        with bento(plan.folder / "start.log", our_settings(plan, REPEATING)) as server:
            seconds.append(time.monotonic() - start)
            time.sleep(2)  # until memory used only for starting is freed
            sizes.append(memory(server.pid))
    pss, rss = map(statistics.median, zip(*sizes, strict=True))
    models = {
        name: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        for name, folder in (("encoder", encoder), ("classifier", classifier))
    }
    return {
        "seconds": statistics.median(seconds),
        "each": seconds,
        "pss": pss,
        "rss": rss,
        "bento": _bento_size(plan, classifier, encoder),
        "models": models,
    }


def _bento_size(plan: Plan, *models: Path) -> int:
    """Build a Bento in a temporary store, export it, and return the size of the file."""
    home, exported = plan.folder / "bentoml", plan.folder / "feedsieve.bento"
    for model in models:
        link = home / "models" / model.parent.name / model.name
        link.parent.mkdir(parents=True)
        link.symlink_to(model)
    environment = {"BENTOML_HOME": str(home), "FEEDSIEVE_MODEL": plan.model}
    environment |= {"BENTOML_DO_NOT_TRACK": "True"}
    tag = run_program([BENTOML, "build", "--output", "tag"], environment)
    run_program([BENTOML, "export", tag.strip().rpartition("__tag__:")[2], exported], environment)
    return exported.stat().st_size


def render(figures: dict[str, Any], images: Path) -> str:
    """Return the section, which has no plot."""
    return page.render("start", **figures)
