from dataclasses import replace

import pytest
from tiny_bert import save_tiny_bert

from export import sources
from export.sources import Source
from feedsieve import text
from feedsieve.scoring import lexicon
from train.encoder.checkpoints import Checkpoints, run_key


@pytest.fixture
def source(tmp_path) -> Source:
    return sources.load(str(save_tiny_bert(tmp_path / "tiny")))


class TestRunKey:
    def test_equal_arguments_give_equal_keys(self, source, tmp_path):
        key = run_key(source, [text], [1, "a"])
        source.tokenizer(["flat"], truncation=True, max_length=8)
        assert run_key(source, [text], [1, "a"]) == key
        again = sources.load(str(save_tiny_bert(tmp_path / "again" / "tiny")))
        assert run_key(again, [text], [1, "a"]) == key

    def test_key_depends_on_all_that_determines_results(self, source, tmp_path):
        other_weights = sources.load(str(save_tiny_bert(tmp_path / "other" / "tiny", seed=1)))
        keys = [
            run_key(source, [text], [1, "a"]),
            run_key(source, [text], [2, "a"]),
            run_key(source, [lexicon], [1, "a"]),
            run_key(replace(source, max_tokens=8), [text], [1, "a"]),
            run_key(replace(source, pooling="cls"), [text], [1, "a"]),
            run_key(other_weights, [text], [1, "a"]),
        ]
        source.tokenizer.add_tokens(["studio"])
        keys.append(run_key(source, [text], [1, "a"]))
        assert len(set(keys)) == len(keys)


class TestNewest:
    def test_incomplete_checkpoint_is_ignored(self, tmp_path):
        assert Checkpoints(tmp_path).newest is None
        for step, state in [(9, '{"global_step": 9}'), (20, '{"global_step": 20}'), (31, '{"glo')]:
            (tmp_path / f"checkpoint-{step}").mkdir()
            (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
        (tmp_path / "checkpoint-40").mkdir()
        assert Checkpoints(tmp_path).newest == str(tmp_path / "checkpoint-20")
