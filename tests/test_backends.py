"""Backend selection: the fastest correct backend, never a wrong one."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from python_process import run_python
from serving import ROOT
from test_export import TEXTS
from tiny_bert import save_tiny_bert

from export import check, sources
from export import pipeline as exporting
from export.pipeline import export_encoder
from export.reference import LENGTHS, reference_texts
from feedsieve.scoring import backend_selection, backend_timings, backends, model_store
from feedsieve.scoring.backend_selection import InvalidModel, NoCorrectBackend
from feedsieve.scoring.backend_timings import Trial
from feedsieve.scoring.backends import BACKENDS
from feedsieve.scoring.encoder import MODEL_FILE, Encoder, EncoderTokenizer
from feedsieve.scoring.reference import REFERENCE_FILE, ReferenceEmbeddings, ReferenceScores
from feedsieve.settings import settings

SHORT = 40  # tokens, for a backend that is wrong for short texts


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backends")
    source = sources.load(str(save_tiny_bert(folder / "tiny")))
    return export_encoder(source, folder / "onnx", TEXTS, threads=1)


@pytest.fixture
def folder(exported, tmp_path) -> Path:
    """A copy of the tiny int8 encoder."""
    return Path(shutil.copytree(exported["int8"].folder, tmp_path / "int8"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A cache of timings for these tests only."""
    monkeypatch.setattr(settings(), "cache", tmp_path / "cache")


class WrongForShortTexts:
    """The real backend, but with wrong embeddings of short texts."""

    def __init__(self, backend):
        self.spec = backend.spec
        self._backend = backend

    def submit(self, inputs):
        embeddings = self._backend.submit(inputs).result()
        if inputs["input_ids"].shape[1] < SHORT:
            embeddings = np.roll(embeddings, 1, axis=1)
        return _Done(embeddings)


class _Done:
    def __init__(self, embeddings):
        self._embeddings = embeddings

    def result(self):
        return self._embeddings


def break_backends(monkeypatch, *names: str) -> None:
    """Make the backends of these names wrong for short texts, and the fastest."""
    really_open, really_time = backends.open_backend, backend_selection.ReferenceRun.seconds

    def open_backend(spec, path, threads):
        backend = really_open(spec, path, threads)
        return WrongForShortTexts(backend) if spec.name in names else backend

    def seconds(run, backend):
        return really_time(run, backend) * (0.01 if backend.spec.name in names else 1)

    monkeypatch.setattr(backend_selection, "open_backend", open_backend)
    monkeypatch.setattr(backend_selection.ReferenceRun, "seconds", seconds)


class TestSelection:
    def test_fastest_correct_backend_is_chosen(self, folder):
        encoder = Encoder(folder, threads=1)
        timed = [trial for trial in encoder.selection.trials if trial.seconds]
        assert {trial.backend for trial in timed} >= {"openvino-int8", "onnxruntime-int8"}
        fastest = min(trial.seconds for trial in timed if not trial.refused)
        chosen = encoder.selection.chosen
        assert chosen.backend == encoder.backend.spec.name
        assert chosen.seconds * (1 - backend_timings.MIN_GAIN) <= fastest
        assert chosen.lowest_cosine > 0.999

    def test_fast_wrong_backend_is_passed_over(self, folder, monkeypatch, caplog):
        break_backends(monkeypatch, "openvino-int8")
        caplog.set_level("INFO", logger="feedsieve")
        encoder = Encoder(folder, threads=1)
        assert encoder.backend.spec.name != "openvino-int8"
        assert "lowest cosine" in encoder.selection.passed_over["openvino-int8"]
        assert "passed over: openvino-int8: lowest cosine" in caplog.text
        right = Encoder(folder, threads=1, backend="onnxruntime-f32").encode(TEXTS)
        assert (encoder.encode(TEXTS) * right).sum(axis=1).min() > 0.999

    def test_cached_backend_that_became_wrong_is_not_used(self, folder, monkeypatch):
        first = Encoder(folder, threads=1).backend.spec.name  # timed and cached
        break_backends(monkeypatch, first)
        assert Encoder(folder, threads=1).backend.spec.name != first

    def test_all_wrong_raises_with_every_reason(self, folder, monkeypatch):
        break_backends(monkeypatch, *(spec.name for spec in BACKENDS["int8"]))
        with pytest.raises(NoCorrectBackend) as failure:
            Encoder(folder, threads=1)
        message = str(failure.value)
        assert "\n" not in message
        for spec in BACKENDS["int8"]:
            if spec.name.startswith(("openvino-int8", "onnxruntime")):
                assert f"{spec.name}: " in message
        assert "at least 0.999 is required" in message

    def test_named_backend_is_checked(self, folder, monkeypatch):
        break_backends(monkeypatch, "onnxruntime-int8")
        with pytest.raises(NoCorrectBackend, match="onnxruntime-int8: lowest cosine"):
            Encoder(folder, threads=1, backend="onnxruntime-int8")

    def test_backend_of_another_precision_is_rejected(self, exported):
        with pytest.raises(NoCorrectBackend, match="openvino-int8 does not run a file in fp32"):
            Encoder(exported["fp32"].folder, threads=1, backend="openvino-int8")

    def test_absent_library_is_passed_over(self, folder, monkeypatch):
        monkeypatch.setattr(
            backends, "find_spec", lambda name: None if name == "openvino" else object()
        )
        encoder = Encoder(folder, threads=1)
        assert encoder.backend.spec.library == "onnxruntime"
        assert encoder.selection.passed_over["openvino-int8"] == "openvino is not installed"

    def test_fallbacks_are_tried_if_timed_backends_are_excluded(self, folder):
        """As when their scores, unlike their embeddings, are out of bounds."""
        measured = Encoder(folder, threads=1).selection.trials
        excluded = {trial.backend: "its scores are wrong" for trial in measured}
        assert "onnxruntime-f32" not in excluded
        encoder = Encoder(folder, threads=1, excluded=excluded)
        assert encoder.backend.spec.is_fallback
        assert encoder.selection.passed_over.items() >= excluded.items()

    def test_timings_are_cached(self, folder, monkeypatch):
        first = Encoder(folder, threads=1)
        monkeypatch.setattr(
            backend_selection.ReferenceRun, "seconds", lambda *_: pytest.fail("timed again")
        )
        again = Encoder(folder, threads=1)
        assert again.backend.spec.name == first.backend.spec.name
        assert again.selection.trials == first.selection.trials

    @pytest.mark.parametrize("content", ["", "{}", '{"trials": [{"nonsense": 1}]}', "[]"])
    def test_damaged_cache_is_rewritten(self, folder, content):
        Encoder(folder, threads=1)
        [file] = (settings().cache / "backends").glob("*.json")
        file.write_text(content)
        assert Encoder(folder, threads=1).selection.reason == backend_selection.FASTEST
        assert json.loads(file.read_text(encoding="utf-8"))["trials"]

    def test_backends_cached_as_failed_are_timed_again(self, folder):
        """An earlier version cached them, after a full disk for example."""
        Encoder(folder, threads=1)
        [file] = (settings().cache / "backends").glob("*.json")
        content = json.loads(file.read_text(encoding="utf-8"))
        for trial in content["trials"]:
            trial |= {"seconds": None, "refused": "cannot be loaded"}
        file.write_text(json.dumps(content))
        assert Encoder(folder, threads=1).selection.reason == backend_selection.FASTEST

    def test_old_timings_are_removed(self, folder):
        place = settings().cache / "backends"
        place.mkdir(parents=True)
        for number in range(60):
            (place / f"{number}.json").write_text("{}")
        Encoder(folder, threads=1)
        assert len(list(place.glob("*.json"))) == backend_timings.MAX_FILES

    def test_unwritable_cache_logs_a_warning(self, folder, caplog):
        settings().cache.write_text("a file where a folder should be")
        Encoder(folder, threads=1)
        assert "backend timings are not cached" in caplog.text

    def test_less_rounding_wins_among_equal_times(self):
        trials = [Trial("exact", 1.0), Trial("coarse", 0.92), Trial("wrong", 0.1, refused="wrong")]
        assert backend_timings.rank(trials)[0] == "exact"
        assert backend_timings.rank([*trials, Trial("fast", 0.5)])[0] == "fast"


class TestReferenceOutputs:
    def test_texts_cover_all_lengths(self, exported):
        description = exported["int8"].description
        tokenizer = EncoderTokenizer(exported["int8"].folder, description)
        texts = reference_texts(tokenizer, description.max_tokens)
        counts = [len(ids) for ids in tokenizer.tokenize(texts)]
        wanted = [length for length in LENGTHS if length < description.max_tokens]
        assert len(texts) == len(wanted) + 1
        shortest = len(tokenizer.tokenize([""])[0])
        for count, most in zip(counts, [*wanted, description.max_tokens], strict=True):
            assert min(most, shortest) <= count <= max(most, shortest)
        assert len(set(counts)) > 15
        assert min(counts) == shortest and max(counts) > 0.9 * description.max_tokens

    def test_embeddings_agree_with_pytorch_and_the_file(self, exported):
        for precision, encoder in exported.items():
            reference = encoder.reference
            cosines = (reference.pytorch * reference.expected).sum(axis=1)
            assert cosines.min() > (0.9999 if precision == "fp32" else 0.99)
            assert np.linalg.norm(reference.expected, axis=1) == pytest.approx(1, abs=1e-5)

    def test_model_without_reference_runs_in_f32(self, folder, caplog):
        (folder / REFERENCE_FILE).unlink()
        encoder = Encoder(folder, threads=1)
        assert encoder.backend.spec.name == "openvino-f32"
        assert "has no reference outputs" in caplog.text
        assert "--add-reference" in caplog.text

    def test_model_without_reference_rejects_named_backend(self, folder):
        (folder / REFERENCE_FILE).unlink()
        with pytest.raises(
            NoCorrectBackend, match="FEEDSIEVE_BACKEND=openvino-int8 cannot be checked"
        ):
            Encoder(folder, threads=1, backend="openvino-int8")
        named = Encoder(folder, threads=1, backend="onnxruntime-f32")
        assert named.backend.spec.name == "onnxruntime-f32"

    @pytest.mark.parametrize("content", ["", "{}", '{"texts": [], "pytorch": [], "expected": []}'])
    def test_damaged_reference_is_rejected(self, folder, content):
        (folder / REFERENCE_FILE).write_text(content)
        with pytest.raises(ValueError, match=r"reference\.json is damaged"):
            Encoder(folder, threads=1)

    @pytest.mark.parametrize("expected", [{}, None, [1], "no"])
    def test_reference_without_embeddings_is_rejected(self, folder, expected):
        content = json.loads((folder / REFERENCE_FILE).read_text(encoding="utf-8"))
        (folder / REFERENCE_FILE).write_text(json.dumps(content | {"expected": expected}))
        with pytest.raises(ValueError, match=r"reference\.json is damaged"):
            ReferenceEmbeddings.read(folder)

    def test_tampered_reference_is_rejected(self, folder):
        reference = ReferenceEmbeddings.read(folder)
        turned = replace(reference, expected=np.roll(reference.expected, 1, axis=0))
        turned.write(folder)
        with pytest.raises(
            NoCorrectBackend, match="no backend gives the encoder's reference outputs"
        ):
            Encoder(folder, threads=1)

    def test_nan_reference_is_rejected(self, folder):
        reference = ReferenceEmbeddings.read(folder)
        replace(reference, expected=reference.expected * np.nan).write(folder)
        with pytest.raises(NoCorrectBackend):
            Encoder(folder, threads=1)


class TestDamaged:
    def test_file_that_no_library_loads_is_invalid(self, folder):
        (folder / MODEL_FILE).write_bytes((folder / MODEL_FILE).read_bytes()[:1000])
        with pytest.raises(InvalidModel, match=r"no backend can load .*model\.onnx: openvino"):
            Encoder(folder, threads=1)


class TestExport:
    def test_int8_that_no_backend_runs_is_left_out(self, tmp_path, monkeypatch, caplog):
        break_backends(
            monkeypatch, *(spec.name for spec in BACKENDS["int8"] if "f32" not in spec.name)
        )
        monkeypatch.setattr(
            backend_selection, "BACKENDS", BACKENDS | {"int8": BACKENDS["int8"][:3]}
        )
        source = sources.load(str(save_tiny_bert(tmp_path / "tiny")))
        encoders = export_encoder(source, tmp_path / "onnx", TEXTS, threads=1)
        assert list(encoders) == ["fp32"]
        assert encoders.fastest is encoders["fp32"]
        assert "lowest cosine" in encoders.int8_rejected
        assert "int8 is rejected, fp32 is used" in caplog.text

    def test_int8_that_differs_from_pytorch_is_left_out(self, tmp_path, monkeypatch):
        monkeypatch.setitem(check.LOWEST_COSINE, "int8", 1.1)
        source = sources.load(str(save_tiny_bert(tmp_path / "tiny")))
        encoders = export_encoder(source, tmp_path / "onnx", TEXTS, threads=1)
        assert list(encoders) == ["fp32"]
        assert "differs from PyTorch's" in encoders.int8_rejected


class TestModels:
    """A pair of models in a store."""

    @pytest.fixture
    def store(self, small_home, tmp_path) -> Path:
        return Path(shutil.copytree(small_home, tmp_path / "bentoml"))

    def place(self, store: Path, name: str) -> Path:
        [folder] = store.glob(f"models/{name}/*/")
        return folder

    def run(self, store: Path, *command: str | Path, **environment: str):
        environment = os.environ | {"BENTOML_HOME": str(store)} | environment
        return run_python("-m", *command, cwd=ROOT, env=environment)

    def score(self, store: Path, tmp_path: Path, **environment: str):
        source = tmp_path / "in.csv"
        source.write_text("msg\nСдаётся квартира в Лимассоле\nПривет\n", encoding="utf-8")
        target = tmp_path / "out.csv"
        return self.run(store, "feedsieve", "score", source, target, "--force", **environment)

    def test_trained_pair_has_reference_outputs(self, trained):
        encoder = ReferenceEmbeddings.read(self.place(trained, model_store.ENCODER))
        classifier = ReferenceScores.read(self.place(trained, model_store.CLASSIFIER))
        assert len(encoder.texts) == len(classifier.scores) > 40
        assert 0 < classifier.scores.min() < classifier.scores.max() < 1

    def test_tampered_embeddings_are_rejected_in_one_line(self, store, tmp_path):
        folder = self.place(store, model_store.ENCODER)
        reference = ReferenceEmbeddings.read(folder)
        replace(reference, expected=np.roll(reference.expected, 1, axis=0)).write(folder)
        done = self.score(store, tmp_path)
        assert done.returncode == 1
        [line] = [line for line in done.stderr.splitlines() if "is rejected" in line]
        assert "lowest cosine" in line and "at least 0.999 is required" in line
        assert "Traceback" not in done.stderr

    def test_tampered_scores_are_rejected_in_one_line(self, store, tmp_path):
        folder = self.place(store, model_store.CLASSIFIER)
        ReferenceScores(1 - ReferenceScores.read(folder).scores).write(folder)
        done = self.score(store, tmp_path)
        assert done.returncode == 1
        [line] = [line for line in done.stderr.splitlines() if "is rejected" in line]
        assert "a score differs by" in line and "at most 0.03 is allowed" in line
        assert "Traceback" not in done.stderr

    def test_reference_outputs_are_added_to_old_models(self, store, tmp_path):
        for name in (model_store.ENCODER, model_store.CLASSIFIER):
            (self.place(store, name) / REFERENCE_FILE).unlink()
        done = self.score(store, tmp_path)
        assert done.returncode == 0
        assert "runs on openvino-f32 (the model has no reference outputs)" in done.stderr
        added = self.run(store, "export", "--add-reference", "feedsieve-classifier:latest")
        assert added.returncode == 0, added.stderr
        assert "has reference outputs now" in added.stdout
        done = self.score(store, tmp_path)
        assert "the model has no reference outputs" not in done.stderr
        assert "lowest cosine to the reference outputs" in done.stderr

    def test_damaged_reference_is_named_by_export(self, store):
        file = self.place(store, model_store.ENCODER) / REFERENCE_FILE
        content = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(content | {"expected": [1]}))
        done = self.run(store, "export", "--add-reference", "feedsieve-classifier:latest")
        assert done.returncode == 1
        assert "reference.json is damaged" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("name", ["classifier.json", "features.json", "booster.txt"])
    def test_damaged_classifier_is_named_by_export(self, store, name):
        folder = self.place(store, model_store.CLASSIFIER)
        (folder / REFERENCE_FILE).unlink()  # or the classifier would not be read
        text = (folder / name).read_text(encoding="utf-8")
        (folder / name).write_text(text[: len(text) // 2], encoding="utf-8")
        done = self.run(store, "export", "--add-reference", "feedsieve-classifier:latest")
        assert done.returncode == 1
        assert name in done.stderr
        assert "Traceback" not in done.stderr

    def test_setting_names_the_backend(self, store, tmp_path):
        done = self.score(store, tmp_path, FEEDSIEVE_BACKEND="onnxruntime-f32")
        assert "runs on onnxruntime-f32 (FEEDSIEVE_BACKEND=onnxruntime-f32)" in done.stderr
        done = self.score(store, tmp_path, FEEDSIEVE_BACKEND="tensorrt")
        assert done.returncode == 1
        assert "FEEDSIEVE_BACKEND" in done.stderr and "openvino-int8" in done.stderr


def test_add_reference_needs_a_model(home):
    with pytest.raises(model_store.ModelNotFound, match="the model store has no"):
        exporting.add_reference("feedsieve-classifier:none")
