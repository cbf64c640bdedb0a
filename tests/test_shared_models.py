"""Models as artifacts in a real MLflow store: stored once, fetched where they are absent."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import bentoml
import pytest
from mlflow import MlflowClient
from model_copies import CLASSIFIER, ENCODER, change, copy_pair

from feedsieve.registry import current_model
from feedsieve.scoring import model_store
from feedsieve.scoring.model_store import ModelNotFound
from feedsieve.settings import settings
from train.report import model_card
from train.tracking import mlflow_run, registry, shared_models
from train.tracking.registry import CHAMPION, Pair, Version
from train.tracking.shared_models import EXPERIMENT


@pytest.fixture(scope="module")
def client(tracked) -> MlflowClient:
    return MlflowClient(f"sqlite:///{tracked}")


@pytest.fixture(scope="module")
def stored(small_home, home, tmp_path_factory) -> Iterator[dict[str, Version]]:
    """Versions whose models are in the store. `other` alone has another encoder."""
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(small_home, source, dirs_exist_ok=True)
    found = {}
    for name in ("deleted", "one", "two", "other"):
        copy_pair(source, name)
        if name == "other":
            change(source / "models" / ENCODER / name / "reference.json", other=True)
        for model in (CLASSIFIER, ENCODER):
            shutil.copytree(source / "models" / model / name, home / "models" / model / name)
        pair = Pair(f"{CLASSIFIER}:{name}", f"{ENCODER}:{name}", "f")
        with mlflow_run.run("tests", {}) as run:
            models = shared_models.upload(run, pair.classifier_tag, pair.encoder_tag)
            registry.register(run, pair, models)
        found[name] = registry.with_tag(pair.classifier_tag)
    yield found
    remove(*found.values())


def remove(*versions: Version) -> None:
    for version in versions:
        for tag in (version.pair.classifier_tag, version.pair.encoder_tag):
            if model_store.has(tag):
                bentoml.models.delete(tag)


def contents(tag: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in model_store.folder(tag).iterdir()}


def artifacts(client: MlflowClient, run_id: str) -> Path:
    return Path(client.get_run(run_id).info.artifact_uri.removeprefix("file://"))


def test_pair_is_fetched_as_it_was(stored):
    one = stored["one"]
    tags = one.pair.classifier_tag, one.pair.encoder_tag
    before = [contents(tag) for tag in tags]
    remove(one)
    assert not model_store.has(tags[0])
    one.fetch()
    assert [contents(tag) for tag in tags] == before
    assert model_store.load_scorer(tags[0]).score(["Сдаю квартиру"]).shape == (1,)


def test_fetched_older_model_is_not_the_latest(stored, home):
    newest = home / "models" / CLASSIFIER / "latest"
    with bentoml.models.create(CLASSIFIER):
        pass
    before = newest.read_text()
    remove(stored["one"])
    stored["one"].fetch()
    assert newest.read_text() == before
    bentoml.models.delete(f"{CLASSIFIER}:{before.strip()}")


def test_encoder_is_stored_once(stored, client):
    runs = {name: version.stored.encoder_run for name, version in stored.items()}
    assert runs["one"] == runs["two"] == runs["deleted"] != runs["other"]
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    assert {run.info.run_id for run in client.search_runs([experiment])} >= set(runs.values())
    for version in stored.values():
        own = {one.path for one in client.list_artifacts(version.run_id, "model/encoder")}
        assert f"model/encoder/{model_card.FILE}" in own and "model/encoder/model.onnx" not in own


class TestCurrentModel:
    @pytest.fixture(autouse=True)
    def fresh_settings(self):
        settings.cache_clear()
        yield
        settings.cache_clear()

    def test_champion_is_used_unless_a_model_is_named(self, stored, monkeypatch):
        tag = stored["two"].pair.classifier_tag
        registry.move(CHAMPION, stored["two"].number)
        remove(stored["two"])
        assert current_model() == tag
        assert model_store.has(tag)
        monkeypatch.setenv("FEEDSIEVE_MODEL", "feedsieve-classifier:one")
        settings.cache_clear()
        assert current_model() == "feedsieve-classifier:one"

    def test_newest_model_is_used_where_nothing_was_tracked(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
        assert current_model() == "feedsieve-classifier:latest"
        assert list(tmp_path.iterdir()) == []

    def test_champion_that_cannot_be_had_is_reported(self, tmp_path, monkeypatch, capsys):
        (tmp_path / "mlflow.db").write_text("no database")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
        assert current_model() == "feedsieve-classifier:latest"
        error = capsys.readouterr().err
        assert error.startswith("not the champion but feedsieve-classifier:latest is used: MLflow")
        assert error.count("\n") == 1


def test_damaged_models_are_not_added(stored, client):
    other = stored["other"]
    folder = artifacts(client, other.stored.encoder_run)
    change(folder / "model" / "encoder" / "reference.json", other=False)
    remove(other)
    with pytest.raises(ModelNotFound, match="what MLflow has is damaged"):
        other.fetch()
    assert not model_store.has(other.pair.encoder_tag)


def test_deleting_one_training_leaves_the_encoder_to_the_others(stored, client):
    deleted = stored["deleted"]  # the first with this encoder
    client.delete_run(deleted.run_id)
    shutil.rmtree(artifacts(client, deleted.run_id))  # as `mlflow gc` does
    remove(deleted, stored["two"])
    stored["two"].fetch()
    assert model_store.has(stored["two"].pair.encoder_tag)
    with pytest.raises(
        ModelNotFound, match="cannot give it .*`bentoml models import /PATH/TO/FILE`"
    ):
        deleted.fetch()


def test_version_without_models_names_the_other_way(tracked):
    with mlflow_run.run("tests", {}) as run:
        registry.register(run, Pair(f"{CLASSIFIER}:gone", f"{ENCODER}:gone", "f"))
    with pytest.raises(ModelNotFound, match="the tags alone; `bentoml models export TAG`"):
        registry.with_tag(f"{CLASSIFIER}:gone").fetch()
