"""`python -m train`: labelled messages in, a scored feed and a report out."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from feedsieve.command import run_command
from feedsieve.scoring.model_store import ModelNotFound
from feedsieve.settings import settings
from feedsieve.store.database import without_password
from train.behaviour.suite import suite_argument
from train.cli.arguments import add_cluster, add_distil, add_no_track, time_or_fingerprint
from train.feast.feature_store import REPOSITORY
from train.options import DEFAULT_ENCODER, Options
from train.report.file_names import METRICS_FILE, PAGE_FILE


def main() -> int:
    parser = _parser()
    arguments = vars(parser.parse_args())
    unless_trained, on = arguments.pop("unless_trained"), arguments.pop("on")
    options = Options(**arguments)
    if options.features and (options.finetune or options.encoder != DEFAULT_ENCODER):
        parser.error("--features determines the encoder: leave out --encoder and --finetune")
    if options.distil and not options.finetune:
        parser.error("--distil needs --finetune")
    if options.as_of and options.data:
        parser.error("--as-of determines the data: leave out --data")
    data = options.data or without_password(options.db or "the message store")
    return run_command("train", lambda: _run(options, on, unless_trained=unless_trained), data)


def _run(options: Options, on: str | None, *, unless_trained: bool) -> None:
    if not on:
        options = _from_feast_by_setting(options)
    if not options.data and not options.db and not options.as_of:
        from train.data.chosen import chosen
        from train.data.usable_model import ModelOfSample, usable_model

        data = chosen()
        print(f"on {data}", flush=True)
        if unless_trained:
            try:
                print(f"{usable_model(data)} is there already; `make train` makes a new model")
                return
            except ModelOfSample as error:
                print(error, flush=True)
            except ModelNotFound:
                print("there is no model yet", flush=True)
        options = replace(options, data=data.labels, db=data.db, is_of_sample=data.is_sample)
        if data.is_sample and not options.behave:
            options = replace(options, behave=suite_argument("sample"))
    metrics = _train_on(on, options) if on else _train(options)
    _print_outcome(metrics, options.report)


def _from_feast_by_setting(options: Options) -> Options:
    """Return options that read features from the repository of the settings, if there is one."""
    repository = settings().features
    if repository is None or options.features:
        return options
    if options.finetune or options.encoder != DEFAULT_ENCODER:
        print("FEEDSIEVE_FEATURES is ignored: --encoder or --finetune chooses another encoder")
        return options
    return replace(options, features=repository)


# PyTorch and the others take ten seconds to import, and --help needs none of them.
def _train(options: Options) -> dict[str, Any]:
    from train.pipeline import train

    return train(options)


def _train_on(cluster: str, options: Options) -> dict[str, Any]:
    from train.compute.dask_cluster import connect
    from train.jobs import fetch_report, submit

    with connect(cluster) as client:
        job = submit(client, options)
        print(f"training on {job.machine.name}", flush=True)
        metrics = job.follow(lambda line: print(line, flush=True))
    fetch_report(metrics, options.report)
    return metrics


def _print_outcome(metrics: dict[str, Any], report: Path) -> None:
    parts = {"test": "test", "test_adjudicated": "test, by adjudicated labels"}
    for part, title in parts.items():
        if figures := metrics.get(part):
            print(
                f"{title}: F1 {figures['f1']:.4f},"
                f" precision {figures['precision']:.4f}, recall {figures['recall']:.4f}, average"
                f" precision {figures['average_precision']:.4f} on {figures['n']} messages"
            )
    print(
        f"saved {metrics['classifier_tag']} with {metrics['encoder_tag']} "
        f"after {metrics['seconds']:.0f} s\n"
        f"see {report / PAGE_FILE} and {report / METRICS_FILE}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description="Train on labelled messages: export the encoder to ONNX; fit LightGBM on its"
        " output, a word model's and handcrafted features; save both models in the BentoML model"
        " store; write metrics and a report.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="LABELED.csv",
        help="msg_id,msg,label and optionally subset (train or test) and adjudicated (labels after"
        " review, to judge the model by); or Label Studio's CSV or JSON. Without it, the labels in"
        " --db are used. Without both, it runs on your own data in data/, or else on the sample",
    )
    parser.add_argument(
        "--db",
        metavar="MESSAGES.db",
        help="message store to score with the new model; without --data, the labels in it are used",
    )
    parser.add_argument(
        "--as-of",
        type=time_or_fingerprint,
        metavar="TIME|FINGERPRINT",
        help="train on exactly the data of an earlier training that MLflow tracked: the last one"
        " until TIME (2026-11-30, or 2026-11-30T08:30:00Z), or one whose data has this FINGERPRINT"
        " (the first digits are enough)",
    )
    parser.add_argument(
        "--encoder",
        default=DEFAULT_ENCODER,
        metavar="SOURCE",
        help="wheel (default), hf:ORG/NAME or a folder with a BERT",
    )
    parser.add_argument(
        "--finetune",
        action="store_true",
        help="train the encoder on the labels too: better, and faster in service (see --distil)."
        " Use it once you have a few hundred labels; 4,000 messages take about an hour on two"
        " cores. An interrupted run resumes",
    )
    parser.add_argument(
        "--features",
        type=Path,
        nargs="?",
        const=REPOSITORY,
        metavar="DIR",
        help="read embeddings from Feast instead of computing them: for each message, those that"
        " existed at its labeled_at (now, without that column). DIR is the Feast repository"
        " (%(const)s); FEEDSIEVE_FEATURES names it for trainings without --encoder, --finetune and"
        " --on; python -m train.features computes the embeddings",
    )
    parser.add_argument(
        "--behave",
        type=suite_argument,
        metavar="FILE.toml",
        help="run train.behave too, with this file as its --suite, and add the outcome to the"
        " report and the model card",
    )
    parser.add_argument(
        "--report",
        type=Path,
        default=Path("reports"),
        metavar="DIR",
        help="where to write report.html, metrics.json and held_out.csv (%(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=7,
        help="equal seeds give equal models; the test part and the folds do not depend on it"
        " (%(default)s)",
    )
    add_distil(
        parser,
        "with --finetune: the layers to keep. Fewer than all are first distilled from the whole"
        " encoder on all messages, including those of --db",
    )
    add_cluster(
        parser,
        "its workers embed messages, compute features, fit LightGBM and score; fine-tuning and the"
        " export of the encoder stay in this process",
    )
    parser.add_argument(
        "--on",
        metavar="WHERE",
        help="train as a job on one worker, with a GPU if there is one, of a cluster as for"
        " --cluster. Data, models and figures go through MLflow; --db is read here, and its"
        " messages are not scored",
    )
    parser.add_argument(
        "--unless-trained",
        action="store_true",
        help="without --data and --db: do nothing if there is a model for this data",
    )
    add_no_track(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
