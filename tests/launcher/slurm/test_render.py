"""The scripts as text: golden files, ShellCheck, and what hostile values cannot do."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from launcher.lint import lint
from launcher.slurm import prepare
from launcher.slurm.directives import PATTERNS, seconds_of
from launcher.slurm.submission import Submission
from planner.job import CheckpointSpec, DataSpec, Job
from profiles.errors import ConfigError
from profiles.site import ContainerSpec, SlurmOptions

GOLDEN = Path(__file__).parent / "golden"
RUN = Path("/shared/runs/first")


def prepared(plan: Any, *, run: Path = RUN, name: str = "first", **options: Any) -> Submission:
    options.setdefault("python", "/shared/venv/bin/python")
    options.setdefault("time_limit", "4:00:00")
    job = Job(name=name, plan=plan, checkpoint=CheckpointSpec(every_steps=10))
    return prepare(job, run, options=SlurmOptions(**options), environment={})


def cases(runs: Any) -> dict[str, Submission]:
    gpus = runs.gpu_plan()
    pyxis = ContainerSpec(image="registry/train:1", mounts=("/data:/data:ro",), workdir="/work")
    apptainer = ContainerSpec(image="/images/train.sif", runtime="apptainer", mounts=("/data:/data",))
    return {
        "one-node": prepared(runs.gpu_plan(nodes=1)),
        "many-nodes": prepared(gpus, partition="gpu", account="team", switches="1@10:00", comment="a b (c)"),
        "container": prepared(gpus, container=pyxis, modules=("cuda/12.8",)),
        "apptainer": prepared(gpus, container=apptainer),
        "srun-native": prepared(gpus, process_model="srun", gpu_request="gres", gpu_type="h100"),
        "array": prepared(gpus, array=20),
        "singleton": prepared(gpus, dependency="singleton", links=4),
        "elastic": prepared(gpus, elastic=True, min_nodes=1, collective_test=True),
        "no-gpus": prepared(
            runs.plan(), exclusive=False, memory="4G", environment={"NOTE": "it's $(here)\nand `there`"}
        ),
    }


CASES = ("one-node", "many-nodes", "container", "apptainer", "srun-native", "array", "singleton")
CASES += ("elastic", "no-gpus")


@pytest.mark.parametrize("case", CASES)
def test_golden_scripts(case: str, runs: Any) -> None:
    """CUBOID_GOLDEN=write renews them."""
    submission = cases(runs)[case]
    for suffix, text in (("sbatch", submission.script), ("worker.sh", submission.worker)):
        path = GOLDEN / f"{case}.{suffix}"
        # The digest follows every change of the plan's own fields.
        shown = re.sub(
            r"^# Cuboid \S+: run (\S+), plan \w+$", r"# Cuboid VERSION: run \1, plan DIGEST", text, flags=re.M
        )
        if os.environ.get("CUBOID_GOLDEN") == "write":
            path.parent.mkdir(exist_ok=True)
            path.write_text(shown)
        difference = difflib.unified_diff(path.read_text().splitlines(), shown.splitlines(), lineterm="")
        assert "\n".join(difference) == ""


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*")), ids=lambda path: path.name)
def test_golden_scripts_are_sound(path: Path, debian_packages: None) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    checked = subprocess.run(
        ["shellcheck", "--shell=bash", str(path)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout
    if path.suffix == ".sbatch":
        assert lint(path.read_text()) == ()


NASTY = ("$(touch HACKED)", "`touch HACKED`", "'; touch HACKED; '", '"; touch HACKED; "', "\ntouch HACKED\n")
NASTY += (
    "-x",
    "--wrap=touch HACKED",
    "#SBATCH --x",
    "a\rb",
    "\u202eabc",
    "é $HOME",
    "{{ 7*7 }}",
    "\\",
    "a,b=c",
    "*",
)
words = st.one_of(
    st.sampled_from(NASTY),
    st.text(max_size=30),
    st.tuples(st.text(max_size=8), st.sampled_from(NASTY)).map("".join),
)

quiet = settings(
    max_examples=60,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # every example starts a shell: do not shrink
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@quiet
@given(field=st.sampled_from([
    "partition", "account", "qos", "reservation", "constraint", "exclude", "nodelist", "switches", "comment",
    "mail_user", "mail_type", "time_limit", "memory", "dependency", "gpu_type",
]), value=words)  # fmt: skip
def test_directive_values_are_refused_or_harmless(field: str, value: str, runs: Any) -> None:
    try:
        script = prepared(runs.gpu_plan(), **{field: value}).script
    except ConfigError as error:
        assert field.replace("_", " ") in str(error).replace("_", " ")
        return
    plain = prepared(runs.gpu_plan()).script
    ours = [line for line in script.split("\n") if line not in plain.split("\n")]
    assert all(
        re.fullmatch(r"#SBATCH --[a-z-]+=(\"[^\"$`\\\n\r]*\"|[^\s\"'$`\\]*)", line) for line in ours
    ), ours


def run_in(folder: Path, script: str, worker: str) -> subprocess.CompletedProcess[str]:
    """Run both scripts with programs that only report, in a folder where a file HACKED would show."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("srun", "scontrol", "scancel", "squeue", "module", "apptainer"):
        (tools / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 0\n')
        (tools / name).chmod(0o755)
    environment = {
        "PATH": f"{tools}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]",
    }  # fmt: skip
    (folder / "job").write_text(script, errors="surrogatepass")
    (folder / "worker").write_text(worker, errors="surrogatepass")
    done = subprocess.run(
        ["bash", "job"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    subprocess.run(["bash", "worker", "none"], cwd=folder, env=environment, capture_output=True, check=False)
    return done


@quiet
@given(name=words, value=words, path=words, module=words, keep=words, apptainer=st.booleans())
def test_shell_words_are_never_run(
    name: str,
    value: str,
    path: str,
    module: str,
    keep: str,
    apptainer: bool,
    runs: Any,
    tmp_path_factory: Any,
) -> None:
    """Every option that is not refused by itself is put into one script, which is then run."""
    folder = tmp_path_factory.mktemp("hostile")
    container = (
        ContainerSpec(image=path, runtime="apptainer", workdir=value, python=keep)
        if apptainer
        else ContainerSpec(image=path, mounts=(value,), python=keep)
    )
    given: list[dict[str, Any]] = [
        {"keep_environment": (keep,)},
        {"modules": (module,)},
        {"python": path},
        {"container": container},
    ]
    environment = {
        key: text
        for key, text in (("NOTE", value), (name, "1"))
        if not refused(runs.plan(), folder, environment={key: text})
    }
    taken = {
        key: word
        for options in given
        if not refused(runs.plan(), folder, **options)
        for key, word in options.items()
    }
    submission = prepared(runs.plan(), run=folder / "run", environment=environment, **taken)
    run_in(folder, submission.script, submission.worker)
    assert not list(folder.rglob("HACKED*")), taken
    shutil.rmtree(folder)


def refused(plan: Any, folder: Path, **options: Any) -> bool:
    try:
        prepared(plan, run=folder / "run", **options)
    except ConfigError:
        return True
    return False


@quiet
@given(part=words)
def test_run_directories_are_refused_or_taken_as_they_are(
    part: str, runs: Any, tmp_path_factory: Any
) -> None:
    folder = tmp_path_factory.mktemp("paths")
    run = Path(f"{folder}/r {part}".replace("\0", "0")) / "first"
    try:
        submission = prepared(runs.plan(), run=run)
    except ConfigError:
        return
    run_in(folder, submission.script, submission.worker)
    assert not list(folder.rglob("HACKED*"))
    assert (run / "launch").is_dir() or len(str(run).encode()) > 255
    shutil.rmtree(folder)


def test_secrets_do_not_go_into_the_script(runs: Any) -> None:
    with pytest.raises(ConfigError, match="looks like a secret"):
        prepared(runs.plan(), environment={"WANDB_API_KEY": "x"})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400),
        ("30:00", 1800),
        ("1:30:00", 5400),
        ("2-12", 216000),
        ("1-12:30", 131400),
        ("1-0:0:1", None),
    ],
)
def test_time_limits(text: str, seconds: int | None) -> None:
    matched = PATTERNS["time"][0].fullmatch(text)
    assert bool(matched) == (seconds is not None)
    if seconds is not None:
        assert seconds_of(text) == seconds


def test_data_outside_the_container_is_pointed_out(runs: Any) -> None:
    job = Job(name="first", plan=runs.gpu_plan(), data=DataSpec(path="/data/corpus/text"))
    for mounts, missing in ((("/lustre:/data:ro",), False), (("/data",), False), (("/data:/mnt",), True)):
        options = SlurmOptions(container=ContainerSpec(image="x.sif", mounts=mounts))
        warnings = prepare(job, RUN, options=options, environment={}).warnings
        assert any("/data/corpus/text" in warning for warning in warnings) is missing


def test_jobs_that_do_not_fill_nodes_are_refused(runs: Any) -> None:
    plan = runs.gpu_plan(tp=4, pp=3, global_batch=8, nodes=2)
    with pytest.raises(ConfigError, match="multiple of 8"):
        prepared(plan)
