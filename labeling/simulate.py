"""`python -m labeling.simulate`: compare strategies of choosing messages to label.

Known labels stand in for the person, and a linear model over words for the real one.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from tqdm import tqdm

from feedsieve.command import run_command
from feedsieve.message import Message
from feedsieve.text import plain
from labeling.choose import candidates, choose, doubt, vectors
from labeling.next import in_time
from train.data.folds import folds
from train.data.labelled import read_labeled
from train.data.near_duplicates import near_duplicate_groups
from train.report.doc_page import plot, write_section

TIME = "in order of time"
TIME_ONCE = "in order of time, near-duplicates once"
VARIETY = "by variety alone"
NEXT = "labeling.next"
WAYS = (TIME, TIME_ONCE, VARIETY, NEXT)
MARK = "simulate"  # of the table in labelling.md
_THRESHOLD = 0.5  # of a model with balanced classes


@dataclass(frozen=True)
class Corpus:
    """Labelled messages in order of time, and their features."""

    labels: NDArray[np.int64]
    groups: NDArray[np.int64]  # near-duplicates
    words: csr_matrix  # features of the model
    texts: NDArray[np.float64]  # vectors for choosing


def simulate(
    corpus: Corpus, sizes: Sequence[int], batch: int, seeds: Sequence[int], parts: int
) -> dict[str, NDArray[np.float64]]:
    """Return the F1 on held-out messages by strategy, each (seeds × parts, sizes).

    For each seed the messages are split in `parts` folds, with near-duplicates together. Each fold
    is held out in turn, and the others are labelled in batches. A model of the labels so far
    chooses the next batch, and is tested at each of `sizes`. F1 is NaN for sizes that a strategy
    does not reach, because near-duplicates are not chosen.
    """
    scores: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    runs = [
        (seed, rest, fold)
        for seed in seeds
        for rest, fold in list(folds(corpus.labels, corpus.groups, seed))[:parts]
    ]
    for seed, rest, fold in tqdm(runs, "label", unit=" folds"):
        for way in WAYS:
            scores[way].append([np.nan] * len(sizes))
            for labelled in _grow(corpus, np.sort(rest), way, batch, max(sizes), seed):
                if len(labelled) in sizes:
                    model = _fit(corpus, labelled)
                    decisions = model.predict_proba(corpus.words[fold])[:, 1] >= _THRESHOLD
                    score = f1_score(corpus.labels[fold], decisions, zero_division=0.0)
                    scores[way][-1][sizes.index(len(labelled))] = float(score)
    return {way: np.array(rows) for way, rows in scores.items()}


def _grow(
    corpus: Corpus, rest: NDArray[np.int64], way: str, batch: int, most: int, seed: int
) -> Iterator[NDArray[np.int64]]:
    """Yield the labelled rows after each batch."""
    labelled = np.zeros(0, np.int64)
    while len(labelled) < most:
        if way == TIME:
            pool = np.setdiff1d(rest, labelled)
            chosen = pool[:batch]
        else:
            is_taken = np.ones(len(corpus.labels), bool)
            is_taken[rest] = False
            is_taken[labelled] = True
            pool = candidates(corpus.groups, is_taken)
            if way == TIME_ONCE or len(pool) <= batch:
                chosen = pool[:batch]
            elif way == VARIETY or len(np.unique(corpus.labels[labelled])) < 2:
                chosen = choose(pool, corpus.texts, batch, seed)
            else:
                scores = _fit(corpus, labelled).predict_proba(corpus.words)[:, 1]
                doubts = doubt(scores, _THRESHOLD)
                chosen = choose(pool, corpus.texts, batch, seed, doubts)
        if not len(chosen):
            return
        labelled = np.concatenate([labelled, chosen])
        yield labelled


def _fit(corpus: Corpus, rows: NDArray[np.int64]) -> LogisticRegression:
    model = LogisticRegression(C=5, class_weight="balanced", solver="liblinear")
    return model.fit(corpus.words[rows], corpus.labels[rows])


def read_corpus(path: Path, seed: int) -> Corpus:
    """Return the messages of the subset train, or all without subsets, in order of time.

    Raises `InvalidData`.
    """
    frame = read_labeled(path)
    if "subset" in frame:
        frame = frame[frame["subset"] == "train"]
    label = dict(zip(frame["msg_id"], frame["label"], strict=True))
    ordered = in_time([Message(*row) for row in zip(frame["msg_id"], frame["msg"], strict=True)])
    texts = [message.text for message in ordered]
    table = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    return Corpus(
        labels=np.array([label[message.id] for message in ordered]),
        groups=near_duplicate_groups(texts),
        words=table.fit_transform([plain(text) for text in texts]).tocsr(),
        texts=vectors(texts, seed),
    )


def draw(scores: dict[str, NDArray[np.float64]], sizes: Sequence[int], path: Path) -> None:
    """Write the curves as SVG: means with one standard error. Raises OSError."""
    with plot(path, xlabel="labels", ylabel="F1 on held-out messages") as axes:
        for way, rows in scores.items():
            mean, error = rows.mean(axis=0), rows.std(axis=0) / np.sqrt(len(rows))
            axes.plot(sizes, mean, marker="o", markersize=4, label=way)
            axes.fill_between(sizes, mean - error, mean + error, alpha=0.15)
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", frameon=False)


def table(
    scores: dict[str, NDArray[np.float64]],
    sizes: Sequence[int],
    corpus: Corpus,
    options: argparse.Namespace,
) -> str:
    """Return the figures as Markdown."""
    head = "| chosen | " + " | ".join(f"{size:,}" for size in sizes) + " |"
    rows = [
        f"| {way} | " + " | ".join(_shown(mean) for mean in rows.mean(axis=0)) + " |"
        for way, rows in scores.items()
    ]
    return "\n".join(
        [
            f"F1 on held-out messages by the number of labels. {len(corpus.labels):,} messages, "
            f"{int(corpus.labels.sum()):,} of them positive. Means over {options.seeds} times "
            f"{options.folds} folds, with near-duplicates in one fold; batches of {options.batch}.",
            "",
            head,
            "|---" * (len(sizes) + 1) + "|",
            *rows,
            "",
            _needed(scores, sizes),
            "",
        ]
    )


def _shown(mean: float) -> str:
    return "–" if np.isnan(mean) else f"{mean:.3f}"


def _needed(scores: dict[str, NDArray[np.float64]], sizes: Sequence[int]) -> str:
    """Return a sentence: the labels that `labeling.next` needs for the final F1 in time order."""
    goal = scores[TIME].mean(axis=0)[-1]
    reached = np.flatnonzero(scores[NEXT].mean(axis=0) >= goal)
    if not len(reached):
        return f"{NEXT} does not reach the F1 {goal:.3f} of {sizes[-1]:,} labels {TIME}."
    return (
        f"{NEXT} reaches the F1 {goal:.3f} of {sizes[-1]:,} labels {TIME} with "
        f"{sizes[reached[0]]:,} labels."
    )


def main() -> int:
    options = _parser().parse_args()
    return run_command("labeling.simulate", lambda: _run(options), options.data)


def _run(options: argparse.Namespace) -> None:
    corpus = read_corpus(options.data, seed=0)
    sizes = list(range(options.batch, options.most + 1, options.batch))
    seeds = list(range(options.seeds))
    scores = simulate(corpus, sizes, options.batch, seeds, options.folds)
    text = table(scores, sizes, corpus, options)
    page, curve = options.out / "labelling.md", options.out / "images" / "labelling-curve.svg"
    draw(scores, sizes, curve)
    write_section(page, MARK, text)
    print(f"{text}\nsee {page} and {curve}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m labeling.simulate",
        description="Plot the F1 of a model by the number of labels for each strategy of choosing"
        " messages to label. Known labels stand in for the person.",
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="LABELED.csv", help="msg_id,msg,label"
    )
    parser.add_argument("--batch", type=int, default=200, help="labels in a batch (%(default)s)")
    parser.add_argument("--most", type=int, default=2000, help="most labels (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions (%(default)s)")
    parser.add_argument("--folds", type=int, default=5, help="folds held out in turn (%(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("docs"),
        metavar="DIR",
        help="folder of labelling.md and images/labelling-curve.svg (%(default)s)",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
