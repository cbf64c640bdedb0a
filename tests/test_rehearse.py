import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from serving import ROOT


def rehearse(folder: Path, dump: Path, known: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtests.rehearse", "--messages", dump, "--known", known]
    return subprocess.run(
        [*command, "--work", folder, *more], cwd=ROOT, capture_output=True, text=True
    )


def with_subsets(sample: Path, folder: Path) -> Path:
    frame = pd.read_csv(sample / "labeled_messages.csv")
    frame["subset"] = ["test" if number % 5 == 0 else "train" for number in range(len(frame))]
    path = folder / "known.csv"
    frame.to_csv(path, index=False)
    return path


def test_labels_without_a_test_subset_are_rejected(sample, tmp_path):
    known = tmp_path / "known.csv"
    pd.read_csv(sample / "labeled_messages.csv").to_csv(known, index=False)
    done = rehearse(tmp_path / "work", sample / "messages.db", known)
    assert done.returncode == 1
    *_notes, line = done.stderr.splitlines()
    assert "no message is of the subset test" in line
    assert not (tmp_path / "work").exists()


def test_existing_folder_is_rejected(sample, tmp_path):
    (tmp_path / "bentoml").mkdir()
    done = rehearse(tmp_path, sample / "messages.db", with_subsets(sample, tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(f"{tmp_path}/bentoml: File exists")
    assert not (tmp_path / "messages.db").exists()


def test_messages_without_a_known_label_are_rejected(sample, tmp_path):
    done = rehearse(tmp_path / "work", sample / "messages.db", with_subsets(sample, tmp_path))
    assert done.returncode == 1
    assert "of 4,000 messages have no label" in done.stderr.splitlines()[-1]


@pytest.mark.lab
def test_rehearsal_ends_with_a_served_model(sample, tmp_path):
    work = tmp_path / "work"
    known = with_subsets(sample, tmp_path)
    flags = ("--by", "model", "--labels", "600", "--count", "400")
    done = rehearse(work, known, known, *flags)
    assert done.returncode == 0, done.stderr
    assert "chosen for variety: there is no model yet" in done.stdout
    assert "chosen by uncertainty of feedsieve-classifier:" in done.stdout
    assert "600 labels, chosen by model" in done.stdout

    labeled = pd.read_csv(work / "labeled_messages.csv")
    given = labeled[labeled["subset"] == "train"]
    truth = pd.read_csv(known).set_index("msg_id")
    assert len(given) == 600 and (given["annotator"] == "feedsieve@localhost").all()
    assert (truth.loc[given["msg_id"], "label"].to_numpy() == given["label"].to_numpy()).all()
    assert (truth.loc[given["msg_id"], "subset"] == "train").all()

    last = done.stdout.splitlines()[-1]
    assert float(last.split("F1 ")[1].split(",")[0]) > 0.6
