"""`cuboid plan` from the command line: the contract of its JSON, its refusals, its start-up."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.cli import main
from planner.plan import load_plan
from planner.query import Query
from profiles.presets import model_preset

SMALL = ["plan", "--model", "bytes-1m", "--cluster", "cpu-2", "--devices", "2", "--global-batch", "4"]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main([*words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_json_is_one_document_with_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *SMALL, "--json", "--top", "3")
    assert code == 0
    answer = json.loads(out)
    assert {"plans", "searched", "infeasible", "seconds"} <= answer.keys()
    assert [plan["rank"] for plan in answer["plans"]] == [1, 2, 3]
    best = answer["plans"][0]
    assert best["layout"]["global_batch"] == 4
    assert sum(best["estimate"]["time"].values()) == pytest.approx(best["estimate"]["step_seconds"])


def test_the_plan_written_is_the_first_of_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.yaml"
    code, out, err = run(capsys, *SMALL, "-o", str(path), "--json")
    assert code == 0 and f"wrote {path}" in err
    plan = load_plan(path)
    best = json.loads(out)["plans"][0]
    assert (plan.layout.tp, plan.layout.pp, plan.layout.dp) == tuple(
        best["layout"][k] for k in ("tp", "pp", "dp")
    )
    assert plan.estimate is not None
    assert plan.estimate.step_seconds == pytest.approx(best["estimate"]["step_seconds"])


@pytest.mark.parametrize("option", ["-o", "--html"])
def test_what_cannot_be_written_is_refused_before_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    def search(_: Query) -> None:
        raise AssertionError("searched")

    monkeypatch.setattr(Query, "run", search)
    code, _, err = run(capsys, *SMALL, option, str(tmp_path / "none" / "file"))
    assert code == 2 and f"there is no folder {tmp_path / 'none'}" in err.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--pin", "tp=3"], 2, "tp: 3 does not divide 4 heads; use 1 or 2"),
        (["--pin", "sheduel=1f1b"], 2, "--pin: unknown key 'sheduel'; did you mean 'schedule'?"),
        (["--pin", "tp"], 2, "'tp' is not of the form key=value"),
        (["--pin", "tp=1,tp=2"], 2, "--pin: 'tp' is given twice"),
        (["--pin", "tp=many"], 2, "--pin: tp: "),
        (["--pin", "schedule=1f2b"], 2, "there is no schedule '1f2b'; did you mean '1f1b'?"),
        (["--pin", "dp=3"], 2, "tp · pp · dp = 1 · 1 · 3 = 3 of 2 devices"),
        (["--pin", "zero=3"], 2, "zero: this project's runtime has"),
        (["--target", "jax"], 2, "'jax' is not known; use cuboid, megatron, any"),
        (["--model", "nothing.json"], 2, "nothing.json: No such file"),
        (["--costs", "nothing.yaml"], 2, "nothing.yaml: No such file"),
        (["--model", "gpt5"], 2, "no preset 'gpt5' in models"),
        (["--global-batch", "0"], 2, "--global-batch 0: must be at least 1"),
        (["--devices", "0"], 2, "--devices 0: must be at least 1"),
        (["--tokens", "lots"], 2, "--tokens 'lots': not a number of tokens"),
        (["--price", "2"], 2, "--price needs --tokens"),
        (["--why-not", "tq=8"], 2, "--why-not: unknown key 'tq'; did you mean 'tp'?"),
        (["--model", "gpt3-175b"], 3, "no layout of gpt3-175b runs on 2 devices"),
    ],
)
def test_refusals_are_one_message_and_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str
) -> None:
    path = tmp_path / "plan.yaml"
    got, out, err = run(capsys, *SMALL, "-o", str(path), *words)
    assert (got, out) == (code, "")
    lines = [line for line in err.splitlines() if not line.startswith("cpu-2 has")]
    assert len(lines) == 1 and message in lines[0]
    assert not path.exists()


def test_why_not_says_what_is_impossible_slower_or_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, *SMALL, "--json", "--why-not", "tp=3")
    assert "tp=3: impossible: tp: 3 does not divide 4 heads" in json.loads(out)["why_not"]
    best = json.loads(out)["plans"][0]["layout"]
    _, out, _ = run(capsys, *SMALL, "--json", "--why-not", f"dp={best['dp']}")
    assert "the chosen layout is one of these" in json.loads(out)["why_not"]
    other = 1 if best["dp"] == 2 else 2
    _, out, _ = run(capsys, *SMALL, "--json", "--why-not", f"dp={other}")
    assert "faster than it" in json.loads(out)["why_not"]


def test_bill_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, *SMALL, "--json", "--tokens", "1G", "--price", "2.5")
    answer = json.loads(out)
    seconds = 1e9 / answer["plans"][0]["estimate"]["tokens_per_second"]
    assert answer["bill"]["days"] == pytest.approx(seconds / 86400)
    assert answer["bill"]["device_hours"] == pytest.approx(2 * seconds / 3600)
    assert answer["bill"]["price"] == pytest.approx(2.5 * 2 * seconds / 3600)


def test_page_stands_alone_and_escapes_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model.yaml"
    fields = model_preset("bytes-1m").model_dump(exclude={"approximations"}) | {"name": "<script>x</script>"}
    model.write_text(json.dumps(fields))
    page = tmp_path / "plan.html"
    code, out, _ = run(capsys, *SMALL, "--model", str(model), "--html", str(page), "--json")
    assert code == 0
    answer = json.loads(out)
    peaks = [plan["estimate"]["memory"]["peak_bytes"] for plan in answer["pareto"]]
    steps = [plan["estimate"]["step_seconds"] for plan in answer["pareto"]]
    assert peaks == sorted(peaks, reverse=True) and steps == sorted(steps)
    assert {shift["condition"] for shift in answer["sensitivity"]} == {
        "link gloo −20%",
        "compute efficiency −10%",
    }
    text = page.read_text(encoding="utf-8")
    assert "<script>x" not in text and "&lt;script&gt;x" in text
    assert "http" not in text.replace("http-equiv", "")


def test_planning_never_imports_torch() -> None:
    words = "'plan','--model','gpt2','--cluster','selene','--devices','8','--global-batch','8','--json'"
    code = (
        f"import sys; from launcher.cli import main; assert main([{words}]) == 0;"
        " assert not {'torch', 'transformers', 'jinja2'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", ["cuboid", "any"])
def test_what_is_left_out_of_a_model_is_said_and_whether_it_can_be_launched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str
) -> None:
    path = tmp_path / "config.json"
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"vocab_size": 64, "max_position_embeddings": 32, "num_key_value_heads": 2, "sliding_window": 16}
    path.write_text(json.dumps({"model_type": "mistral", **shape}))
    words = ("plan", "--model", str(path), "--cluster", "cpu-2", "--devices", "1", "--global-batch", "2")
    code, _, err = run(capsys, *words, "--json", "--target", target)
    said = " ".join(err.split())
    assert code == 0 and "mistral has a sliding window of 16 tokens" in said
    assert ("`cuboid launch` will refuse the plan" in said) == (target == "cuboid")
