"""`feedsieve score`: scores of the texts of a CSV or Parquet file."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path

import click
from tqdm import tqdm

from feedsieve.bulk.score_file import ClusterUnavailable, Engine, InProcess, check_paths, score_file
from feedsieve.bulk.tables import ADDED, Columns
from feedsieve.scoring.classifier import import_lightgbm_alone
from feedsieve.scoring.model_store import load_scorer
from feedsieve.settings import settings
from feedsieve.sources.report import ReadReport

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("source", metavar="IN", type=_FILE)
@click.argument("target", metavar="OUT", type=_FILE)
@click.option(
    "--cluster",
    metavar="WHERE",
    help="Score on a Dask cluster: tcp://HOST:PORT is a scheduler; local:N starts N processes here,"
    " ssh://[USER@]HOST[:PORT][,HOST][/PYTHON] a worker on each host, slurm:N and kubernetes:N N"
    " workers there. The workers receive the model.",
)
@click.option("--column", metavar="NAME", help="The column of the texts.  [default: msg]")
@click.option(
    "--names",
    metavar="SCORE,LABEL",
    default=",".join(ADDED),
    show_default=True,
    help="Names of the new columns.",
)
@click.option("--force", is_flag=True, help="Replace OUT, and parts of another run in OUT.parts.")
def score(
    source: Path, target: Path, cluster: str | None, column: str | None, names: str, force: bool
) -> None:
    """Score the texts of a CSV or Parquet file.

    Copies IN to OUT and adds the columns score (0 to 1) and label (positive or negative) for the
    column msg, or text, message, content or body if there is no msg. Both files end in .parquet, or
    both are CSV; a CSV keeps its encoding, delimiter and line ends. An interrupted run resumes when
    it is started again; until it is complete, the folder OUT.parts holds its scores.
    """
    columns, report = Columns(column, _two_names(names)), ReadReport()
    check_paths(source, target, force)  # before a model is loaded
    with _engine(cluster) as engine, tqdm(desc=str(source), unit=" messages") as bar:
        positives, count = score_file(
            engine, source, target, bar.update, columns=columns, replace=force, report=report
        )
    for note in report.notes:
        click.echo(f"{source}: {note}")
    click.echo(f"{target}: {count:,} scored by {engine.model}, {positives:,} positive")


def _two_names(names: str) -> tuple[str, str]:
    score, _, label = (name.strip() for name in names.partition(","))
    if not score or not label or "," in label or score.casefold() == label.casefold():
        raise click.BadParameter("two names are needed, such as score,label", param_hint="--names")
    return score, label


@contextmanager
def _engine(cluster: str | None) -> Iterator[Engine]:
    """Yield the engine of this process, or that of a cluster.

    The runtime does not depend on Dask: `feedsieve[cluster]` adds the engine as an entry point.
    """
    model, cascade = settings().model, settings().cascade
    if cluster is None:
        import_lightgbm_alone()
        yield InProcess(load_scorer(model, settings().threads, cascade=cascade))
        return
    try:
        connect = entry_points(group="feedsieve.engines")["cluster"].load()
    except (KeyError, ImportError) as error:
        raise ClusterUnavailable(
            f"--cluster needs Dask: pip install -c constraints.txt -e '.[cluster]' ({error})"
        ) from error
    with connect(cluster, model, cascade=cascade) as engine:
        yield engine
