"""Settings of one job: each value with the level that gave it.

command line  >  job.yaml (slurm:)  >  site.yaml  >  default
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiles.errors import ConfigError
from profiles.site import SlurmOptions

COMMAND_LINE = "command line"
JOB = "job"
SITE = "site"
DEFAULT = "default"

DEFAULTS = SlurmOptions(
    gpu_request="gpus-per-node",
    exclusive=True,
    process_model="torchrun",
    modules=(),
    environment={},
    keep_environment=(),
    requeue=True,
    links=1,
    retries=3,
    elastic=False,
    preflight="strict",
    preflight_seconds=120,
    collective_test=False,
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The merged options; `origins` maps a field (or `environment.NAME`) to the level it came from."""

    options: SlurmOptions
    origins: Mapping[str, str]

    def origin(self, name: str) -> str:
        """Return where the value of `name` came from."""
        return self.origins.get(name, DEFAULT)

    def rows(self) -> list[tuple[str, str, str]]:
        """Return (name, value, origin) of every value that is set, in the order of the fields."""
        rows = []
        for name in SlurmOptions.model_fields:
            value = getattr(self.options, name)
            if name == "environment":
                rows += [
                    (f"environment.{key}", redacted(key, text), self.origin(f"environment.{key}"))
                    for key, text in (value or {}).items()
                ]
            elif value is not None and value != ():
                rows.append((name, _text(value), self.origin(name)))
        return rows


def merge(levels: Sequence[tuple[str, SlurmOptions]]) -> Settings:
    """Merge option levels, the strongest first, over the defaults."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    environment: dict[str, str] = {}
    for origin, options in (*levels, (DEFAULT, DEFAULTS)):
        for name in SlurmOptions.model_fields:
            value = getattr(options, name)
            if value is None:
                continue
            if name == "environment":
                for key, text in value.items():
                    if key not in environment:
                        environment[key] = text
                        origins[f"environment.{key}"] = origin
            elif name not in values:
                values[name] = value
                origins[name] = origin
    if "python" not in values:
        values["python"], origins["python"] = sys.executable, DEFAULT
    if values.get("links", 1) > 1 and values.get("dependency") != "singleton":
        raise ConfigError("links: more than one submission needs dependency: singleton, or use array")
    return Settings(options=SlurmOptions(**values, environment=environment), origins=origins)


def find_site(environment: Mapping[str, str]) -> Path | None:
    """Return the site profile in force: $CUBOID_SITE, the user's own, the system's, or None."""
    if environment.get("CUBOID_SITE"):
        return Path(environment["CUBOID_SITE"])
    home = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME", "/"), ".config"))
    for folder in (Path(home), Path("/etc")):
        path = folder / "cuboid" / "site.yaml"
        if path.is_file():
            return path
    return None


_SECRETS = ("TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL")


def is_secret(name: str) -> bool:
    """Tell whether a variable's name says that its value must not be shown."""
    return any(word in name.upper() for word in _SECRETS)


def redacted(name: str, value: str) -> str:
    """Return `value`, or stars when the variable's name says that it is a secret."""
    return "***" if is_secret(name) else value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if hasattr(value, "image"):
        return f"{value.image} ({value.runtime})"
    return str(value)
