"""Features in Feast: computed once, equal to those without Feast, never later than the label."""

import json
import os
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import make_url
from test_pipeline import ROOT, python
from test_postgres import postgres
from tiny_bert import save_tiny_bert

from data.generate import DATABASE, LABELED, compose, write
from export.sources import load
from feedsieve.message import Message
from feedsieve.scoring.encoder import Encoder, EncoderDescription
from feedsieve.scoring.handcrafted import HANDCRAFTED, handcrafted_features
from feedsieve.store.store import MessageStore
from feedsieve.text import fingerprint, plain
from train.data.dataset import Dataset
from train.data.labelled import read_labeled
from train.encoder.layers import UpperLayers
from train.feast import parquet
from train.feast.feature_store import (
    COPIES,
    EMBEDDING,
    EMBEDDING_FEATURES,
    HANDCRAFTED_VIEW,
    FeatureStore,
    FeaturesUnavailable,
)
from train.features import is_finetuned
from train.options import Options
from train.pipeline import read, train
from train.tracking import data_versions, mlflow_run

__all__ = ["postgres"]  # pytest finds the fixture here

pytestmark = pytest.mark.lab

POSTED = datetime(2024, 5, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
TEXT = "Сдаю квартиру, 900 евро, @agent"
FIRST, AGAIN = "posted", "posted-again"  # the identifiers of two messages with this text
LATE = "imported-late"  # of a message older than all others
COPIES_SO_FAR = f"{COPIES}:copies so far"

# All messages; a late one; all by another encoder; none again by the first. In one process, since
# imports take longest.
COMPUTE = """
import json, sys
from datetime import UTC, datetime
from pathlib import Path
from feedsieve.message import Message
from feedsieve.store.store import MessageStore
from train.features import compute

database, late = sys.argv[1:]
runs = [compute(database, None, Path("feature_repo"))]
store = MessageStore.open(database)
store.add([Message(late, "an old message", time=datetime(2019, 1, 1, tzinfo=UTC))])
runs.append(compute(database, None, Path("feature_repo")))
runs.append(compute(database, "tiny", Path("feature_repo")))
runs.append(compute(database, runs[0].encoder, Path("feature_repo")))
print(json.dumps([[run.encoder, run.messages, dict(run.new)] for run in runs]))
"""


def copy_of_repository(folder: Path) -> Path:
    ignored = shutil.ignore_patterns(".feast", "__pycache__")
    return shutil.copytree(ROOT / "feature_repo", folder / "feature_repo", ignore=ignored)


def run_of(folder: Path, report: str, *arguments: str) -> dict:
    """Train on the sample in `folder`; return the metrics."""
    done = python("-m", "train", "--data", LABELED, "--report", report, *arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((folder / report / "metrics.json").read_text(encoding="utf-8"))
    return metrics | {"output": done.stdout}


@dataclass(frozen=True)
class Project:
    """A folder with a sample corpus, a model and features, and the outcomes of computing them."""

    folder: Path
    direct: dict
    computed: list

    @property
    def repository(self) -> Path:
        return self.folder / "feature_repo"


def test_finetuned_encoder_is_recognised(tmp_path):
    source = load(str(save_tiny_bert(tmp_path / "tiny")))
    for encoder in (source, UpperLayers(source, 1).merged(source)):
        EncoderDescription(encoder.name, "mean", "", 16, 8, "fp32", {}).write(tmp_path)
        assert is_finetuned(tmp_path) == (encoder is not source)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    folder = tmp_path_factory.mktemp("features")
    write(compose(300, 7), folder)
    save_tiny_bert(folder / "tiny")
    copy_of_repository(folder)
    store = MessageStore.open(folder / DATABASE)
    store.add(
        [Message(FIRST, TEXT, time=POSTED), Message(AGAIN, TEXT, time=POSTED + 2 * DAY)],
    )
    store.close()
    direct = run_of(folder, "direct", "--encoder", "tiny", "--db", DATABASE)
    done = python("-c", COMPUTE, DATABASE, LATE, cwd=folder)
    assert done.returncode == 0, done.stderr
    return Project(folder, direct, json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def features(project) -> FeatureStore:
    return FeatureStore(project.repository)


def labeled(identifier: str, text: str, *times: datetime) -> pd.DataFrame:
    """Return one message, labelled at each of `times`."""
    frame = pd.DataFrame({"labeled_at": pd.to_datetime(list(times), utc=True)})
    return frame.assign(msg_id=identifier, msg=text, label=1)


class TestCompute:
    def test_each_message_is_computed_once(self, project):
        first, second, _third, _fourth = project.computed
        encoder = project.direct["encoder_tag"]
        assert first == [encoder, 302, {EMBEDDING: 302, HANDCRAFTED_VIEW: 302}]
        assert second == [encoder, 303, {EMBEDDING: 1, HANDCRAFTED_VIEW: 1}]

    def test_each_encoder_has_its_own_embeddings(self, project, features):
        """Returning to an encoder computes nothing and restores its embeddings online."""
        first, _second, third, fourth = project.computed
        assert third[0] not in (first[0], None)
        assert third[1:] == [303, {EMBEDDING: 303, HANDCRAFTED_VIEW: 0}]
        assert fourth == [first[0], 303, {EMBEDDING: 0, HANDCRAFTED_VIEW: 0}]
        assert features.encoder_tag == first[0]
        assert len(features.embeddings_now([FIRST, LATE])) == 2

    def test_old_message_imported_late_is_online(self, features):
        assert fingerprint("an old message") in features.embeddings_now([LATE])

    def test_interrupted_run_resumes(self, project, tmp_path):
        store = MessageStore.open(project.folder / DATABASE)
        posts = store.posts()[:120]
        computed = []

        def extract(texts, progress, capacity):
            if len(computed) + len(texts) > capacity:
                raise KeyboardInterrupt
            computed.extend(texts)
            return {"length": list(map(len, texts))}

        with pytest.raises(KeyboardInterrupt):
            parquet.fill(tmp_path, store, posts, partial(extract, capacity=60), "length", 50)
        assert parquet.read(tmp_path, ["length"]).num_rows == len(computed) == 50
        done = parquet.fill(tmp_path, store, posts, partial(extract, capacity=999), "length", 50)
        store.close()
        assert done == 70
        assert parquet.read(tmp_path, ["length"])["length"].to_pylist() == list(map(len, computed))

    def test_failed_write_leaves_no_file(self, tmp_path, monkeypatch):
        def full(_table, path):
            path.write_bytes(b"PAR1")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(parquet.pq, "write_table", full)
        with pytest.raises(OSError, match="No space"):
            parquet.write(tmp_path / "view" / "part-00000.parquet", None)
        assert parquet.read(tmp_path / "view", ["message_id"]).num_rows == 0


class TestValues:
    def test_online_embeddings_equal_offline_ones(self, project, features):
        frame = pd.read_csv(project.folder / LABELED, dtype=str)
        offline = features.embeddings_as_of_labels(frame)
        online = features.embeddings_now(frame["msg_id"].tolist())
        assert offline.keys() == online.keys() == set(frame["msg"].map(fingerprint))
        for key, embedding in offline.items():
            assert embedding.dtype == np.float32
            assert embedding.tolist() == online[key].tolist()

    def test_embeddings_are_the_encoders(self, project, features):
        name, _, version = project.direct["encoder_tag"].partition(":")
        encoder = Encoder(project.folder / "bentoml" / "models" / name / version, threads=1)
        assert features.encoder_tag == project.direct["encoder_tag"]
        embedding = features.embeddings_now([FIRST])[fingerprint(TEXT)]
        assert embedding == pytest.approx(encoder.encode([TEXT])[0], abs=1e-6)

    def test_handcrafted_features_are_those_of_the_text(self, features):
        names = [f"{HANDCRAFTED_VIEW}:{name}" for name in HANDCRAFTED]
        row = features.as_of_labels(labeled(FIRST, TEXT, POSTED), names)
        [expected] = handcrafted_features([plain(TEXT)])
        np.testing.assert_array_equal(row[list(HANDCRAFTED)].to_numpy(float)[0], expected)

    def test_unknown_messages_are_left_out(self, features):
        assert features.embeddings_now(["unknown"]) == {}
        assert features.embeddings_as_of_labels(labeled("unknown", TEXT, POSTED + DAY)) == {}


class TestPointInTime:
    def test_label_sees_no_later_copy(self, features):
        times = [POSTED + DAY, POSTED + 2 * DAY, POSTED + 3 * DAY]
        rows = features.as_of_labels(labeled(FIRST, TEXT, *times), [COPIES_SO_FAR])
        seen = dict(zip(rows["event_timestamp"], rows["copies so far"], strict=True))
        assert [seen[pd.Timestamp(time)] for time in times] == [1, 2, 2]

    def test_label_before_the_message_sees_nothing(self, features):
        frame = labeled(FIRST, TEXT, POSTED - DAY)
        rows = features.as_of_labels(frame, [COPIES_SO_FAR, *EMBEDDING_FEATURES])
        assert rows["copies so far"].isna().tolist() == [True]
        assert features.embeddings_as_of_labels(frame) == {}

    def test_label_without_time_counts_as_given_now(self, features):
        frame = labeled(FIRST, TEXT, POSTED).assign(labeled_at=pd.NaT)
        frame["labeled_at"] = pd.to_datetime(frame["labeled_at"], utc=True)
        for of_now in (frame, frame.drop(columns="labeled_at")):
            [count] = features.as_of_labels(of_now, [COPIES_SO_FAR])["copies so far"]
            assert count == 2


@pytest.fixture
def mlflow(tmp_path, monkeypatch) -> None:
    """An empty MLflow store, set as the tracking URI."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")


class TestTrain:
    @pytest.fixture(scope="class")
    @classmethod
    def stored(cls, project) -> dict:
        return run_of(project.folder, "stored", "--features", "--db", DATABASE)

    def test_metrics_equal_those_without_feast(self, project, stored):
        for name in ("test", "validation", "threshold", "ranking", "rounds", "features"):
            assert stored[name] == project.direct[name], name
        assert stored["encoder_tag"] == project.direct["encoder_tag"]
        assert stored["classifier_tag"] != project.direct["classifier_tag"]
        assert "embeddings by feedsieve-encoder:" in stored["output"]

    def test_held_out_scores_equal_those_without_feast(self, project, stored):
        direct, with_feast = (
            (project.folder / report / "held_out.csv").read_text()
            for report in ("direct", "stored")
        )
        assert with_feast == direct

    def test_stored_scores_equal_those_without_feast(self, project, stored):
        store = MessageStore.open(project.folder / DATABASE)
        assert store.unscored(stored["classifier_tag"], 1) == []
        for post in store.posts():
            if post.id != LATE:
                old, new = (
                    store.find(run["classifier_tag"], [post.id])[post.id].score
                    for run in (project.direct, stored)
                )
                assert new == pytest.approx(old, abs=1e-9)
        store.close()

    def test_labels_of_a_finetuned_encoder_are_left_out(self, project, tmp_path, mlflow):
        repository = shutil.copytree(project.repository, tmp_path / "feature_repo")
        current = repository / ".feast" / "current.json"
        content = json.loads(current.read_text()) | {"finetuned": True}
        current.write_text(json.dumps(content))
        FeatureStore(repository).apply()
        options = Options(
            data=project.folder / LABELED,
            db=None,
            encoder="wheel",
            finetune=False,
            behave=None,
            report=tmp_path / "report",
            seed=7,
            track=False,
            features=repository,
        )
        with pytest.raises(FeaturesUnavailable, match="fine-tuned, and MLflow does not know on"):
            train(options)
        frame = read_labeled(project.folder / LABELED)
        few = frame.groupby("label").head(6).index
        nearly_all = frame.assign(subset=np.where(frame.index.isin(few), "test", "train"))
        for part in (nearly_all, frame[:100].reset_index(drop=True)):
            seen = Dataset.of(part, name="seen.csv")
            with mlflow_run.run("train", {"finetune": True}) as run:
                data_versions.log(run, seen)
                run.log(tags={"encoder_tag": FeatureStore(repository).encoder_tag})
            if part is nearly_all:
                with pytest.raises(FeaturesUnavailable, match="labels; without them: too few rows"):
                    read(options)
                run.client.delete_run(run.id)
        left, _store = read(options)
        assert 0 < len(left.frame) <= len(frame) - len(seen.texts)
        texts = set(map(plain, seen.texts))
        assert not texts & set(map(plain, left.frame["msg"]))


class TestOnlineStores:
    def test_postgresql(self, project, postgres, tmp_path, monkeypatch):
        repository = shutil.copytree(project.repository, tmp_path / "feature_repo")
        url = make_url(postgres.url("postgres"))
        monkeypatch.setenv("FEAST_FS_YAML_FILE_PATH", str(repository / "postgres.yaml"))
        for name, value in {
            "PGHOST": url.host,
            "PGPORT": url.port,
            "PGDATABASE": url.database,
            "PGUSER": url.username,
            "PGPASSWORD": url.password,
            "PGSSLMODE": "disable",
        }.items():
            monkeypatch.setenv(name, str(value))
        features = FeatureStore(repository)
        assert features.apply() == {EMBEDDING, HANDCRAFTED_VIEW, COPIES}
        features.materialize(EMBEDDING, POSTED - DAY)
        shutil.rmtree(repository / ".feast" / EMBEDDING)
        (repository / ".feast" / "online.db").unlink()
        [(key, embedding)] = features.embeddings_now([FIRST]).items()
        assert key == fingerprint(TEXT)
        assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)

    @pytest.mark.parametrize("settings", ["postgres.yaml", "redis.yaml"])
    def test_unset_variables_are_named(self, tmp_path, monkeypatch, settings):
        repository = copy_of_repository(tmp_path)
        monkeypatch.setenv("FEAST_FS_YAML_FILE_PATH", str(repository / settings))
        for name in [name for name in os.environ if name.startswith("PG")]:
            monkeypatch.delenv(name)
        with pytest.raises(
            FeaturesUnavailable, match=f"{settings} needs (PGHOST, PGPORT|REDIS_CONNECTION)"
        ):
            FeatureStore(repository)


class TestErrors:
    def test_missing_features_name_the_command(self, tmp_path):
        features = FeatureStore(copy_of_repository(tmp_path))
        with pytest.raises(FeaturesUnavailable, match="no features yet; `make features`"):
            _ = features.encoder_tag

    def test_missing_repository_is_named(self, tmp_path):
        with pytest.raises(
            FeaturesUnavailable, match="feature_store.yaml cannot be read: No such file"
        ):
            FeatureStore(tmp_path)

    def test_missing_feast_names_the_extra(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "feast", None)
        with pytest.raises(FeaturesUnavailable, match=r"-e '\.\[features\]'"):
            FeatureStore(tmp_path)

    def test_invalid_settings_are_named(self, tmp_path):
        (tmp_path / "feature_store.yaml").write_text("project: a b\nprovider: [\n")
        with pytest.raises(FeaturesUnavailable, match=r"feature_store\.yaml"):
            FeatureStore(tmp_path)

    def test_features_reject_another_encoder(self, tmp_path):
        done = python("-m", "train", "--data", "l.csv", "--features", "--finetune", cwd=tmp_path)
        assert done.returncode == 2
        assert "leave out --encoder and --finetune" in done.stderr
