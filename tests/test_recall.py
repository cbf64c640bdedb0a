from concurrent.futures import ThreadPoolExecutor

from feedsieve.recall import Recall


def test_what_was_kept_is_found():
    recall = Recall(10)
    recall.keep({"a": 0.25, "b": 0.5})
    assert recall.find(["a", "c", "a"]) == {"a": 0.25}


def test_what_was_asked_for_longest_ago_goes_first():
    recall = Recall(2)
    recall.keep({"a": 0.25, "b": 0.5})
    recall.find(["a"])
    recall.keep({"c": 0.75})
    assert recall.find("abc") == {"a": 0.25, "c": 0.75}


def test_none_may_be_kept():
    recall = Recall(0)
    recall.keep({"a": 0.25})
    assert recall.find("a") == {}


def test_threads_may_share_it():
    recall = Recall(50)

    def use(start):
        for number in range(start, start + 2000):
            recall.keep({str(number % 100): float(number % 100)})
            found = recall.find(str(other) for other in range(100))
            assert all(float(mark) == score for mark, score in found.items())
            assert len(found) <= 50

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(use, range(4)))
