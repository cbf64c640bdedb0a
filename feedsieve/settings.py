"""Settings from the environment: `FEEDSIEVE_` and the field's name in capitals."""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from bentoml.exceptions import BentoMLException
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from feedsieve.errors import FeedsieveError

BackendName = Literal[
    "openvino-int8",
    "openvino-int8-bf16",
    "openvino-int8-bf16-no-snippets",
    "openvino-f32",
    "onnxruntime-int8",
    "onnxruntime-f32",
]

# Plain segments only: such a path needs no escaping in a page, a header or a script.
_ROOT_PATH = re.compile(r"(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._~-]+)+")
_MAX_ROOT_PATH = 200  # characters
_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
_HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
OWN_DB = "data/messages.db"
OWN_LABELS = Path("data/labeled_messages.csv")
SAMPLE_FOLDER = Path("data/sample")  # the sample chat, which is used where there is no own data
_SERVER_PROCESS = "BENTO_SERVER_PROCESS"  # not a setting: a server hands it to its workers


class Settings(BaseSettings):
    """All settings. Every default works on a laptop."""

    model_config = SettingsConfigDict(env_prefix="FEEDSIEVE_", env_ignore_empty=True)
    _is_db_given: bool = False

    db: str = Field(
        default=OWN_DB,
        description="message store: a file or an SQLAlchemy URL. Without it and without own data,"
        " that of the sample in `data/sample/` if there is one",
    )
    model: str = Field(
        default="feedsieve-classifier:latest",
        description="the classifier to serve, a BentoML tag. If it is not set, `make serve` and"
        " `feedsieve serve` take the champion if there is one",
    )
    threads: int = Field(
        default=0, ge=0, le=256, description="threads of the encoder; 0: one per core"
    )
    backend: BackendName | None = Field(
        default=None,
        description="backend of the encoder; by default the fastest that reproduces the model's"
        " reference outputs on this CPU",
    )
    onednn_max_cpu_isa: str = Field(
        default="",
        validation_alias="ONEDNN_MAX_CPU_ISA",
        description="the newest instructions that OpenVINO may use; oneDNN's own variable",
    )
    cascade: bool = Field(
        default=True,
        description="skip the encoder when the word model alone is confident that the message is"
        " negative; 0: the encoder reads every text",
    )
    recalled: int = Field(
        default=50_000,
        ge=0,
        description="scores cached in memory, 300 bytes each, so that no text is embedded twice;"
        " 0: none",
    )
    waiting: int = Field(
        default=96,
        ge=1,
        description="concurrent requests to /score, and as many to POST /messages; further ones are"
        " rejected with 503",
    )
    stop_seconds: float = Field(
        default=8.0,
        gt=0,
        le=25,
        description="seconds that requests in progress have to end on SIGTERM; container engines"
        " kill after ten",
    )
    cache: Path = Field(
        default=Path("~/.cache/feedsieve"),
        description="folder of downloaded and converted encoders, and of backend timings",
    )
    features: Path | None = Field(
        default=None,
        description="Feast repository, such as `feature_repo`, that training reads embeddings from"
        " unless `--encoder` or `--finetune` chooses another encoder",
    )
    state: Path = Field(
        default=Path("~/.local/state/feedsieve"),
        description="folder of the message stores for read-only dumps",
    )
    bentoml_home: Path = Field(
        default=Path("~/bentoml"),
        validation_alias="BENTOML_HOME",
        description="BentoML's folder with the model store; BentoML's own variable",
    )
    bento_path: Path | None = Field(
        default=None,
        validation_alias="BENTO_PATH",
        description="the Bento in a container; set by the image that BentoML makes",
    )
    sources: str = Field(
        default="",
        description="live sources that the server follows, separated by spaces or commas:"
        " `telegram:`, folders, URLs of RSS or Atom feeds",
    )
    telegram_token: SecretStr | None = Field(
        default=None, description="token of the Telegram bot, from @BotFather"
    )
    telegram_token_file: Path | None = Field(
        default=None, description="file with the token, in place of the variable"
    )
    telegram_api: str = Field(
        default="https://api.telegram.org",
        pattern="^https?://",
        description="address of the Bot API, for a Bot API server of your own",
    )
    feed_interval: float = Field(
        default=300.0, ge=1, le=86_400, description="seconds between two fetches of a feed"
    )
    root_path: str = Field(
        default="",
        description="path under which a proxy shows the service, such as `/chat`; every link"
        " begins with it, unless X-Forwarded-Prefix names another",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="origins whose pages may use the service from a browser, separated by commas,"
        " such as `https://example.org`; `*`: any; by default none",
    )

    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="names under which the service is reached, separated by commas, such as"
        " `feed.example.org` or `*.example.org`; `*`: any. IP addresses and localhost always are",
    )
    reading_needs_key: bool = Field(
        default=False,
        description="1: reading needs an API key of the scope `read`; by default anyone who"
        " reaches the server may read",
    )
    scoring_needs_key: bool = Field(
        default=False, description="1: `/score` needs an API key of the scope `score`"
    )
    access_log: bool = Field(default=True, description="a log line for each request; 0: none")
    log_format: Literal["text", "json"] = Field(
        default="text", description="form of the log's lines: `text`, or `json` for collectors"
    )
    traces: str | None = Field(
        default=None,
        pattern="^https?://",
        validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="OpenTelemetry collector that traces are sent to, by OTLP over HTTP, such as"
        " `http://localhost:4318`; by default none are made",
    )
    traces_headers: SecretStr | None = Field(
        default=None,
        validation_alias="OTEL_EXPORTER_OTLP_HEADERS",
        description="headers for that collector, such as `authorization=Bearer%20...`",
    )

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, value: str) -> str:
        path = value.removesuffix("/")
        if path and not is_root_path(path):
            raise ValueError("a path such as /chat: letters, digits and -._~ between slashes")
        return path

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(_origin(part.strip()) for part in value.split(",") if part.strip())

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(_host(part.strip()) for part in value.split(",") if part.strip())

    def model_post_init(self, _context: object) -> None:
        self._is_db_given = "db" in self.model_fields_set
        if not self.has_own_data and (sample := SAMPLE_FOLDER / Path(OWN_DB).name).is_file():
            self.db = str(sample)
        self.cache = self.cache.expanduser()
        self.state = self.state.expanduser()
        self.features = self.features.expanduser() if self.features else None
        self.bentoml_home = self.bentoml_home.expanduser()

    @property
    def has_own_data(self) -> bool:
        """Whether there are messages, labels or sources of the user's, or a store is named."""
        named = self._is_db_given or bool(self.sources)
        return named or Path(OWN_DB).exists() or OWN_LABELS.exists()

    @property
    def is_db_named(self) -> bool:
        """Whether somebody named the message store."""
        return self._is_db_given

    @property
    def is_sample(self) -> bool:
        """Whether the message store is the one in the sample's folder."""
        return in_sample_folder(self.db)

    @property
    def db_to_fill(self) -> str:
        """The store that messages are imported into: the sample's only if it is named."""
        return self.db if self._is_db_given else OWN_DB


def in_sample_folder(path: str | Path) -> bool:
    """Return whether a file is in the folder of the sample chat."""
    return Path(path).resolve().parent == SAMPLE_FOLDER.resolve()


def is_root_path(path: str) -> bool:
    """Return whether links may begin with this path: plain segments, no slash at the end."""
    return len(path) <= _MAX_ROOT_PATH and _ROOT_PATH.fullmatch(path) is not None


def _origin(text: str) -> str:
    """Return an origin as browsers send it: in lower case, without the default port."""
    match = _ORIGIN.fullmatch(text.lower())
    if match:
        return match[0].removesuffix(_DEFAULT_PORTS.get(match["scheme"], ""))
    if text != "*":
        raise ValueError(f"{text!r} is not an origin: scheme://host or scheme://host:port, or *")
    return text


def _host(text: str) -> str:
    """Return a host's name in lower case, without a dot at the end."""
    name = text.lower().removesuffix(".")
    if text == "*" or _HOST.fullmatch(name):
        return name
    raise ValueError(f"{text!r} is not a name such as feed.example.org, *.example.org or *")


class InvalidSettings(FeedsieveError, BentoMLException, ValueError):
    """An invalid setting. The message names the variable and the allowed values."""


@cache
def settings() -> Settings:
    """Return the settings, read on the first call. Raises InvalidSettings."""
    try:
        return Settings()
    except ValidationError as error:
        clauses = [f"{_name(part)}: {_reason(part)}" for part in error.errors()]
        raise InvalidSettings("; ".join(clauses)) from error


def set_server_process() -> None:
    """Let the workers of this server know its process id."""
    os.environ[_SERVER_PROCESS] = str(os.getpid())


def server_process() -> int | None:
    """Return the process id of the server whose worker this is, or None if it is no worker."""
    value = os.environ.get(_SERVER_PROCESS, "")
    return int(value) if value.isdecimal() else None


def environment_with(**variables: str) -> dict[str, str]:
    """Return the environment of a program to start, with more variables."""
    return os.environ | variables


def override(**values: object) -> None:
    """Set fields in the environment, for this process and those it starts. Raises InvalidSettings.

    Without a value, None, a field stays as it is.
    """
    for name, value in values.items():
        if value is not None:
            os.environ[_variable(name)] = str(value)
    settings.cache_clear()
    settings()


def documented() -> Iterator[tuple[str, str, str]]:
    """Yield each setting's variable, its default or an empty string, and its description."""
    for name, field in Settings.model_fields.items():
        variable, default = str(field.validation_alias or _variable(name)), field.default
        if isinstance(default, bool):
            default = int(default)
        yield variable, "" if default in (None, "", ()) else str(default), field.description or ""


def _variable(field: str) -> str:
    return f"{Settings.model_config['env_prefix']}{field}".upper()


def _name(error: ErrorDetails) -> str:
    name = "_".join(map(str, error["loc"])).upper()
    aliases = {field.validation_alias for field in Settings.model_fields.values()}
    return name if name in aliases else _variable(name)


def _reason(error: ErrorDetails) -> str:
    return error["msg"].removeprefix("Value error, ")
