"""How fast trained models with more or fewer layers are, and how well they rank: their Pareto."""

import statistics
from collections import defaultdict
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from feedsieve import models
from feedsieve.classifier import ClassifierDescription
from loadtests import contender, messages, page, plots
from loadtests.baselines import MODEL_FILE, Baselines
from loadtests.contender import FP32, SERVED, Contender
from loadtests.flops import Shape
from loadtests.plan import Plan


def measure(plan: Plan, of: Baselines) -> dict[str, Any]:
    """Return the figures of each of `plan.models`, most layers first. Raises `NoModel`."""
    pairs = {tag: models.find_pair(tag) for tag in plan.models}
    rounds, count = plan.few_or_many(1, 5), plan.few_or_many(64, 512)
    texts = list(islice(messages.different(plan.texts, plan.next_run()), count))
    seconds: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        engines = {FP32: stack.enter_context(Contender(FP32, of, plan.model))}
        engines |= {tag: stack.enter_context(Contender(SERVED, of, tag)) for tag in pairs}
        for one in engines.values():
            one.ask(contender.describe, texts)
        with tqdm(total=rounds * len(engines), desc="layers", unit="step") as progress:
            for name, one in list(engines.items()) * rounds:
                seconds[name].append(one.ask(contender.seconds, texts))
                progress.update()
    rates = {name: len(texts) / statistics.median(each) for name, each in seconds.items()}
    found = {}
    for tag, (classifier, encoder) in pairs.items():
        description = ClassifierDescription.read(models.folder(classifier))
        held_out = description.metrics["validation"]
        shape = Shape.of(models.folder(encoder) / MODEL_FILE, of.dimension)
        found[tag] = {
            "layers": shape.layers,
            "f1": held_out.get("f1_without_cascade", held_out["f1"]),
            "average_precision": held_out["average_precision"],
            "messages_a_second": rates[tag],
        }
    ordered = dict(sorted(found.items(), key=lambda named: -named[1]["layers"]))
    return {"baseline": rates[FP32], "rounds": rounds, "messages": len(texts), "models": ordered}


def section(found: dict[str, Any]) -> str:
    """Return the section of the page. Ratios are to `FP32`."""
    rows = [
        [
            str(one["layers"]),
            f"{one['f1']:.3f}",
            f"{one['average_precision']:.3f}",
            page.figure(one["messages_a_second"]),
            f"{one['messages_a_second'] / found['baseline']:.2f}",
        ]
        for one in found["models"].values()
    ]
    return f"""## Layers

Trained models, by the layers of their encoder: F1 (without cascade) and average precision in
cross-validation, as training left them in the model, with a threshold chosen on the same scores,
of students that are taught less well than the one that serves
([Distillation](decisions/distillation.md); folds around the whole of training are in
[Quality, distilled](quality-distilled.md)); and messages a second of the encoder as it is served,
which reads all of them. Medians of
{found["rounds"]} rounds of {found["messages"]:,} different messages, in which the engines take
turns. Ratios are to *{FP32}* ({page.figure(found["baseline"])} messages a second).

{page.table(HEAD, rows)}

![F1 in cross-validation against messages a second](images/layers.svg)
"""


HEAD = ("layers", "F1", "average precision", "messages a second", "ratio")


def draw(found: dict[str, Any], folder: Path) -> None:
    """Write the plot of F1 against messages a second. Raises OSError."""
    points = {
        f"{one['layers']} layers, {tag.partition(':')[2]}": (one["messages_a_second"], one["f1"])
        for tag, one in found["models"].items()
    }
    plots.points(folder / "layers.svg", points, "messages a second", "F1 in cross-validation")
