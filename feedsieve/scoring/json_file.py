"""JSON files of a model: dataclasses that are validated when they are read."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from feedsieve.errors import FeedsieveError

# A key of another version may change what a model computes, so unknown keys are errors.
STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class DamagedFile(FeedsieveError, ValueError):
    """A file of a model cannot be read; the message names the file and the reason."""


class JsonFile:
    """Base of a dataclass that is stored as `file_name` in a model's folder."""

    __pydantic_config__ = STRICT
    file_name: ClassVar[str]
    indent: ClassVar[int | None] = None

    def write(self, folder: Path) -> None:
        """Write in UTF-8, arrays as lists."""
        content: Any = asdict(self)  # type: ignore[call-overload]
        options: Any = {"ensure_ascii": False, "indent": self.indent, "default": np.ndarray.tolist}
        (folder / self.file_name).write_text(json.dumps(content, **options) + "\n", "utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises OSError if the file is absent, DamagedFile if it is invalid."""
        path = folder / cls.file_name
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes())
        except ValidationError as error:
            problems = [": ".join(map(str, [*part["loc"], part["msg"]])) for part in error.errors()]
            raise DamagedFile(f"{path} is damaged: {'; '.join(problems)}") from error

    @classmethod
    def read_if_present(cls, folder: Path) -> Self | None:
        """Return None if the file is absent. Raises DamagedFile if it is invalid."""
        return cls.read(folder) if (folder / cls.file_name).exists() else None
