"""`python -m train`: labelled messages in, a scored feed and a report out."""

import argparse
import sys
from pathlib import Path

from train import command
from train.behaviour.requirements import REQUIREMENTS
from train.feature_store import REPOSITORY
from train.pipeline import METRICS_FILE, Options, train
from train.report import FILE as REPORT_FILE


def main() -> int:
    parser = _parser()
    options = Options(**vars(parser.parse_args()))
    if options.features and (options.finetune or options.encoder != parser.get_default("encoder")):
        parser.error("--features brings its encoder along: leave out --encoder and --finetune")
    if options.distil and not options.finetune:
        parser.error("--distil makes the encoder that --finetune teaches: say --finetune too")
    return command.run("train", options.data, lambda: _train(options))


def _train(options: Options) -> None:
    metrics = train(options)
    test = metrics["test"]
    print(
        f"test: F1 {test['f1']:.4f}, precision {test['precision']:.4f}, "
        f"recall {test['recall']:.4f}, average precision {test['average_precision']:.4f} "
        f"on {test['n']} messages\n"
        f"saved {metrics['classifier_tag']} with {metrics['encoder_tag']} "
        f"after {metrics['seconds']:.0f} s\n"
        f"see {options.report / REPORT_FILE} and {options.report / METRICS_FILE}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train",
        description="Train on labelled messages: export the encoder to ONNX, fit LightGBM on"
        " what it says, on words and on traits, save both in the BentoML model store, and write"
        " metrics and a report.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="LABELED.csv",
        help="msg_id,msg,label and perhaps subset (train or test); or Label Studio's CSV or JSON",
    )
    parser.add_argument(
        "--db", metavar="MESSAGES.db", help="message store to score once the model is there"
    )
    parser.add_argument(
        "--encoder",
        default="wheel",
        metavar="SOURCE",
        help="wheel (default), hf:ORG/NAME or a folder with a BERT",
    )
    parser.add_argument(
        "--finetune",
        action="store_true",
        help="let the encoder learn the labels too: better, faster when it serves (see --distil),"
        " and slower (most of an hour for 4,000 messages on two cores); a run that was ended goes"
        " on where it was",
    )
    parser.add_argument(
        "--features",
        type=Path,
        nargs="?",
        const=REPOSITORY,
        metavar="DIR",
        help="read the embeddings from Feast, as they were when the labels were given (a column"
        " labeled_at, else now), and take its encoder; DIR has its settings (%(const)s), and"
        " python -m train.features computes them",
    )
    parser.add_argument(
        "--behave",
        choices=list(REQUIREMENTS),
        help="run train.behave as well, whose messages are of flats to let in Limassol, with the"
        " requirements of a model of real messages or of the sample corpus; the outcome goes into"
        " the report and the model card",
    )
    parser.add_argument(
        "--report",
        type=Path,
        default=Path("reports"),
        metavar="DIR",
        help="where metrics.json and report.html go (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=7, help="same seed, same model (%(default)s)")
    command.add_distil(
        parser,
        "with --finetune: the layers to keep; fewer than all imitate the whole, on all messages,"
        " those of --db too, before they learn the labels",
    )
    command.add_cluster(
        parser,
        "its workers embed messages, compute features, fit LightGBM and score; fine-tuning and the"
        " encoder's export stay in this process",
    )
    command.add_no_track(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
