"""The layers of an encoder that a student keeps, as users name them."""

import re

from feedsieve.errors import FeedsieveError

ALL = "all"  # keeps every layer: there is no student
DEFAULT_LAYERS = 3  # docs/decisions/distillation.md
_NUMBERS = re.compile(r"\d{1,4}(,\d{1,4})*", re.ASCII)


class InvalidLayers(FeedsieveError, ValueError):
    """The requested layers do not fit the encoder; the message says why."""


def is_layer_choice(choice: str) -> bool:
    """Return whether `choose_layers` accepts the syntax of `choice`."""
    return choice == ALL or bool(_NUMBERS.fullmatch(choice))


def choose_layers(choice: str | None, count: int) -> tuple[int, ...]:
    """Return the numbers of the layers to keep out of `count`, from 0, rising.

    `choice` is a number of layers, which are spread evenly from the first to the last, or a list of
    two or more layer numbers like 0,2,4, or "all". None means `DEFAULT_LAYERS`, or all if there are
    no more. Raises InvalidLayers.
    """
    if choice is None:
        choice = str(min(DEFAULT_LAYERS, count))
    if choice == ALL:
        return tuple(range(count))
    if not is_layer_choice(choice):
        raise InvalidLayers(f"{choice!r} is neither a number of layers nor a list like 0,2,4")
    numbers = [int(number) for number in choice.split(",")]
    if len(numbers) == 1:
        [number] = numbers
        if not 1 <= number <= count:
            raise InvalidLayers(f"the encoder has {count} layers: keep 1 to {count}, not {number}")
        if number == 1:
            return (0,)
        return tuple(min(place * count // (number - 1), count - 1) for place in range(number))
    if numbers[-1] >= count or sorted(set(numbers)) != numbers:
        raise InvalidLayers(
            f"the encoder has layers 0 to {count - 1}: name some of them, rising, not {choice}"
        )
    return tuple(numbers)
