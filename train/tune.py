"""`python -m train.tune`: search LightGBM's parameters by cross-validation.

LightGBM's input is computed once, out of fold where labels are involved. A trial takes seconds on a
fine-tuned encoder, whose embedding LightGBM does not read, and a minute on a frozen one. Trials are
stored until the search ends, so that an interrupted search resumes.
"""

import argparse
import inspect
import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from scipy.special import expit
from sklearn.metrics import log_loss
from tqdm import tqdm

from export import sources
from export.names import public_name
from feedsieve.command import run_command
from feedsieve.files import one_run_at_a_time, open_atomically
from feedsieve.settings import settings
from train.classifier import boosting, stacking
from train.classifier.parameters import FIXED, PARAMETERS_FILE
from train.cli.arguments import add_encoder, add_no_track, positive
from train.data.folds import folds
from train.data.labelled import read_labeled
from train.data.near_duplicates import near_duplicate_groups
from train.data.split import split
from train.data.validation import ADJUDICATED
from train.encoder.finetune import finetune
from train.encoder.frozen import frozen_embedder
from train.tracking import mlflow_run

REPEATS = 3  # of cross-validation, with other folds, against overfitting to one set of folds
MOST_ROUNDS = 1500


def tune(
    columns: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    log_odds: int,
    trials: int,
    seed: int,
    storage: Path | None = None,
    judge: np.ndarray | None = None,
) -> tuple[dict[str, Any], optuna.Study]:
    """Return the parameters with the lowest log loss on held-out folds, and the study.

    `columns` is (n, columns), of which the first `log_odds` are those that boosting starts from;
    `labels`, 0 or 1, and `groups`, which stay in one fold, are (n,). The loss is by the labels
    `judge`, (n,), if given. Trials are kept in the SQLite file `storage`; those already in it
    count.
    """
    judge = labels if judge is None else judge
    repeats = [list(folds(labels, groups, seed + repeat)) for repeat in range(REPEATS)]

    def objective(trial: optuna.Trial) -> float:
        parameters = {
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.1, log=True),
            "num_leaves": trial.suggest_int("num_leaves", 2, 31, log=True),
            "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 5, 100, log=True),
            "feature_fraction": trial.suggest_float("feature_fraction", 0.05, 1.0, log=True),
            "bagging_fraction": trial.suggest_float("bagging_fraction", 0.5, 1.0),
            "bagging_freq": 1,
            "lambda_l2": trial.suggest_float("lambda_l2", 0.1, 100.0, log=True),
        }
        losses = []
        for repeat, parts in enumerate(repeats):
            held_out = boosting.held_out(
                columns, labels, parts, FIXED | parameters | {"seed": seed}, log_odds, MOST_ROUNDS
            )
            losses.append(log_loss(judge, expit(held_out.logits)))
            trial.report(float(np.mean(losses)), repeat)
            if trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(losses))

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{storage}" if storage else None,
        study_name="tune",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=seed),
    )
    ended = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    done = len(study.get_trials(states=ended))
    if done:
        # With the same seed the sampler would repeat its parameters.
        study.sampler = optuna.samplers.TPESampler(seed=seed + done)
        print(f"resuming after {done} trials of an earlier run")
    with tqdm(total=trials, initial=done, desc="trials", unit="trial") as bar:

        def show(study: optuna.Study, _trial: optuna.trial.FrozenTrial) -> None:
            bar.set_postfix(best=f"{study.best_value:.4f}")
            bar.update()

        study.optimize(objective, max(0, trials - done), callbacks=[show])
    return {**study.best_params, "bagging_freq": 1}, study


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    return run_command("train.tune", lambda: _tune(options), options.data)


def _tune(options: argparse.Namespace) -> None:
    options.out.parent.mkdir(parents=True, exist_ok=True)
    parameters = {name: getattr(options, name) for name in ("finetune", "trials", "seed")}
    parameters["encoder"] = public_name(options.encoder)
    with mlflow_run.run("tune", parameters) if options.track else nullcontext() as run:
        best, loss = _search(options)
        if run:
            with run.recording():
                found = {f"lightgbm.{name}": value for name, value in best.items()}
                run.log(parameters=found, metrics={"log_loss": loss})
                run.log_files(options.out)


def _search(options: argparse.Namespace) -> tuple[dict[str, Any], float]:
    """Write the best parameters; return them and their log loss."""
    train = split(read_labeled(options.data), options.seed).train
    columns, labels, groups, log_odds = _columns(options, train)
    judge = train.get(ADJUDICATED, train["label"]).to_numpy()
    inputs = [columns, labels, groups, np.array([log_odds, options.seed]), judge]
    code = [Path(inspect.getfile(item)).read_bytes() for item in (tune, boosting, folds)]
    key = blake2b(b"".join([array.tobytes() for array in inputs] + code), digest_size=8)
    folder = settings().cache / f"tune-{key.hexdigest()}"
    with one_run_at_a_time(folder):
        storage = folder / "trials.sqlite"
        best, study = tune(
            columns, labels, groups, log_odds, options.trials, options.seed, storage, judge
        )
        _write(options, best)
        shutil.rmtree(folder)
    print(f"log loss {study.best_value:.4f} in the best of {len(study.trials)} trials: {best}")
    print(f"written to {options.out}")
    return best, study.best_value


def _columns(
    options: argparse.Namespace, train: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return LightGBM's input for the training part, labels, groups, and the log-odds columns."""
    texts, labels = train["msg"].tolist(), train["label"].to_numpy()
    groups = near_duplicate_groups(texts, progress=False)
    source = sources.load(options.encoder)
    if options.finetune:
        tuned = finetune(source, texts, labels, groups, options.seed, settings().cache)
        features, columns = stacking.columns(texts, labels, groups, None, tuned, options.seed)
    else:
        with frozen_embedder(source, texts) as embedder:
            embeddings = embedder.embed(texts, "embed")
        features, columns = stacking.columns(texts, labels, groups, embeddings, None, options.seed)
    return columns, labels, groups, features.log_odds


def _write(options: argparse.Namespace, best: dict[str, Any]) -> None:
    """Write parameters.json with `best` for this kind of encoder."""
    parameters = json.loads(PARAMETERS_FILE.read_text(encoding="utf-8"))
    parameters["finetuned" if options.finetune else "frozen"] = best
    with open_atomically(options.out) as file:
        file.write(json.dumps(parameters, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.tune",
        description="Search LightGBM's parameters with Optuna, by grouped cross-validation of the"
        " training part, and write them where training reads them. Adjudicated labels, if the data"
        " has them, judge the held-out messages.",
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="LABELED.csv", help="as of python -m train"
    )
    add_encoder(parser)
    parser.add_argument(
        "--finetune", action="store_true", help="tune the classifier of a fine-tuned encoder"
    )
    parser.add_argument(
        "--trials", type=positive, default=60, help="number of trials (%(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=PARAMETERS_FILE, metavar="FILE.json", help="(%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=7, help="of folds and search (%(default)s)")
    add_no_track(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
