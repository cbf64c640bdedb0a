"""Throughput and latency of our encoders, by layers, and of other ways to run the 12-layer one."""

import statistics
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from feedsieve.scoring import model_store
from feedsieve.scoring.backend_timings import MIN_GAIN
from feedsieve.scoring.classifier import ClassifierDescription
from feedsieve.scoring.encoder import MODEL_FILE
from loadtests.harness import engine, page
from loadtests.harness.engine import FP32, OURS, SERVED, Shape, in_turns, started
from loadtests.harness.messages import different
from loadtests.harness.plan import Plan, medians
from loadtests.harness.processes import in_new_process
from loadtests.sections import backends

BATCHING = (engine.EAGER, FP32, engine.INT8, OURS, SERVED)
PROFILED = (16, 96)  # texts in the batch, tokens in each


def measure(plan: Plan) -> dict[str, Any]:
    """Return the figures of every engine. Raises ModelNotFound."""
    served = model_store.folder(model_store.find_pair(plan.model)[1])
    folders = dict.fromkeys((engine.ONE_BY_ONE, *BATCHING), plan.baselines.fp32)
    folders |= {OURS: plan.baselines.ours, SERVED: served}
    rounds, singles = plan.few_or_many(1, 3), plan.few_or_many(20, 200)
    stream = different(plan.texts, plan.next_run())
    texts = list(islice(stream, plan.few_or_many(64, 512)))
    peak = in_new_process(engine.gemm_peak)
    arguments = (plan.baselines, plan.model)
    with started({name: (engine.load_engine, name, *arguments) for name in folders}) as engines:
        about = {name: one.call(engine.describe, texts) for name, one in engines.items()}
        single = (engine.seconds_each, texts[:singles])
        runs = in_turns(engines, rounds, seconds=(engine.seconds, texts), single=single)
        by_length = engines[SERVED].call(engine.texts_of_lengths, list(plan.texts))
        grid = (engine.grid, by_length, plan.few_or_many(0.05, 0.5))
        grids = in_turns({name: engines[name] for name in BATCHING}, rounds, grid=grid)
        profiled = by_length[PROFILED[1]][: PROFILED[0]]
        operators = {
            name: engines[name].call(engine.operator_shares, profiled, folders[name] / MODEL_FILE)
            for name in (FP32, OURS, SERVED)
        }
    figures = {}
    for name, folder in folders.items():
        shape = Shape.of(folder / MODEL_FILE, about[name]["dimension"])
        figures[name] = _figures(about[name], runs[name], shape)
        figures[name]["grid"] = medians(grids[name]["grid"]) if name in grids else {}
    return {
        "peak": peak,
        "messages": len(texts),
        "rounds": rounds,
        "engines": figures,
        "operators": operators,
        "backends": backends.measure(served, texts, rounds),
    }


def _figures(about: dict[str, Any], runs: dict[str, list[Any]], shape: Shape) -> dict[str, Any]:
    """Return the medians of an engine's runs and figures derived from them; latencies in ms."""
    tokens, seconds = about["tokens"], statistics.median(runs["seconds"])
    p50, p99 = (1000 * np.percentile(np.concatenate(runs["single"]), (50, 99))).tolist()
    return {
        "engine": about["engine"],
        "precision": about["precision"],
        "layers": shape.layers,
        "seconds": runs["seconds"],
        "messages_a_second": len(tokens) / seconds,
        "tokens_a_second": sum(tokens) / seconds,
        "gflops": shape.flops(tokens) / seconds / 1e9,
        "single_p50": p50,
        "single_p99": p99,
    }


def render(figures: dict[str, Any], images: Path) -> str:
    """Return the section and write its plot. Raises OSError."""
    engines = figures["engines"]
    titles = {name: name for name in engines} | {
        name: f"{name}: {engines[name]['engine']}, {engines[name]['precision']}"
        for name in (OURS, SERVED)
    }
    rates = {titles[name]: one["messages_a_second"] for name, one in engines.items()}
    page.bars(images / "engine.svg", rates, "messages a second")
    constants = {"fp32": FP32, "served": SERVED, "batching": BATCHING, "profiled": PROFILED}
    figures = figures | figures["backends"]
    return page.render("engine", titles=titles, alike=MIN_GAIN, **constants, **figures)


def measure_layers(plan: Plan) -> dict[str, Any]:
    """Return the figures of each of `plan.models`, most layers first. Raises ModelNotFound."""
    pairs = {tag: model_store.find_pair(tag) for tag in plan.models}
    rounds, count = plan.few_or_many(1, 5), plan.few_or_many(64, 512)
    texts = list(islice(different(plan.texts, plan.next_run()), count))
    loads = {FP32: (engine.load_engine, FP32, plan.baselines, plan.model)}
    loads |= {tag: (engine.load_engine, SERVED, plan.baselines, tag) for tag in pairs}
    with started(loads) as engines:
        for one in engines.values():
            one.call(engine.seconds, texts)  # warm-up
        runs = in_turns(engines, rounds, seconds=(engine.seconds, texts))
    rates = {name: len(texts) / statistics.median(run["seconds"]) for name, run in runs.items()}
    models = {}
    for tag, (classifier, encoder) in pairs.items():
        description = ClassifierDescription.read(model_store.folder(classifier))
        validation = description.metrics["validation"]
        file = model_store.folder(encoder) / MODEL_FILE
        models[tag] = {
            "layers": Shape.of(file, plan.baselines.description.dimension).layers,
            "f1": validation.get("f1_without_cascade", validation["f1"]),
            "average_precision": validation["average_precision"],
            "messages_a_second": rates[tag],
        }
    by_layers = dict(sorted(models.items(), key=lambda model: -model[1]["layers"]))
    return {"baseline": rates[FP32], "rounds": rounds, "messages": len(texts), "models": by_layers}


def render_layers(figures: dict[str, Any], images: Path) -> str:
    """Return the section and write its plot. Raises OSError."""
    points = {
        f"{one['layers']} layers, {tag.partition(':')[2]}": (one["messages_a_second"], one["f1"])
        for tag, one in figures["models"].items()
    }
    page.points(images / "layers.svg", points, "messages a second", "F1 in cross-validation")
    return page.render("layers", fp32=FP32, **figures)
