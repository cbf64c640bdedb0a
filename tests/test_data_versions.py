"""Data of trainings in a real MLflow store: kept once, and found by time and by fingerprint."""

import gzip
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from labelled_files import offers
from mlflow_server import empty, store

from train.__main__ import main
from train.data.dataset import Dataset
from train.data.validation import ADJUDICATED, GROUND_TRUTH
from train.tracking import data_versions, mlflow_run
from train.tracking.data_versions import DATA_RUN, EXPERIMENT, DataVersionNotFound

__all__ = ["empty", "store"]


def dataset(count: int = 60, unlabelled: Sequence[str] = ()) -> Dataset:
    frame = offers([number % 3 == 0 for number in range(count)], test_every=4)
    frame.loc[0, ["msg_id", "msg"]] = "007", "сдам\r\n\x00\x1f\u2028квартиру, 1 000\xa0€ 🙂"
    frame["labeled_at"] = pd.to_datetime(["2026-11-01", None] * (count // 2), utc=True)
    frame[ADJUDICATED] = 1 - frame["label"]
    frame[GROUND_TRUTH] = frame["label"] == 1
    return Dataset.of(frame, name="mine.csv", unlabelled=unlabelled, is_of_sample=True)


def training(data: Dataset, started: datetime) -> None:
    """Track a training on `data` that began at `started`."""
    with mlflow_run.run("train", {}) as run:
        data_versions.log(run, data)
    # MLflow's client sets the start of a run when it creates it, so this makes another.
    client, milliseconds = run.client, int(started.timestamp() * 1000)
    experiment = client.get_run(run.id).info.experiment_id
    tags = {DATA_RUN: client.get_run(run.id).data.tags[DATA_RUN]}
    client.create_run(experiment, start_time=milliseconds, tags=tags)
    client.delete_run(run.id)


class TestFetch:
    def test_data_is_as_it_was(self, store):
        data = dataset(unlabelled=["сдам\r\n\u2029", "", "ß"])
        data_versions.upload(store, data)
        found = data_versions.fetch(data.fingerprint[:6])
        pd.testing.assert_frame_equal(found.frame, data.frame)
        pd.testing.assert_frame_equal(found.parts.train, data.parts.train)
        assert list(found.unlabelled) == list(data.unlabelled)
        assert (found.name, found.is_of_sample) == ("mine.csv", True)

    def test_equal_data_is_stored_once(self, store):
        data = dataset()
        others = [replace(data, unlabelled=["more"]), replace(data, is_of_sample=False)]
        runs = [data_versions.upload(store, one) for one in (data, data, *others)]
        assert runs[0] == runs[1] and len(set(runs)) == 3
        assert data_versions.fetch(runs[2]).unlabelled == ["more"]
        assert not data_versions.fetch(runs[3]).is_of_sample

    def test_time_finds_the_last_training_until_then(self, store):
        day = datetime(2026, 11, 1, 12, tzinfo=UTC)
        first, second = dataset(60), dataset(80)
        training(first, day)
        training(second, day + timedelta(days=1))
        training(first, day + timedelta(days=2))
        found = [
            len(data_versions.fetch(day + timedelta(days=number, seconds=seconds)).frame)
            for number, seconds in ((0, 0), (1, -1), (1, 0), (2, 0), (9, 0))
        ]
        assert found == [60, 60, 80, 60, 60]
        with pytest.raises(DataVersionNotFound) as error:
            data_versions.fetch(day - timedelta(seconds=1))
        assert "no training until 2026-11-01T11:59:59Z has stored its data" in str(error.value)
        assert f"{second.fingerprint[:12]} (2026-11-02T12:00:00Z)" in str(error.value)

    def test_unknown_fingerprint_is_named(self, store):
        with pytest.raises(DataVersionNotFound, match="fingerprint abcdef; MLflow has no data"):
            data_versions.fetch("abcdef")

    def test_deleted_data_is_not_found(self, store):
        day = datetime(2026, 11, 1, tzinfo=UTC)
        training(dataset(), day)
        store.delete_run(data_versions.upload(store, dataset()))
        with pytest.raises(DataVersionNotFound, match="MLflow has no data"):
            data_versions.fetch(day)

    def test_data_of_an_encoder_is_that_of_its_fine_tuning(self, store):
        for parameters, count in (({"finetune": True}, 60), ({"finetune": False}, 80)):
            with mlflow_run.run("train", parameters) as run:
                data_versions.log(run, dataset(count))
                run.log(tags={"encoder_tag": "feedsieve-encoder:one"})
        assert len(data_versions.of_encoder("feedsieve-encoder:one").frame) == 60
        with pytest.raises(DataVersionNotFound, match="feedsieve-encoder:two"):
            data_versions.of_encoder("feedsieve-encoder:two")

    def test_damaged_data_is_refused(self, store):
        data = dataset()
        run = store.get_run(data_versions.upload(store, data))
        file = Path(run.info.artifact_uri.removeprefix("file://")) / "data" / "labelled.jsonl.gz"
        file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-9]))
        with pytest.raises(DataVersionNotFound, match="damaged"):
            data_versions.fetch(data.fingerprint)

    def test_half_an_upload_is_not_found(self, store):
        data = dataset()
        experiment = mlflow_run.experiment_id(store, EXPERIMENT)
        store.create_run(experiment, tags={"fingerprint": data.fingerprint})
        with pytest.raises(DataVersionNotFound):
            data_versions.fetch(data.fingerprint)
        data_versions.upload(store, data)
        assert data_versions.fetch(data.fingerprint).fingerprint == data.fingerprint


class TestCommand:
    @pytest.mark.parametrize("value", ["yesterday", "2026-13-01", "abc", ""])
    def test_neither_time_nor_fingerprint_is_rejected(self, value, monkeypatch, capsys):
        monkeypatch.setattr("sys.argv", ["train", "--as-of", value])
        with pytest.raises(SystemExit):
            main()
        assert (
            "a time such as 2026-11-30T08:30:00Z, or six or more digits" in capsys.readouterr().err
        )

    def test_file_and_earlier_data_exclude_each_other(self, monkeypatch, capsys):
        monkeypatch.setattr("sys.argv", ["train", "--as-of", "2026-11-30", "--data", "mine.csv"])
        with pytest.raises(SystemExit):
            main()
        assert "leave out --data" in capsys.readouterr().err
