import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from limits import largest_file
from serving import ROOT
from sklearn.metrics import average_precision_score
from tiny_bert import save_tiny_bert

from export import onnx, sources
from export.sources import Source
from feedsieve.files import RunningAlready, one_run_at_a_time
from feedsieve.text import plain
from train import finetune as finetuning
from train.classifier import folds
from train.finetune import FineTuned, finetune
from train.layers import UpperLayers, lower_layers
from train.trainer import BATCH, CannotKeep, LikeLengths, last_checkpoint

COUNT = 240
EPOCHS = 6
# Run and killed by itself, without a word, in the middle of the second epoch of the second encoder.
KILLED = """
import os, sys
from pathlib import Path
from test_finetune import fine_tuned
from train.finetune import Progress

step = Progress.on_step_end
def die(self, args, state, control, **rest):
    step(self, args, state, control, **rest)
    if self.encoder == 1 and state.epoch > 1.4:
        os._exit(9)
Progress.on_step_end = die
fine_tuned(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def killed(*_arguments):
    raise KeyboardInterrupt


def messages() -> tuple[list[str], np.ndarray]:
    """Return texts of many lengths, and labels that one of their words tells."""
    random = np.random.default_rng(0)
    labels = (np.arange(COUNT) % 3 == 0).astype(np.int64)
    texts = []
    for label in labels:
        words = ["".join(random.choice(list("abcdegh"), 4)) for _ in range(random.integers(1, 4))]
        words.insert(random.integers(len(words)), "rent" if label else "flat")
        texts.append(" ".join(words))
    return texts, labels


def fine_tuned(
    encoder: Path,
    cache: Path,
    labels: np.ndarray | None = None,
    epochs: int = EPOCHS,
    count: int = COUNT,
    student: Source | None = None,
) -> FineTuned:
    texts, told = messages()
    labels = told if labels is None else labels
    source = sources.load(str(encoder))
    alone = np.arange(count)  # nobody is a copy of anybody
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "EPOCHS", epochs)
        patch.setattr(finetuning, "RATE", 0.01)  # few and short messages need larger steps
        patch.setattr(finetuning, "STUDENT_RATE", 0.01)
        patch.setattr(finetuning, "HEAD_RATE", 0.05)
        return finetune(source, texts[:count], labels[:count], alone, 7, cache, student)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture(scope="module")
def source(encoder) -> Source:
    return sources.load(str(encoder))


@pytest.fixture(scope="module")
def tuned(encoder, tmp_path_factory) -> FineTuned:
    return fine_tuned(encoder, tmp_path_factory.mktemp("cache"))


class TestFineTuning:
    def test_verdicts_tell_labels_that_the_encoder_had_not_seen(self, tuned):
        _texts, labels = messages()
        assert tuned.verdicts.shape == (COUNT,)
        assert average_precision_score(labels, tuned.verdicts) > 0.9

    def test_labels_by_chance_cannot_be_told(self, encoder, tmp_path):
        """Who had seen a message's label would tell it; nobody else can."""
        labels = np.random.default_rng(3).integers(0, 2, COUNT)
        by_chance = fine_tuned(encoder, tmp_path, labels)
        assert average_precision_score(labels, by_chance.verdicts) < 0.65

    def test_the_head_says_of_an_embedding_what_training_saw(self, tuned):
        texts, labels = messages()
        tokens = tuned.source.tokenizer(
            [plain(text) for text in texts], padding=True, return_tensors="pt"
        )
        with torch.inference_mode():
            embeddings = onnx.pooled(tuned.source)(tokens.input_ids, tokens.attention_mask)
        verdicts = tuned.head.logits(embeddings["embedding"].numpy())
        assert average_precision_score(labels, verdicts) > 0.9
        assert np.corrcoef(verdicts, tuned.verdicts)[0, 1] > 0.8

    def test_lower_layers_stay_and_upper_ones_learn(self, tuned, source):
        before, after = source.model.state_dict(), tuned.source.model.state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed
        assert all(name.startswith("encoder.layer.1.") for name in changed)
        assert tuned.source.name == "tiny, fine-tuned"

    def test_every_epoch_of_every_encoder_is_told(self, tuned):
        for number in (1, 2, 3):
            told = [epoch for epoch in tuned.history if epoch["encoder"] == number]
            assert 3 <= len(told) <= EPOCHS
            assert [epoch["epoch"] for epoch in told] == list(range(1, len(told) + 1))
            assert all(0 <= epoch["average_precision"] <= 1 for epoch in told)
            assert told[-1]["loss"] < told[0]["loss"]

    def test_the_last_encoder_learns_all_messages_for_as_long_as_was_best(self, tuned):
        told = [epoch for epoch in tuned.history if epoch["encoder"] == 4]
        best = [
            max(epochs, key=lambda epoch: epoch["average_precision"])["epoch"]
            for number in (1, 2, 3)
            if (epochs := [epoch for epoch in tuned.history if epoch["encoder"] == number])
        ]
        assert len(told) == round(np.mean(best))
        assert all("average_precision" not in epoch for epoch in told)

    def test_progress_tells_loss_and_average_precision(self, encoder, tmp_path, capsys):
        fine_tuned(encoder, tmp_path)
        shown = capsys.readouterr().err
        assert "loss=" in shown and "AP=" in shown and "encoder=4 of 4" in shown
        parts = folds(messages()[1], np.arange(COUNT), 7, finetuning.FOLDS)
        sizes = [len(rest) for rest, _fold in parts] + [COUNT]
        steps = EPOCHS * sum(-(-size // BATCH) for size in sizes)
        assert f"{steps}/{steps}" in shown

    def test_without_16_bits(self, encoder, tmp_path, monkeypatch):
        """Most CPUs have none that are fast; what is kept of the lower layers has them still."""
        monkeypatch.setattr("train.layers.has_bf16", lambda: False)
        monkeypatch.setattr("train.trainer.has_bf16", lambda: False)
        _texts, labels = messages()
        verdicts = fine_tuned(encoder, tmp_path).verdicts
        assert average_precision_score(labels, verdicts) > 0.9

    def test_few_messages_have_an_epoch_of_few_steps(self, encoder, tmp_path):
        history = fine_tuned(encoder, tmp_path, count=36, epochs=2).history
        for number in (1, 2, 3):
            told = [epoch for epoch in history if epoch["encoder"] == number]
            assert [epoch["epoch"] for epoch in told] == list(range(1, len(told) + 1))
            assert all(epoch["loss"] > 0 and "average_precision" in epoch for epoch in told)

    def test_it_stops_early(self, encoder, tmp_path):
        """With labels by chance no epoch is better than the one before for long."""
        labels = np.random.default_rng(3).integers(0, 2, COUNT)
        history = fine_tuned(encoder, tmp_path, labels, epochs=20).history
        assert max(epoch["epoch"] for epoch in history) < 20


class TestResuming:
    def test_killed_in_its_second_epoch_it_ends_as_if_it_had_not_been(
        self, encoder, tuned, tmp_path, capsys
    ):
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        command = [sys.executable, "-c", KILLED, encoder, tmp_path]
        killed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True)
        assert killed.returncode == 9, killed.stderr
        again = fine_tuned(encoder, tmp_path)
        said = capsys.readouterr().out
        assert "resuming fine-tuning: 1 of 4 encoders are done" in said
        assert f"encoder 2 has 1 of {EPOCHS} epochs behind it" in said
        assert again.verdicts == pytest.approx(tuned.verdicts, abs=1e-4)
        assert again.head.weights == pytest.approx(tuned.head.weights, abs=1e-4)

    def test_killed_when_it_had_stopped_early_it_does_not_go_on(self, encoder, tmp_path):
        labels = np.random.default_rng(3).integers(0, 2, COUNT)
        unbroken = fine_tuned(encoder, tmp_path / "unbroken", labels, epochs=20)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(finetuning.LengthTrainer, "predict", killed)
            with pytest.raises(KeyboardInterrupt):
                fine_tuned(encoder, tmp_path / "killed", labels, epochs=20)
        again = fine_tuned(encoder, tmp_path / "killed", labels, epochs=20)
        assert again.history == unbroken.history
        assert again.verdicts == pytest.approx(unbroken.verdicts, abs=1e-4)

    def test_two_at_the_same_work_are_refused(self, encoder, tmp_path):
        first = fine_tuned(encoder, tmp_path)
        with one_run_at_a_time(first.kept), pytest.raises(RunningAlready, match="let it end"):
            fine_tuned(encoder, tmp_path)

    def test_a_full_disk_is_named(self, encoder, tmp_path):
        with largest_file(20_000), pytest.raises(CannotKeep, match="encoder-1, is the disk full"):
            fine_tuned(encoder, tmp_path)

    def test_what_is_done_is_not_done_again(self, encoder, tmp_path, monkeypatch, capsys):
        first = fine_tuned(encoder, tmp_path)
        monkeypatch.setattr(finetuning, "LengthTrainer", None)
        assert fine_tuned(encoder, tmp_path).verdicts.tolist() == first.verdicts.tolist()
        assert "4 of 4 encoders are done" in capsys.readouterr().out
        first.forget()
        assert list(tmp_path.iterdir()) == []

    def test_other_labels_are_another_run(self, encoder, tmp_path):
        _texts, labels = messages()
        folders = {fine_tuned(encoder, tmp_path, told).kept for told in (labels, 1 - labels)}
        assert len(folders) == 2

    def test_a_checkpoint_that_was_cut_short_does_not_count(self, tmp_path):
        assert last_checkpoint(tmp_path) is None
        for step, state in [(9, '{"global_step": 9}'), (20, '{"global_step": 20}'), (31, '{"glo')]:
            (tmp_path / f"checkpoint-{step}").mkdir()
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
        (tmp_path / "checkpoint-40").mkdir()
        assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-20")


class TestBatches:
    LENGTHS = np.random.default_rng(0).integers(1, 200, 1000)

    def test_every_row_once_an_epoch(self):
        assert sorted(LikeLengths(self.LENGTHS, 7)) == list(range(1000))
        assert len(LikeLengths(self.LENGTHS, 7)) == 1000

    def test_a_batch_has_messages_of_like_length(self):
        rows = list(LikeLengths(self.LENGTHS, 7))
        batches = [self.LENGTHS[rows[start : start + BATCH]] for start in range(0, 1000, BATCH)]
        assert np.mean([np.ptp(batch) for batch in batches]) < 15

    def test_the_order_follows_from_seed_and_epoch(self):
        first, second = LikeLengths(self.LENGTHS, 7), LikeLengths(self.LENGTHS, 7)
        second.set_epoch(1)
        assert list(first) == list(first) != list(second)
        first.set_epoch(1)
        assert list(first) == list(second)
        assert list(LikeLengths(self.LENGTHS, 8)) != list(LikeLengths(self.LENGTHS, 7))


class TestLayers:
    @pytest.mark.parametrize("pooling", ["mean", "cls"])
    def test_lower_and_upper_layers_together_are_the_encoder(self, tmp_path, pooling):
        source = sources.load(str(save_tiny_bert(tmp_path / "tiny", pooling=pooling)))
        texts, _labels = messages()
        hidden = lower_layers(source, texts[:5], 1)
        upper = UpperLayers(source, 1).eval()
        tokens = source.tokenizer(texts[:5], padding=True, return_tensors="pt")
        with torch.inference_mode():
            whole = onnx.pooled(source)(tokens.input_ids, tokens.attention_mask)["embedding"]
            logits = [
                upper(states[None].float(), torch.ones(1, len(states)))["logits"].item()
                for states in hidden
            ]
        said = upper.head_of_encoder().logits(whole.numpy())
        assert said == pytest.approx(np.array(logits), abs=0.03)  # the states have 16 bits

    def test_padding_changes_nothing(self, source):
        texts, _labels = messages()
        hidden = lower_layers(source, texts[:5], 1)
        upper = UpperLayers(source, 1).eval()
        padded, mask = finetuning.pad([states.float() for states in hidden])
        with torch.inference_mode():
            together = upper(padded, mask)["logits"]
            alone = [upper(s[None].float(), torch.ones(1, len(s)))["logits"] for s in hidden]
        assert together.numpy() == pytest.approx(torch.cat(alone).numpy(), abs=1e-4)

    def test_long_texts_are_cut(self, source):
        [states] = lower_layers(source, ["flat " * 500], 1)
        assert states.shape == (64, 32)
        [states] = lower_layers(replace(source, max_tokens=40), ["flat " * 500], 1)
        assert states.shape == (40, 32)


def test_what_is_kept_is_no_pickle_of_ours(tuned):
    kept = {path.name for path in tuned.kept.rglob("*") if path.is_file()}
    assert kept == {"done.json", "lock", "state.safetensors"}
    done = json.loads(next(tuned.kept.rglob("done.json")).read_text(encoding="utf-8"))
    assert len(done["verdicts"]) in (COUNT // 3, 0)
