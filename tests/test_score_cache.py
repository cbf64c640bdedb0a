from concurrent.futures import ThreadPoolExecutor

from feedsieve.serving.score_cache import ScoreCache


def test_cached_scores_are_returned():
    cache = ScoreCache(10)
    cache.put({"a": 0.25, "b": 0.5})
    assert cache.get(["a", "c", "a"]) == {"a": 0.25}


def test_least_recently_used_score_is_evicted():
    cache = ScoreCache(2)
    cache.put({"a": 0.25, "b": 0.5})
    cache.get(["a"])
    cache.put({"c": 0.75})
    assert cache.get("abc") == {"a": 0.25, "c": 0.75}


def test_cache_of_size_zero_is_empty():
    cache = ScoreCache(0)
    cache.put({"a": 0.25})
    assert cache.get("a") == {}


def test_threads_share_a_cache():
    cache = ScoreCache(50)

    def use(start):
        for number in range(start, start + 2000):
            cache.put({str(number % 100): float(number % 100)})
            cached = cache.get(str(other) for other in range(100))
            assert all(float(key) == score for key, score in cached.items())
            assert len(cached) <= 50

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(use, range(4)))
