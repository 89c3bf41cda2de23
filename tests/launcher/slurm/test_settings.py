"""Site profile, precedence with origins, inherited variables, and the options of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.slurm.environment import check_environment, findings, submission_environment
from launcher.slurm.options import options_from
from launcher.slurm.settings import COMMAND_LINE, JOB, SITE, find_site, merge
from profiles.errors import ConfigError
from profiles.site import SlurmOptions, load_site

SITE_YAML = """kind: site
version: 1
name: lab
partition: gpu
account: team
time_limit: 1:30:00
grace_seconds: 120
environment: {HF_HOME: /shared/hf, NCCL_DEBUG: INFO}
container: {image: train.sif, runtime: apptainer, mounts: ["/data:/data"]}
"""


def test_precedence_and_origins(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(SITE_YAML)
    site = load_site(tmp_path / "site.yaml")
    assert site.time_limit == "1:30:00"  # not 5400
    job = SlurmOptions(account="paper", environment={"NCCL_DEBUG": "WARN"}, retries=7)
    line = SlurmOptions(partition="debug", retries=0)
    settings = merge([(COMMAND_LINE, line), (JOB, job), (SITE, site)])
    options = settings.options
    assert (options.partition, settings.origin("partition")) == ("debug", COMMAND_LINE)
    assert (options.account, settings.origin("account")) == ("paper", JOB)
    assert (options.grace_seconds, settings.origin("grace_seconds")) == (120, SITE)
    assert (options.preflight, settings.origin("preflight")) == ("strict", "default")
    assert (options.retries, settings.origin("retries")) == (0, COMMAND_LINE)
    assert options.environment == {"HF_HOME": "/shared/hf", "NCCL_DEBUG": "WARN"}
    assert settings.origin("environment.HF_HOME") == SITE
    assert settings.origin("environment.NCCL_DEBUG") == JOB
    assert ("partition", "debug", COMMAND_LINE) in settings.rows()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: site\npartion: gpu\n", "site.yaml:2:1: partion: unknown key; did you mean 'partition'"),
        ("kind: site\nretries: -1\n", "site.yaml:2:1: retries"),
        ("kind: site\ntime_limit: 90\n", "site.yaml:2:1: time_limit"),
        ("kind: plan\n", "site.yaml:1:1: kind"),
    ],
)
def test_mistakes_in_the_site_profile_name_their_place(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_site(tmp_path / "site.yaml")
    assert message in str(caught.value)


def test_site_is_looked_for_where_people_put_it(tmp_path: Path) -> None:
    assert find_site({"CUBOID_SITE": "/x/site.yaml"}) == Path("/x/site.yaml")
    assert find_site({"XDG_CONFIG_HOME": str(tmp_path)}) is None
    (tmp_path / "cuboid").mkdir()
    (tmp_path / "cuboid" / "site.yaml").write_text(SITE_YAML)
    assert find_site({"XDG_CONFIG_HOME": str(tmp_path)}) == tmp_path / "cuboid" / "site.yaml"


def test_more_submissions_need_a_singleton() -> None:
    with pytest.raises(ConfigError, match="singleton"):
        merge([(COMMAND_LINE, SlurmOptions(links=3))])


def test_inherited_variables() -> None:
    shell = {
        "SBATCH_PARTITION": "x",
        "SLURM_JOB_ID": "4",
        "SLURM_CONF": "/etc/slurm.conf",
        "RANK": "3",
        "NCCL_IB_HCA": "mlx5_0",
        "UCX_TLS": "rc",
        "NCCL_SECRET_TOKEN": "hush",
        "PATH": "/bin",
    }
    kept = submission_environment(shell)
    assert set(kept) == {"SLURM_CONF", "NCCL_IB_HCA", "UCX_TLS", "NCCL_SECRET_TOKEN", "PATH"}
    fates = {finding.name: finding.fate for finding in findings(shell, ["UCX_TLS"])}
    assert set(fates) == set(shell) - {"PATH", "SLURM_CONF"}
    assert fates["UCX_TLS"].startswith("kept")
    assert fates["NCCL_IB_HCA"].startswith("dropped")
    assert "hush" not in str(findings(shell, []))


@pytest.mark.parametrize("name", ["", "a b", "x", "PATH;", "1A", "UID", "BASH_ENV", "RANK", "SLURM_JOB_ID"])
def test_names_that_cannot_be_exported(name: str) -> None:
    with pytest.raises(ConfigError):
        check_environment({name: "1"})


def test_options_of_the_command_line() -> None:
    options = options_from({"environment": ["A=b=c"], "container": "img", "retries": 2, "array": None})
    assert options.environment == {"A": "b=c"}
    assert options.container and options.container.image == "img"
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        options_from({"environment": ["A"]})
    with pytest.raises(ConfigError, match="--preflight: must be"):
        options_from({"preflight": "maybe"})
