"""Notebooks are valid, are stored without outputs, and run from start to end."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from serving import ROOT
from tiny_bert import save_tiny_bert

from data.generate import DATABASE, LABELED, compose, write
from feedsieve.message import Message
from feedsieve.store.store import MessageStore

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LONE = "Добрый вечер всем, hello everyone"  # the only one in a mixture of languages
HOSTILE = "<img src=x onerror=alert(1)> for $1$ </script>"
WRITTEN = ("data", "notebooks", "reports", ".mlflow", ".cache")  # where a notebook might write
Run = Callable[..., NotebookNode]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a small corpus and encoder, for all files that notebooks write."""
    folder = tmp_path_factory.mktemp("notebooks")
    write(compose(500, seed=5), folder)
    store = MessageStore.open(folder / DATABASE)
    store.add(Message(f"hostile {number}", HOSTILE) for number in range(20))
    store.add([Message("lone", LONE)])
    store.close()
    save_tiny_bert(folder / "tiny")
    return folder


@pytest.fixture(scope="module")
def run(place, tracked) -> Run:
    """Runs a notebook in a new kernel with other parameters, as Papermill does."""
    settings = {
        "BENTOML_HOME": str(place / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "FEEDSIEVE_DB": str(place / DATABASE),
        "FEEDSIEVE_CACHE": str(place / "cache"),
        "FEEDSIEVE_THREADS": "1",
        "TQDM_DISABLE": "1",  # as `make html`
        "IPYTHONDIR": str(place / "ipython"),
    }

    def execute(name: str, **parameters: object) -> NotebookNode:
        notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
        [at] = [
            number
            for number, cell in enumerate(notebook.cells)
            if "parameters" in cell.metadata.get("tags", ())
        ]
        assert all(f"\n{name} = " in f"\n{notebook.cells[at].source}" for name in parameters)
        lines = [
            f"{name} = Path({str(value)!r})" if isinstance(value, Path) else f"{name} = {value!r}"
            for name, value in parameters.items()
        ]
        notebook.cells.insert(at + 1, nbformat.v4.new_code_cell("\n".join(lines)))
        client = NotebookClient(notebook, timeout=600, kernel_name="python3")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JUPYTER_RUNTIME_DIR", str(place / "runtime"))
            client.execute(env=os.environ | settings, cwd=str(ROOT / "notebooks"))
        return notebook

    return execute


@pytest.fixture(scope="module")
def before(run, place) -> dict[str, NotebookNode]:
    """Outputs without a model, with an existing batch."""
    (place / "batch.csv").write_text("somebody's\n")
    return {
        "explore": run("01_explore.ipynb", OUT=place / "scored_corpus.csv", MOST=300),
        "label": run(
            "02_label.ipynb", LABELED=place / "none.csv", BATCH=place / "batch.csv", COUNT=20
        ),
    }


@pytest.fixture(scope="module")
def after(before, run, place) -> dict[str, NotebookNode]:
    """Outputs of a training, and with a model."""
    labeled = place / LABELED
    report = place / "reports"
    return {
        "train": run("03_train.ipynb", DATA=labeled, ENCODER=str(place / "tiny"), REPORT=report),
        "errors": run("04_errors.ipynb", DATA=labeled, HELD_OUT=report / "held_out.csv"),
        "explore": run("01_explore.ipynb", OUT=place / "again.csv", MOST=300),
        "label": run("02_label.ipynb", LABELED=labeled, BATCH=place / "second.csv", COUNT=20),
    }


def printed(notebook: NotebookNode) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def displayed(notebook: NotebookNode, kind: str) -> list[str]:
    """Return the outputs of a MIME type, JSON as text."""
    shown = [
        output.data[kind]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if kind in output.get("data", ())
    ]
    return [one if isinstance(one, str) else json.dumps(one) for one in shown]


def files() -> dict[Path, int]:
    """Return the modification time of each file below `WRITTEN`."""
    files = [file for name in WRITTEN for file in (ROOT / name).rglob("*") if file.is_file()]
    return {file: file.stat().st_mtime_ns for file in files if "__pycache__" not in file.parts}


class TestFiles:
    def test_notebooks_exist(self):
        assert [path.name for path in NOTEBOOKS] == [
            "01_explore.ipynb",
            "02_label.ipynb",
            "03_train.ipynb",
            "04_errors.ipynb",
        ]

    @pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
    def test_notebook_is_valid_and_has_no_outputs(self, path):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        nbformat.validate(notebook)
        assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
        identifiers = [cell["id"] for cell in notebook["cells"]]
        assert len(set(identifiers)) == len(identifiers)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                assert cell["outputs"] == [] and cell["execution_count"] is None, cell["id"]

    def test_notebooks_write_nothing_into_the_repository(self, request):
        earlier = files()
        request.getfixturevalue("after")
        assert files() == earlier


class TestExplore:
    def test_explore_scores_every_message(self, before, place):
        table = pd.read_csv(place / "scored_corpus.csv", dtype={"msg_id": str})
        assert table.columns.tolist() == ["msg_id", "msg", "dummy_label"]
        stored = MessageStore.open(place / DATABASE).read_all()
        assert set(table["msg_id"]) == {message.id for message in stored}
        assert table["dummy_label"].between(0, 1).all()

    def test_explore_plots_words_and_then_the_encoder(self, before, after):
        assert "300 messages by words" in printed(before["explore"])
        assert "300 messages by the encoder of feedsieve-classifier:" in printed(after["explore"])
        for notebook in (before["explore"], after["explore"]):
            plots = displayed(notebook, "application/vnd.plotly.v1+json")
            assert any("customdata" in plot for plot in plots)

    def test_explore_counts_languages_in_the_store_and_in_the_notebook(self, before):
        cells = {cell.id: cell.get("outputs") for cell in before["explore"].cells}
        in_store, in_notebook = (cells[name][0].data["text/plain"] for name in ("ibis", "duckdb"))
        languages = set(re.findall(r"Russian|English|Ukrainian|Greek", in_store))
        assert len(languages) > 1
        assert set(re.findall(r"Russian|English|Ukrainian|Greek", in_notebook)) == languages

    def test_explore_has_its_plots_and_no_progress_bars_as_html(self, before):
        page, _resources = HTMLExporter().from_notebook_node(before["explore"])
        assert page.count("Plotly.newPlot(") >= 2
        assert "%|" not in page
        assert not re.search(r"<script[^>]+src=[^>]*plotly", page), "plotly.js is fetched"

    def test_explore_shows_messages_as_text(self, before):
        tables = displayed(before["explore"], "text/html")
        assert any("&lt;img src=x" in table for table in tables)
        plots = displayed(before["explore"], "application/vnd.plotly.v1+json")
        assert not any("<img src=x" in shown for shown in [*tables, *plots])


class TestLabel:
    def test_label_does_not_replace_a_batch(self, before, place):
        assert "20 messages to label" in printed(before["label"])
        assert "already exists" in printed(before["label"])
        assert (place / "batch.csv").read_text() == "somebody's\n"

    def test_label_chooses_by_the_model_once_there_is_one(self, before, after, place):
        assert "there is no model yet" in printed(before["label"])
        batch = pd.read_csv(place / "second.csv")
        assert len(batch) == 20 and batch["score"].notna().all()


class TestTrain:
    def test_train_runs_the_production_training(self, after, place):
        metrics = json.loads((place / "reports" / "metrics.json").read_text(encoding="utf-8"))
        [test, runs, *_] = displayed(after["train"], "text/html")
        assert f"{metrics['test']['f1']:.3f}".rstrip("0") in test
        assert metrics["classifier_tag"] in runs and "FINISHED" in runs
        assert displayed(after["train"], "image/svg+xml")


class TestErrors:
    def test_errors_shows_mistakes_suspects_and_slices(self, after):
        shown = displayed(after["errors"], "text/html")
        for column in ("score", "wrong_so_far", "slice"):
            assert any(f"<th>{column}</th>" in table for table in shown), column
