"""A stand-in for the trainer: keeps the launcher's contract in a few milliseconds, without torch.

Steps are sleeps; the loss is a chain of numbers that depends on every step, so a resumed run ends with the
same last loss only if no step was lost or done twice. Variables TEST_… say how to misbehave.
"""

import argparse
import json
import os
import pathlib
import signal
import sys
import time

import yaml

parser = argparse.ArgumentParser()
parser.add_argument("--job")
parser.add_argument("--run", type=pathlib.Path)
parser.add_argument("--resume", action="store_true")
arguments = parser.parse_args()
run = arguments.run
job = yaml.safe_load(pathlib.Path(arguments.job).read_text())
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
asked = []
signal.signal(signal.SIGUSR1, lambda number, frame: asked.append("SIGUSR1"))
signal.signal(signal.SIGTERM, lambda number, frame: asked.append("SIGTERM"))


def event(name, **fields):
    if rank == 0:
        with (run / "events.jsonl").open("a") as stream:
            stream.write(json.dumps({"time": time.time(), "event": name, **fields}) + "\n")


def save(step, loss):
    if rank == 0:
        folder = run / "checkpoints" / f"step-{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "loss").write_text(repr(loss))
        (folder / "complete").write_text("")
        event("checkpoint", step=step)


def newest():
    steps = sorted(p.parent for p in run.glob("checkpoints/step-*/complete"))
    return (int(steps[-1].name[5:]), float((steps[-1] / "loss").read_text())) if steps else (0, 1.0)


print(f"rank {rank} of {world} on {os.uname().nodename}, MASTER {os.environ.get('MASTER_ADDR')}", flush=True)
for name in sorted(os.environ):
    if name.startswith(("NCCL_", "GLOO_", "TEST_")):
        print(f"{name}={os.environ[name]}", flush=True)
if os.environ.get("TEST_EXIT"):
    sys.exit(int(os.environ["TEST_EXIT"]))
step, loss = newest() if arguments.resume else (0, 1.0)
event("resumed" if arguments.resume else "started", step=step)
done = 0
every = (job.get("checkpoint") or {}).get("every_steps")
while step < job["steps"]:
    time.sleep(float(os.environ.get("TEST_STEP_SECONDS", "0.05")))
    step += 1
    loss = (loss * 1.0001 + step) % 7.0
    if rank == 0:
        metrics = {"step": step, "loss": loss, "step_seconds": 0.05, "tokens_per_second": 1.0}
        metrics |= {"grad_norm": 1.0, "learning_rate": 1.0, "model_flops_per_device": 1.0, "peak_bytes": 1}
        with (run / "metrics.jsonl").open("a") as stream:
            stream.write(json.dumps(metrics) + "\n")
    if asked or (run / "STOP").exists():
        save(step, loss)
        event("stopped", step=step, reason="STOP" if (run / "STOP").exists() else asked[0])
        sys.exit(0)
    if every and step % every == 0:
        save(step, loss)
    done += 1
    if rank == 0 and os.environ.get("TEST_FAIL_AFTER") == str(done):  # it saves, so there is progress
        raise RuntimeError("as the test asked")
save(step, loss)
event("finished", step=step)
