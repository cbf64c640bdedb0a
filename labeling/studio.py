"""Label Studio as the labelling loop sees it: projects of messages, and what was said of them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError

TOKEN_VARIABLE = "LABEL_STUDIO_API_KEY"  # the name that Label Studio's own SDK looks for
_TIMEOUT = 300.0  # seconds; a large export takes that long to make
_PAGE = 1000  # tasks in one answer
_LONGEST_REASON = 200  # characters of an answer that are worth a reader's time


class StudioUnavailable(RuntimeError):
    """Label Studio cannot be reached or refuses; says where, why, and what to do."""


@dataclass(frozen=True)
class Task:
    """A message in a project; what it does not tell is empty."""

    number: int
    msg_id: str
    text: str


class Studio:
    """A running Label Studio, spoken to through its SDK.

    Every method raises `StudioUnavailable`.
    """

    def __init__(self, url: str, token: str) -> None:
        """Take `token` as a legacy token or a personal access token, whichever it is."""
        self.url = url.rstrip("/")
        with self._said():
            self._client: Any = LabelStudio(base_url=self.url, api_key=token, timeout=_TIMEOUT)

    @classmethod
    def open(cls, url: str, token_file: Path) -> Self:
        """Return the Label Studio at `url`, with the token of the environment or of the file."""
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        if not token:
            try:
                token = token_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise StudioUnavailable(
                    f"no API token: {TOKEN_VARIABLE} is not set and {token_file} cannot be read; "
                    "`make labelstudio` writes it on its first start"
                ) from error
        return cls(url, token)

    def find(self, title: str) -> int | None:
        """Return the number of the oldest project of this title, None if there is none."""
        with self._said():
            found = [each.id for each in self._client.projects.list(title=title)
                     if each.title == title]  # fmt: skip
        return min(found) if found else None

    def create(self, title: str, config: str) -> int:
        """Make a project with this labelling configuration and return its number.

        Predictions are shown, and each annotator may label every message.
        """
        with self._said():
            made = self._client.projects.create(
                title=title,
                label_config=config,
                show_collab_predictions=True,
                maximum_annotations=1,
            )
        return int(made.id)

    def tasks(self, project: int) -> Iterator[Task]:
        """Yield the tasks of the project."""
        with self._said():
            tasks = self._client.tasks
            for task in tasks.list(project=project, page_size=_PAGE, fields="task_only"):
                data = task.data or {}
                text = data.get("msg") or data.get("text") or ""
                yield Task(task.id, str(data.get("msg_id", "")), str(text))

    def label(self, task: int, choice: str) -> None:
        """Annotate a task as the screen does when a person chooses."""
        value = {"choices": [choice]}
        result = {"from_name": "label", "to_name": "msg", "type": "choices", "value": value}
        with self._said():
            self._client.annotations.create(task, result=[result])

    def add(self, project: int, tasks: Sequence[dict[str, Any]]) -> None:
        """Import tasks, all or none of them, as Label Studio's JSON describes them."""
        with self._said():
            self._client.projects.import_tasks(project, request=tasks)

    def export(self, project: int) -> list[dict[str, Any]]:
        """Return every task of the project with its annotations, as the JSON export has them."""
        with self._said():
            return self._client.projects.exports.as_json(project)

    def annotators(self) -> dict[str, str]:
        """Return the e-mail address of each user by the number that annotations name them by."""
        with self._said():
            return {str(user.id): str(user.email) for user in self._client.users.list()}

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Say in one line what the SDK raises."""
        try:
            yield
        except ApiError as error:
            if error.status_code in (401, 403):
                raise StudioUnavailable(
                    f"Label Studio at {self.url} refuses the API token; give the file that it "
                    f"wrote with --token, or the token itself in {TOKEN_VARIABLE}"
                ) from error
            reason = " ".join(str(error.body).split())[:_LONGEST_REASON]
            raise StudioUnavailable(
                f"Label Studio at {self.url} answered {error.status_code}: {reason}"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise StudioUnavailable(
                f"Label Studio at {self.url} cannot be reached ({error}); "
                "`make labelstudio` starts it"
            ) from error
        except ValueError as error:  # an answer that is no JSON: something else listens there
            raise StudioUnavailable(f"{self.url} does not answer as Label Studio does") from error
