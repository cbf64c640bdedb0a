import pytest

from feedsieve.metrics import endpoint


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/feed", "/feed"),
        ("/feed/", "/feed"),
        ("/", "/"),
        ("/messages", "/messages"),
        ("/messages/", "/messages"),
        ("/messages/1", "/messages/{identifier}"),
        ("/messages/a/b", "/messages/{identifier}"),
        ("/score", "/score"),
        ("/feeds", "other"),
        ("/score/x", "other"),
        ("", "/"),
        ("//", "/"),
    ],
)
def test_every_path_belongs_to_one_of_a_few_endpoints(path, expected):
    assert endpoint(path) == expected
