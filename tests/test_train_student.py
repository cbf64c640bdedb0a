"""`python -m train --finetune --distil`, from the data to the report."""

import sys
from pathlib import Path

import pytest
from test_distil import LAYERS
from test_pipeline import LABELED, Run, python, train
from tiny_bert import save_tiny_bert

from data.generate import DATABASE, compose, write
from feedsieve.store.store import MessageStore
from feedsieve.text import plain
from train.__main__ import main
from train.data.labelled import read_labeled
from train.data.split import data_fingerprint, split
from train.encoder.distil import EPOCHS, transfer_set
from train.tracking import data_versions


class TestTraining:
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory) -> Path:
        folder = tmp_path_factory.mktemp("train")
        write(compose(400, 7), folder)
        save_tiny_bert(folder / "tiny", layers=LAYERS)
        return folder

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, folder) -> Run:
        return train(folder, "report", "--finetune", "--distil", "2", "--db", DATABASE)

    def test_student_is_served(self, trained):
        metrics = trained.metrics["distillation"]
        assert (metrics["layers"], metrics["of"]) == ([0, 3], LAYERS)
        assert len(metrics["history"]) == EPOCHS
        name, version = trained.metrics["encoder_tag"].split(":")
        model = trained.folder / "bentoml" / "models" / name / version
        assert '"tiny, 2 of 4 layers, fine-tuned"' in (model / "encoder.json").read_text()

    def test_transfer_set_has_stored_but_no_test_messages(self, trained):
        parts = split(read_labeled(trained.folder / LABELED), 7, progress=False)
        own, held_out = parts.train["msg"].tolist(), parts.test["msg"].tolist()
        store = MessageStore.open(trained.folder / DATABASE)
        stored = [message.text for message in store.read_all()]
        store.close()
        texts = transfer_set(own, stored, held_out, 7)
        assert trained.metrics["distillation"]["texts"] == len(texts)
        tracked = data_versions.fetch(data_fingerprint(read_labeled(trained.folder / LABELED)))
        assert list(tracked.unlabelled) == texts
        assert transfer_set(own, texts, held_out, 8) == texts  # another seed draws from the same
        assert len(texts) > len({plain(text) for text in own})
        excluded = {plain(text) for text in held_out} - {plain(text) for text in own}
        assert excluded and not excluded & {plain(text) for text in texts}

    def test_report_and_card_describe_the_student(self, trained):
        assert "<small>4 layers</small>" in trained.report
        assert "<small>2 layers</small>" in trained.report
        tag = trained.metrics["classifier_tag"].replace(":", "/")
        card = (trained.folder / "bentoml" / "models" / tag / "card.md").read_text("utf-8")
        assert "Distillation: a student of layers 0, 3 of 4, trained to reproduce" in card
        assert "3 encoders of 4 layers" in card and "3 encoders of 2 layers" in card
        assert "--finetune --distil 2 --seed 7" in card

    def test_checkpoints_are_removed_once_the_models_are_saved(self, trained):
        left = {path.name.partition("-")[0] for path in (trained.folder / "cache").iterdir()}
        assert not left & {"distil", "finetune"}

    def test_too_many_layers_are_rejected(self, folder):
        arguments = ["--data", LABELED, "--encoder", "tiny", "--report", "refused", "--no-track"]
        done = python("-m", "train", *arguments, "--finetune", "--distil", "5", cwd=folder)
        assert done.returncode == 1
        assert "train: the encoder has 4 layers: keep 1 to 4, not 5" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--distil", "2"], "--distil needs --finetune"),
            (["--finetune", "--distil", "two"], "numbers like 0,4,8,11, or all, not 'two'"),
        ],
    )
    def test_invalid_arguments_are_rejected(self, monkeypatch, capsys, arguments, message):
        monkeypatch.setattr(sys, "argv", ["train", "--data", LABELED, *arguments])
        with pytest.raises(SystemExit, match="2"):
            main()
        assert message in capsys.readouterr().err
