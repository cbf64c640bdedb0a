"""The champion: the model that training's registry names, where training is installed.

The runtime does not know MLflow. An installed package names a function in the group
`feedsieve.registry` of entry points, which returns the champion's tag.
"""

import sys
from importlib.metadata import entry_points

from feedsieve.errors import FeedsieveError
from feedsieve.settings import settings

CHAMPION = "champion"


class NoRegistry(FeedsieveError):
    """Training, which knows the champion, is not installed."""


def champion(*, fetch: bool) -> str:
    """Return the champion's tag, whose models `fetch` adds to this machine's store if absent.

    Raises NoRegistry, and the registry's errors: a LookupError that is a FeedsieveError if there is
    no champion, and other FeedsieveErrors.
    """
    try:
        tag = entry_points(group="feedsieve.registry")[CHAMPION].load()
        return str(tag(fetch=fetch))
    except (KeyError, ImportError) as error:
        raise NoRegistry(str(error)) from error


def current_model() -> str:
    """Return FEEDSIEVE_MODEL if it is set, else the champion if there is one, else the newest.

    A champion that cannot be had is reported on stderr.
    """
    named = settings().model
    if "model" in settings().model_fields_set:
        return named
    try:
        return champion(fetch=True)
    except NoRegistry:
        return named
    except FeedsieveError as error:
        if not isinstance(error, LookupError):
            print(f"not the champion but {named} is used: {error}", file=sys.stderr)
        return named
