"""Settings of the process, read once from the environment.

Names begin with ``PERENNIAL_``, but for ``PORT`` and ``WEB_CONCURRENCY``, which hosting platforms set.
Settings of a workspace (cut points, horizons, models) live in the database instead: see ``app.workspace_settings``.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_PREFIX = "PERENNIAL_"

# The key of clients, tests, and what Kubernetes sets where the name of a service begins with perennial.
_OF_OTHERS = re.compile(
    r"PERENNIAL_(KEY|TEST_.+|(.+_)?SERVICE_(HOST|PORT.*)|(.+_)?PORT_\d.*)=|PERENNIAL_(.+_)?PORT=\w+://", re.IGNORECASE
)


class Settings(BaseSettings):
    """What the operator of this process decides."""

    # An empty variable is one that is not set.
    model_config = SettingsConfigDict(env_prefix=_PREFIX, env_ignore_empty=True, frozen=True)

    database_url: str | None = Field(
        default=None,
        pattern=r"^postgres(ql)?://",
        description="A `postgresql://` URL (PostgreSQL 15 or later, or a Citus 14 coordinator). "
        "Unset: an embedded PostgreSQL 18 serves.",
    )
    data_dir: Path | None = Field(
        default=None,
        description="Folder of the embedded PostgreSQL. Unset: `./.data`, or `/var/lib/perennial` as root.",
    )
    bootstrap_key: SecretStr | None = Field(
        default=None,
        description="On an empty database: the key of the first workspace, `default`, with all scopes. "
        "Unset on the embedded database: one is made and shown once on the terminal.",
    )
    currency: str = Field(
        default="USD", pattern=r"^[A-Z]{3}$", description="Currency of the first workspace, `default` (ISO 4217)."
    )
    time_zone: str = Field(
        default="UTC", description="Time zone of the first workspace, `default` (IANA name): it cuts the days."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(
        default=8000, ge=0, le=65535, validation_alias=AliasChoices("PORT", "port"), description="Port to listen on."
    )
    web_concurrency: int = Field(
        default=1,
        ge=1,
        le=256,
        validation_alias=AliasChoices("WEB_CONCURRENCY", "web_concurrency"),
        description="Number of web processes.",
    )
    docs: bool = Field(default=False, description="Serve the interactive page `/docs`.")
    metrics_open: bool = Field(
        default=False, description="Serve `/metrics` without a key; otherwise it asks for the scope `operator`."
    )
    otlp_endpoint: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Where traces are sent, such as `http://localhost:4318/v1/traces` (OpenTelemetry over HTTP; needs "
        "the packages of `requirements-telemetry.txt`). Unset: no traces.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    pool_size: int = Field(default=10, ge=1, le=100, description="Database connections a web process may hold.")
    max_body_bytes: int = Field(
        default=10_000_000, ge=1_000, description="Largest request body, after decompression, in bytes."
    )
    requests_per_second: float = Field(
        default=20_000.0,
        gt=0,
        description="Requests a second that a web process takes from one workspace, with bursts of two seconds' worth; "
        "more are told to come back (429).",
    )
    throwaway_database: bool = Field(
        default=False,
        description="For tests only: be ready even where the database may lose commits in a crash "
        "(`fsync`, `full_page_writes` or `synchronous_commit` off).",
    )


def variable_names() -> list[str]:
    """The names of all settings, as the environment has them."""
    return [
        str(field.validation_alias.choices[0])
        if isinstance(field.validation_alias, AliasChoices)
        else _PREFIX + name.upper()
        for name, field in Settings.model_fields.items()
    ]


def unknown_settings(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Variables that look like settings and are none, each with the setting that may be meant, if any comes close."""
    known = {name.removeprefix(_PREFIX): name for name in variable_names()}
    unknown: dict[str, str | None] = {}
    for name in sorted(environment):
        looks_like_one = name.upper().startswith(_PREFIX) and not _OF_OTHERS.match(f"{name}={environment[name]}")
        bare = name.upper().removeprefix(_PREFIX)
        if looks_like_one and known.get(bare) != name.upper():
            unknown[name] = next((known[close] for close in get_close_matches(bare, known, n=1)), None)
    return unknown
