"""Client of Label Studio: projects, tasks and annotations."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Self

import httpx

from feedsieve.errors import FeedsieveError

try:
    from label_studio_sdk import LabelStudio
    from label_studio_sdk.core.api_error import ApiError
except ImportError:  # an optional dependency, which choosing and reading batches do without
    LabelStudio = None  # type: ignore[misc, assignment]

TOKEN_VARIABLE = "LABEL_STUDIO_API_KEY"  # as in Label Studio's SDK
_TIMEOUT = 300.0  # seconds; a large export takes long
_PAGE = 1000  # tasks in a response
_LONGEST_REASON = 200  # characters of an error response to show


class LabelStudioUnavailable(FeedsieveError):
    """Label Studio cannot be reached or rejects a request; the message says what to do."""


@dataclass(frozen=True)
class Task:
    """A message in a project; unknown fields are empty."""

    number: int
    msg_id: str
    text: str


class Studio:
    """A running Label Studio, through its SDK.

    Every method raises `LabelStudioUnavailable`.
    """

    def __init__(self, url: str, token: str) -> None:
        """Connect with a legacy token or a personal access token."""
        if LabelStudio is None:
            raise LabelStudioUnavailable(
                "Label Studio's SDK is not installed; `pip install 'feedsieve[label]'` installs it,"
                " and so does `make labelstudio`"
            )
        self.url = url.rstrip("/")
        with self._errors():
            self._client: Any = LabelStudio(base_url=self.url, api_key=token, timeout=_TIMEOUT)

    @classmethod
    def open(cls, url: str, token_file: Path) -> Self:
        """Connect to `url` with the token of the environment or of the file."""
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            try:
                token = token_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise LabelStudioUnavailable(
                    f"no API token: {TOKEN_VARIABLE} is not set and {token_file} cannot be read; "
                    "`make labelstudio` writes it on its first start"
                ) from error
        return cls(url, token)

    def find(self, title: str) -> int | None:
        """Return the number of the oldest project with this title, or None."""
        with self._errors():
            projects = self._client.projects.list(title=title)
            return min((each.id for each in projects if each.title == title), default=None)

    def create(self, title: str, config: str) -> int:
        """Create a project with a labelling configuration and return its number.

        Predictions are not preselected, and every annotator may label every message.
        """
        with self._errors():
            project = self._client.projects.create(
                title=title,
                label_config=config,
                show_collab_predictions=False,
                maximum_annotations=1,
            )
        return int(project.id)

    def instruct(self, project: int, guideline: str) -> None:
        """Show a text to annotators: before they begin, and whenever they ask for it."""
        with self._errors():
            self._client.projects.update(
                id=project,
                expert_instruction=escape(guideline).replace("\n", "<br>"),
                show_instruction=True,
            )

    def tasks(self, project: int) -> Iterator[Task]:
        """Yield the tasks of the project."""
        with self._errors():
            tasks = self._client.tasks
            for task in tasks.list(project=project, page_size=_PAGE, fields="task_only"):
                data = task.data or {}
                text = data.get("msg") or data.get("text") or ""
                yield Task(task.id, str(data.get("msg_id", "")), str(text))

    def label(self, task: int, choice: str) -> None:
        """Annotate a task with a choice, as the user interface does."""
        value = {"choices": [choice]}
        result = {"from_name": "label", "to_name": "msg", "type": "choices", "value": value}
        with self._errors():
            self._client.annotations.create(task, result=[result])

    def add(self, project: int, tasks: Sequence[dict[str, Any]]) -> None:
        """Import all tasks or none, in Label Studio's JSON format."""
        with self._errors():
            self._client.projects.import_tasks(project, request=tasks)

    def export(self, project: int) -> list[dict[str, Any]]:
        """Return all tasks of a project with annotations, in the format of the JSON export."""
        with self._errors():
            return self._client.projects.exports.as_json(project)

    def annotators(self) -> dict[str, str]:
        """Return the e-mail addresses of users by their number in annotations."""
        with self._errors():
            return {str(user.id): str(user.email) for user in self._client.users.list()}

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Convert the SDK's errors to LabelStudioUnavailable."""
        try:
            yield
        except ApiError as error:
            if error.status_code in (401, 403):
                raise LabelStudioUnavailable(
                    f"Label Studio at {self.url} rejects the API token; name its token file with "
                    f"--token, or set {TOKEN_VARIABLE}"
                ) from error
            reason = " ".join(str(error.body).split())[:_LONGEST_REASON]
            raise LabelStudioUnavailable(
                f"Label Studio at {self.url} answered {error.status_code}: {reason}"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise LabelStudioUnavailable(
                f"Label Studio at {self.url} cannot be reached ({error}); "
                "`make labelstudio` starts it"
            ) from error
        except ValueError as error:  # not JSON: another server
            raise LabelStudioUnavailable(f"{self.url} is not a Label Studio") from error
