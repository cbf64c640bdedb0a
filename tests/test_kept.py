from dataclasses import replace

import pytest
from tiny_bert import save_tiny_bert

from export import sources
from export.sources import Source
from feedsieve import lexicon, text
from train.kept import run_key


@pytest.fixture
def source(tmp_path) -> Source:
    return sources.load(str(save_tiny_bert(tmp_path / "tiny")))


class TestKey:
    def test_it_is_the_same_for_the_same(self, source, tmp_path):
        key = run_key(source, [text], [1, "a"])
        source.tokenizer(["flat"], truncation=True, max_length=8)
        assert run_key(source, [text], [1, "a"]) == key
        again = sources.load(str(save_tiny_bert(tmp_path / "again" / "tiny")))
        assert run_key(again, [text], [1, "a"]) == key

    def test_it_is_another_for_whatever_results_depend_on(self, source, tmp_path):
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
