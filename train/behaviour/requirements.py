"""Required behaviour: bounds for the measures of each check, by its name."""

from collections.abc import Mapping

Bounds = Mapping[str, float]
Requirements = Mapping[str, Bounds]

_SAME = {"mean move": 0.01, "largest move": 0.01}  # the text that models read is the same
_SAME_TEXT = (
    "lower case", "capitals", "emoji added", "emoji removed", "white space", "line ends",
)  # fmt: skip
_ALIKE = ("another phone number", "hashtags added", "another name", "name added")
_LESS = ("for sale", "in Paphos", "in Larnaca", "in Nicosia", "looking for", "for days")
_OFFERS = (
    "offer in Russian", "offer in English", "offer in Greek or Ukrainian",
    "offer with price and phone", "offer near Limassol", "room", "house",
)  # fmt: skip
_NEAR_MISSES = ("sale", "other town", "holiday let")
_OTHERS = (
    "seeker in Russian", "seeker in English", "small talk", "paperwork", "service", "thing",
    "bot or spam", "reply",
)  # fmt: skip


def _requirements(
    *, alike: Bounds, less: Bounds, offer: float, near_miss: float, no_offer: float
) -> Requirements:
    """Return bounds for every check; `offer`, `near_miss` and `no_offer` are accuracies."""
    return {
        **dict.fromkeys(_SAME_TEXT, _SAME),
        **dict.fromkeys(_ALIKE, alike),
        **dict.fromkeys(_LESS, less),
        **dict.fromkeys(_OFFERS, _accuracy(offer)),
        **dict.fromkeys(_NEAR_MISSES, _accuracy(near_miss)),
        **dict.fromkeys(_OTHERS, _accuracy(no_offer)),
    }


def _accuracy(share: float) -> Bounds:
    return {"accuracy": share}


# For a model of real messages: what a reader of its feed may expect, reached today or not. The feed
# shows three of four offers, at most one of four near misses (an offer but for a word or two), and
# at most one of five other messages.
REAL = _requirements(
    alike={"mean move": 0.10, "largest move": 0.30},
    less={"share that falls": 0.90, "mean fall": 0.20},
    offer=0.75,
    near_miss=0.75,
    no_offer=0.80,
)

# For the model of `make train`. It learns from a few thousand messages composed from one set of
# phrases, few of them in Greek or Ukrainian, some with wrong labels on purpose. These bounds only
# distinguish a trained model from an untrained one, with room for differences between CPUs.
SAMPLE = {
    **_requirements(
        alike={"mean move": 0.15, "largest move": 0.40},
        less={"share that falls": 0.80, "mean fall": 0.10},
        offer=0.50,
        near_miss=0.75,
        no_offer=0.80,
    ),
    "offer in Greek or Ukrainian": {"accuracy": 0.50},
    "seeker in Russian": {"accuracy": 0.60},
    "seeker in English": {"accuracy": 0.30},
    "service": {"accuracy": 0.60},
    "thing": {"accuracy": 0.50},
    "other town": {"accuracy": 0.25},
    "holiday let": {"accuracy": 0.40},
}

REQUIREMENTS = {"real": REAL, "sample": SAMPLE}
