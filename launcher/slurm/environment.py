"""Variables of the submitting shell that would change a job, and what becomes of them.

`SBATCH_*` beats the directives of the script, and a `SLURM_*` or `RANK` left over from another job misleads
srun and torchrun, so these are taken out of the submission. Settings of communication libraries belong to a
cluster, not to a shell: the job drops what it inherits of them unless the site or the job names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from launcher.slurm.settings import is_secret, redacted
from profiles.errors import ConfigError

SCHEDULER = re.compile(
    r"SBATCH_\w+|SRUN_\w+|SLURM_(?!CONF$)\w+|RANK|LOCAL_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|GROUP_RANK"
    r"|MASTER_ADDR|MASTER_PORT|TORCHELASTIC_\w+|CUDA_VISIBLE_DEVICES|CUBOID_(?!SITE$)\w+"
)
STALE_PATTERN = "NCCL_|GLOO_|UCX_|FI_|TORCH_NCCL_"
_STALE = re.compile(rf"(?:{STALE_PATTERN})\w+")
_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,127}|(?:https?|ftp|no|all)_proxy")
_SHELL = frozenset(  # set by bash itself, or read by it before the script
    {"BASHOPTS", "BASH_ARGC", "BASH_ARGV", "BASH_ENV", "BASH_VERSINFO", "EUID", "FUNCNAME", "GROUPS"}
    | {"IFS", "OPTIND", "PPID", "SHELLOPTS", "UID", "_"}
)
_OURS = re.compile(r"SLURM_\w+|SBATCH_\w+|RANK|LOCAL_RANK|WORLD_SIZE|MASTER_ADDR|MASTER_PORT|CUBOID_\w+")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One inherited variable that would matter. `fate` is what is done about it."""

    name: str
    value: str
    fate: str


def findings(environment: Mapping[str, str], keep: Sequence[str]) -> tuple[Finding, ...]:
    """Return every inherited variable that would matter, with what happens to it; secrets are starred out."""
    found = []
    for name, value in sorted(environment.items()):
        if SCHEDULER.fullmatch(name):
            fate = "left out of the submission"
        elif _STALE.fullmatch(name):
            fate = "kept, as asked" if name in keep else "dropped by the job unless in keep_environment"
        else:
            continue
        found.append(Finding(name=name, value=redacted(name, value), fate=fate))
    return tuple(found)


def submission_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that sbatch is given: the shell's, without what would override the script."""
    return {name: value for name, value in environment.items() if not SCHEDULER.fullmatch(name)}


def check_environment(environment: Mapping[str, str]) -> None:
    """Refuse variables that cannot be set by a job script.

    Raises:
        ConfigError: for a name that cannot be exported or is not the user's to set, a NUL, or a secret.
    """
    for name, value in environment.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(f"environment: {name!r} is not a name to export; use capitals, digits and _")
        if name in _SHELL or _OURS.fullmatch(name):
            raise ConfigError(f"environment: {name} is set by the shell, SLURM or Cuboid; leave it out")
        if "\0" in value:
            raise ConfigError(f"environment: {name} holds a NUL character")
        if is_secret(name):
            raise ConfigError(
                f"environment: {name} looks like a secret, and the script would show it;"
                " leave it out and set it in the shell you submit from: jobs inherit it"
            )
