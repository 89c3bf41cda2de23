"""site.yaml: what a SLURM site asks of its jobs, and what a job may ask of the site.

The same fields are options of `cuboid launch`, the `slurm` section of job.yaml and the body of site.yaml; the
command line wins over the job, the job over the site, the site over the defaults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from profiles.documents import Record, read_document

GpuRequest = Literal["gpus-per-node", "gres", "none"]
ProcessModel = Literal["torchrun", "srun"]
PreflightMode = Literal["strict", "warn", "off"]


class ContainerSpec(Record):
    """The image the ranks run in. `mounts` are `source:target[:options]`, `python` is the image's own."""

    image: str
    python: str = "python3"
    runtime: Literal["pyxis", "apptainer"] = "pyxis"
    mounts: tuple[str, ...] = ()
    workdir: str | None = None


class SlurmOptions(Record):
    """How a job is put before SLURM; null leaves a field to the next level below.

    `environment` is merged key by key over the levels; every other field is taken whole.
    """

    # who pays, and where
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    reservation: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    nodelist: str | None = None
    switches: str | None = None  # at most so many leaf switches, `N` or `N@minutes`
    segment: PositiveInt | None = None  # nodes of one block, SLURM ≥ 23.11
    comment: str | None = None
    mail_user: str | None = None
    mail_type: str | None = None
    # how much
    time_limit: str | None = None  # as SLURM writes it: 30:00, 4:00:00, 1-12:00:00
    grace_seconds: PositiveInt | None = None  # the warning comes so long before the limit
    gpu_request: GpuRequest | None = None
    gpu_type: str | None = None
    exclusive: bool | None = None
    memory: str | None = None  # of one node, as SLURM writes it; 0 is all of it
    cpus_per_node: PositiveInt | None = None
    # how the ranks are started
    process_model: ProcessModel | None = None
    python: str | None = None
    modules: tuple[str, ...] | None = None
    environment: dict[str, str] | None = None
    keep_environment: tuple[str, ...] | None = None  # inherited variables that are meant to stay
    socket_interface: str | None = None
    ib_hcas: str | None = None
    ib_gid_index: NonNegativeInt | None = None
    container: ContainerSpec | None = None
    # what happens when it ends
    requeue: bool | None = None
    array: PositiveInt | None = None  # this many links, one after the other
    dependency: str | None = None
    links: PositiveInt | None = None  # this many submissions, with `dependency: singleton`
    retries: NonNegativeInt | None = None  # failed attempts before the job stays down
    elastic: bool | None = None  # plan again for another number of nodes
    min_nodes: PositiveInt | None = None
    # what is looked at first
    preflight: PreflightMode | None = None
    preflight_seconds: PositiveInt | None = None
    collective_test: bool | None = None
    price_per_device_hour: float | None = None


class SiteProfile(SlurmOptions):
    """A site's own defaults: the file site.yaml."""

    kind: Literal["site"] = "site"
    version: Literal[1] = 1
    name: str = "site"


def load_site(path: Path) -> SiteProfile:
    """Read a site profile.

    Raises:
        ConfigError: with file, line and column of the first field that is wrong.
    """
    return read_document(path).read(SiteProfile)
