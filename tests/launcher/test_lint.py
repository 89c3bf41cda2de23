"""Each rule finds its mistake in an otherwise clean script, and nothing in scripts that are right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.cli import main
from launcher.lint import RULES, lint

CLEAN = """#!/bin/bash
#SBATCH --job-name=train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=4:00:00
#SBATCH --output=/shared/logs/%x-%j.log
#SBATCH --signal=B:USR1@180

set -uo pipefail
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))
trap 'scancel --signal=USR1 "$SLURM_JOB_ID.0"' USR1
srun --kill-on-bad-exit=1 --wait=60 bash -c 'trap "" USR1; exec torchrun --nnodes=$SLURM_NNODES \\
    --nproc-per-node=8 --node-rank=$SLURM_NODEID --rdzv-backend=static --master-addr='"$MASTER_ADDR"' \\
    --master-port='"$MASTER_PORT"' train.py --tensor-model-parallel-size 8 --global-batch-size 64 \\
    --micro-batch-size 1' &
wait $!
wait $!
"""

# rule → (what is replaced, by what)
MISTAKES = {
    "L01": ("--ntasks-per-node=1", "--ntasks-per-node=8"),
    "L02": ("--nnodes=$SLURM_NNODES", "--nnodes=4"),
    "L03": ("--node-rank=$SLURM_NODEID", "--node-rank='$SLURM_NODEID'"),
    "L04": ("MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))", "MASTER_PORT=29500"),
    "L05": (
        'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        "MASTER_ADDR=localhost",
    ),
    "L06": ("--rdzv-backend=static", "--rdzv-backend=c10d"),
    "L07": ("#SBATCH --exclusive", "#SBATCH --exclusive --gpus-per-task=1"),
    "L08": ("export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK", ""),
    "L09": ("set -uo pipefail", "ulimit -l 65536"),
    "L10": ("--kill-on-bad-exit=1", ""),
    "L11": ("trap 'scancel", "true 'scancel"),
    "L12": ("USR1@180", "USR1@20"),
    "L13": ("set -uo pipefail", "set -uo pipefail\n#SBATCH --nodes=4"),
    "L15": ("#SBATCH --exclusive", "#SBATCH --exclusive --export=WANDB_MODE"),
    "L16": ("--output=/shared/logs", "--output=/tmp"),
    "L17": ("#SBATCH --mem=0\n", ""),
    "L18": ("set -uo pipefail", "export WANDB_API_KEY=0123456789abcdef"),
    "L19": ("set -uo pipefail", "export NCCL_ALGO=Ring"),
    "L20": ("--time=4:00:00", "--time=86400"),
    "L21": ("--tensor-model-parallel-size 8", "--tensor-model-parallel-size 16"),
    "L22": ("--global-batch-size 64", "--global-batch-size 63"),
    "L23": ("#SBATCH --mem=0", "#SBATCH --mem=0\r"),
    "L24": ("srun --kill", "srun --container-image=x --kill"),
}


def rules_of(text: str, **options: dict[str, str]) -> set[str]:
    return {finding.rule for finding in lint(text, **options)}


def test_clean_script_has_no_finding() -> None:
    assert lint(CLEAN) == ()


@pytest.mark.parametrize("rule", sorted(set(MISTAKES) - {"L03", "L24"}))
def test_mistake_is_found_and_nothing_else(rule: str) -> None:
    before, after = MISTAKES[rule]
    assert before in CLEAN
    assert rules_of(CLEAN.replace(before, after)) == {rule}


def test_per_task_variable_in_the_batch_shell() -> None:
    text = CLEAN.replace("wait $!\nwait $!", "srun --kill-on-bad-exit=1 python train.py --rank $SLURM_PROCID")
    assert "L03" in rules_of(text)
    quoted = text.replace("--rank $SLURM_PROCID", "--rank '$SLURM_PROCID'")
    assert "L03" not in rules_of(quoted)


def test_arguments_kept_in_a_variable() -> None:
    kept = 'ARGS="--nnodes 4 --node_rank $SLURM_NODEID"\nsrun --kill-on-bad-exit=1 torchrun $ARGS train.py'
    text = CLEAN.replace("wait $!\nwait $!", kept)
    assert rules_of(text) == {"L02", "L03"}
    mended = kept.replace("--nnodes 4", "--nnodes $SLURM_NNODES").replace("srun --kill-on-bad-exit=1", "eval")
    assert rules_of(CLEAN.replace("wait $!\nwait $!", mended)) == set()


def test_address_of_the_first_host() -> None:
    """`hostname --ip-address` can answer with a loopback address, under whatever name it is kept."""
    text = CLEAN.replace("wait $!\nwait $!", "head_ip=$(srun -N1 -n1 -w $first hostname --ip-address)")
    assert rules_of(text) == {"L05"}


@pytest.mark.parametrize(("limit", "odd"), [("90", False), ("2880", False), ("5400", True), ("14400", False)])
def test_seconds_given_for_minutes(limit: str, odd: bool) -> None:
    assert (rules_of(CLEAN.replace("--time=4:00:00", f"--time={limit}")) == {"L20"}) is odd


def test_host_tool_in_the_container() -> None:
    step = "srun --kill-on-bad-exit=1 --container-image=img bash -c 'scontrol show hostnames'"
    assert "L24" in rules_of(CLEAN.replace("wait $!\nwait $!", step))
    outside = 'srun --kill-on-bad-exit=1 --container-image=img bash run.sh "$(scontrol show hostnames)"'
    assert "L24" not in rules_of(CLEAN.replace("wait $!\nwait $!", outside))


def test_variables_of_the_shell() -> None:
    assert rules_of(CLEAN, environment={"SBATCH_PARTITION": "x"}) == {"L14"}
    assert rules_of(CLEAN, environment={"NCCL_IB_HCA": "mlx5_0"}) == {"L19"}


def test_every_rule_says_what_to_do_and_where_it_is_known_from() -> None:
    assert [rule.id for rule in RULES] == [f"L{number:02d}" for number in range(1, 25)]
    for rule in RULES:
        assert rule.title and rule.fix and rule.source


def test_two_mistakes_name_their_lines() -> None:
    text = CLEAN.replace("USR1@180", "USR1@20").replace("--mem=0\n", "--mem=0\r\n")
    found = {finding.rule: finding.line for finding in lint(text)}
    assert found == {"L12": 11, "L23": 8}


@pytest.mark.parametrize(
    "text",
    ["", "\x00\xff", "#SBATCH", "#SBATCH -", "srun", "cat <<EOF\nnever ends", "'" * 99, "#SBATCH --time='"],
)
def test_any_text_is_read(text: str) -> None:
    lint(text)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NCCL_DEBUG", "GLOO_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "job.sbatch"
    path.write_text(CLEAN.replace("USR1@180", "USR1@20"))
    assert main(["lint", str(path), "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert [finding["rule"] for finding in data["findings"]] == ["L12"]
    assert main(["lint", str(path), "--ignore", "L12"]) == 0
    assert main(["lint", str(path), "--ignore", "L99"]) == 2
    assert main(["lint", "--rules"]) == 0
    assert main(["lint", str(tmp_path / "none")]) == 2
