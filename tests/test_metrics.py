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
def test_every_path_maps_to_a_known_endpoint(path, expected):
    assert endpoint(path) == expected
