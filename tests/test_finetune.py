import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from limits import largest_file
from python_process import run_python
from serving import ROOT
from sklearn.metrics import average_precision_score
from tiny_bert import save_tiny_bert

from export import onnx, sources
from export.sources import Source
from feedsieve.files import AlreadyRunning, one_run_at_a_time
from feedsieve.text import plain
from train.data.folds import folds
from train.encoder import cross_fitting, supervised
from train.encoder.checkpoints import CheckpointError
from train.encoder.finetune import FOLDS, FineTuned, finetune
from train.encoder.trainer import BATCH

COUNT = 240
EPOCHS = 6
MANY_EPOCHS = 20  # training stops early
# Kills itself in the middle of the second epoch of the second encoder.
KILLED = """
import os, sys
from pathlib import Path
from test_finetune import fine_tuned
from train.encoder.supervised import Progress

step = Progress.on_step_end
def die(self, args, state, control, **rest):
    step(self, args, state, control, **rest)
    if self.encoder == 1 and state.epoch > 1.4:
        os._exit(9)
Progress.on_step_end = die
fine_tuned(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def interrupt(*_arguments):
    raise KeyboardInterrupt


def messages() -> tuple[list[str], np.ndarray]:
    """Return texts of many lengths, and labels that depend on one of their words."""
    random = np.random.default_rng(0)
    labels = (np.arange(COUNT) % 3 == 0).astype(np.int64)
    texts = []
    for label in labels:
        words = ["".join(random.choice(list("abcdegh"), 4)) for _ in range(random.integers(1, 4))]
        words.insert(random.integers(len(words)), "rent" if label else "flat")
        texts.append(" ".join(words))
    return texts, labels


def random_labels() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 2, COUNT)


def fine_tuned(
    encoder: Path,
    cache: Path,
    labels: np.ndarray | None = None,
    epochs: int = EPOCHS,
    count: int = COUNT,
    student: Source | None = None,
) -> FineTuned:
    texts, true_labels = messages()
    labels = true_labels if labels is None else labels
    source = sources.load(str(encoder))
    groups = np.arange(count)  # no near-duplicates
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_fitting, "EPOCHS", epochs)
        patch.setattr("train.encoder.finetune.RATE", 0.01)  # few and short messages need more
        patch.setattr("train.encoder.finetune.STUDENT_RATE", 0.01)
        patch.setattr(supervised, "HEAD_RATE", 0.05)
        return finetune(source, texts[:count], labels[:count], groups, 7, cache, student)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture(scope="module")
def source(encoder) -> Source:
    return sources.load(str(encoder))


@pytest.fixture(scope="module")
def tuned(encoder, tmp_path_factory) -> FineTuned:
    return fine_tuned(encoder, tmp_path_factory.mktemp("cache"))


@pytest.fixture
def cache(tuned, tmp_path) -> Path:
    """A copy of the checkpoints of `tuned`."""
    return shutil.copytree(tuned.checkpoints.parent, tmp_path / "cache")


@pytest.fixture(scope="module")
def on_random_labels(encoder, tmp_path_factory) -> FineTuned:
    return fine_tuned(encoder, tmp_path_factory.mktemp("random"), random_labels(), MANY_EPOCHS)


class TestFineTuning:
    def test_out_of_fold_logits_predict_labels(self, tuned):
        _texts, labels = messages()
        assert tuned.out_of_fold_logits.shape == (COUNT,)
        assert average_precision_score(labels, tuned.out_of_fold_logits) > 0.9

    def test_random_labels_are_not_predicted(self, on_random_labels):
        """Only an encoder that was trained on a label could predict it."""
        logits = on_random_labels.out_of_fold_logits
        assert average_precision_score(random_labels(), logits) < 0.65

    def test_head_on_embeddings_gives_the_logits_of_training(self, tuned):
        texts, labels = messages()
        tokens = tuned.source.tokenizer(
            [plain(text) for text in texts], padding=True, return_tensors="pt"
        )
        with torch.inference_mode():
            embeddings = onnx.pooled(tuned.source)(tokens.input_ids, tokens.attention_mask)
        logits = tuned.head.logits(embeddings["embedding"].numpy())
        assert average_precision_score(labels, logits) > 0.9
        assert np.corrcoef(logits, tuned.out_of_fold_logits)[0, 1] > 0.8

    def test_only_upper_layers_change(self, tuned, source):
        before, after = source.model.state_dict(), tuned.source.model.state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed
        assert all(name.startswith("encoder.layer.1.") for name in changed)
        assert tuned.source.name == "tiny, fine-tuned"

    def test_history_has_every_epoch_of_every_encoder(self, tuned):
        for number in (1, 2, 3):
            epochs = [epoch for epoch in tuned.history if epoch["encoder"] == number]
            assert 3 <= len(epochs) <= EPOCHS
            assert [epoch["epoch"] for epoch in epochs] == list(range(1, len(epochs) + 1))
            assert all(0 <= epoch["average_precision"] <= 1 for epoch in epochs)
            assert epochs[-1]["loss"] < epochs[0]["loss"]

    def test_final_encoder_trains_for_the_mean_best_epoch(self, tuned):
        final = [epoch for epoch in tuned.history if epoch["encoder"] == 4]
        best = [
            max(epochs, key=lambda epoch: epoch["average_precision"])["epoch"]
            for number in (1, 2, 3)
            if (epochs := [epoch for epoch in tuned.history if epoch["encoder"] == number])
        ]
        assert len(final) == round(np.mean(best))
        assert all("average_precision" not in epoch for epoch in final)

    def test_progress_shows_loss_and_average_precision(self, encoder, tmp_path, capsys):
        fine_tuned(encoder, tmp_path, epochs=2)
        shown = capsys.readouterr().err
        assert "loss=" in shown and "AP=" in shown and "encoder=4 of 4" in shown
        parts = folds(messages()[1], np.arange(COUNT), 7, FOLDS)
        sizes = [len(rest) for rest, _fold in parts] + [COUNT]
        steps = 2 * sum(-(-size // BATCH) for size in sizes)
        assert f"{steps}/{steps}" in shown

    def test_training_without_bfloat16(self, encoder, tmp_path, monkeypatch):
        """The frozen layers' output is stored in bfloat16 even so."""
        monkeypatch.setattr("train.encoder.layers.has_bf16", lambda: False)
        monkeypatch.setattr("train.encoder.trainer.has_bf16", lambda: False)
        _texts, labels = messages()
        logits = fine_tuned(encoder, tmp_path).out_of_fold_logits
        assert average_precision_score(labels, logits) > 0.9

    def test_epoch_of_few_steps_is_logged(self, encoder, tmp_path):
        history = fine_tuned(encoder, tmp_path, count=36, epochs=2).history
        for number in (1, 2, 3):
            epochs = [epoch for epoch in history if epoch["encoder"] == number]
            assert [epoch["epoch"] for epoch in epochs] == list(range(1, len(epochs) + 1))
            assert all(epoch["loss"] > 0 and "average_precision" in epoch for epoch in epochs)

    def test_training_stops_early(self, on_random_labels):
        """With random labels the average precision soon stops rising."""
        assert max(epoch["epoch"] for epoch in on_random_labels.history) < MANY_EPOCHS


class TestResuming:
    def test_killed_run_resumes_to_the_same_result(self, encoder, tuned, tmp_path, capsys):
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        killed = run_python("-c", KILLED, encoder, tmp_path, cwd=ROOT, env=environment)
        assert killed.returncode == 9, killed.stderr
        again = fine_tuned(encoder, tmp_path)
        output = capsys.readouterr().out
        assert "resuming fine-tuning: 1 of 4 encoders are done" in output
        assert f"encoder 2 has done 1 of {EPOCHS} epochs" in output
        assert again.out_of_fold_logits == pytest.approx(tuned.out_of_fold_logits, abs=1e-4)
        assert again.head.weights == pytest.approx(tuned.head.weights, abs=1e-4)

    def test_run_killed_after_early_stopping_trains_no_further(
        self, encoder, on_random_labels, tmp_path
    ):
        labels = random_labels()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(supervised.LengthGroupedTrainer, "predict", interrupt)
            with pytest.raises(KeyboardInterrupt):
                fine_tuned(encoder, tmp_path, labels, MANY_EPOCHS)
        again = fine_tuned(encoder, tmp_path, labels, MANY_EPOCHS)
        assert again.history == on_random_labels.history
        expected = on_random_labels.out_of_fold_logits
        assert again.out_of_fold_logits == pytest.approx(expected, abs=1e-4)

    def test_second_run_with_the_same_arguments_is_rejected(self, encoder, tuned):
        with (
            one_run_at_a_time(tuned.checkpoints),
            pytest.raises(AlreadyRunning, match="wait until it ends"),
        ):
            fine_tuned(encoder, tuned.checkpoints.parent)

    def test_full_disk_is_named(self, encoder, tmp_path):
        with (
            largest_file(20_000),
            pytest.raises(CheckpointError, match="encoder-1, is the disk full"),
        ):
            fine_tuned(encoder, tmp_path)

    def test_complete_run_is_loaded(self, encoder, tuned, cache, monkeypatch, capsys):
        monkeypatch.setattr(supervised, "LengthGroupedTrainer", None)
        again = fine_tuned(encoder, cache)
        assert again.out_of_fold_logits.tolist() == tuned.out_of_fold_logits.tolist()
        assert "4 of 4 encoders are done" in capsys.readouterr().out
        again.remove_checkpoints()
        assert list(cache.iterdir()) == []

    def test_other_labels_have_other_checkpoints(self, encoder, tmp_path):
        _texts, labels = messages()
        folders = {
            fine_tuned(encoder, tmp_path, values, epochs=1).checkpoints
            for values in (labels, 1 - labels)
        }
        assert len(folders) == 2


def test_complete_run_leaves_no_pickle(tuned):
    files = {path.name for path in tuned.checkpoints.rglob("*") if path.is_file()}
    assert files == {"done.json", "lock", "state.safetensors"}
    done = json.loads(next(tuned.checkpoints.rglob("done.json")).read_text(encoding="utf-8"))
    assert len(done["logits"]) in (COUNT // 3, 0)
