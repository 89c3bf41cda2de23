"""What SLURM's job states mean for a run."""

from __future__ import annotations

from typing import Literal

Phase = Literal["waiting", "running", "ending", "finished", "failed", "cancelled", "unknown"]

# Every state of the job_states documentation (base states and flags), with the phase of the run and words.
STATES: dict[str, tuple[Phase, str]] = {
    "PENDING": ("waiting", "waits in the queue"),
    "CONFIGURING": ("waiting", "has its nodes, which are getting ready"),
    "POWER_UP_NODE": ("waiting", "waits for nodes that are being powered up"),
    "REQUEUED": ("waiting", "goes back to the queue"),
    "REQUEUE_FED": ("waiting", "goes back to the queue of the federation"),
    "REQUEUE_HOLD": ("waiting", "is held after a requeue; release it with scontrol release"),
    "RESV_DEL_HOLD": ("waiting", "is held because its reservation was deleted"),
    "SPECIAL_EXIT": ("waiting", "is held after a special exit; release it with scontrol release"),
    "RUNNING": ("running", "runs"),
    "RESIZING": ("running", "is changing its size"),
    "SIGNALING": ("running", "is being signalled"),
    "SUSPENDED": ("running", "is suspended: its processes are stopped"),
    "STOPPED": ("running", "is stopped but keeps its nodes"),
    "COMPLETING": ("ending", "is ending: processes or the epilogue are still active"),
    "STAGE_OUT": ("ending", "writes its burst buffer out"),
    "COMPLETED": ("finished", "ended with exit code 0"),
    "CANCELLED": ("cancelled", "was cancelled"),
    "REVOKED": ("cancelled", "was taken over by another cluster of the federation"),
    "PREEMPTED": ("failed", "was pre-empted"),
    "FAILED": ("failed", "ended with a non-zero exit code"),
    "TIMEOUT": ("failed", "hit its time limit"),
    "DEADLINE": ("failed", "hit its deadline"),
    "NODE_FAIL": ("failed", "lost a node"),
    "OUT_OF_MEMORY": ("failed", "was killed for using too much memory"),
    "BOOT_FAIL": ("failed", "could not boot its nodes"),
    "LAUNCH_FAILED": ("failed", "could not be launched on its nodes"),
    "RECONFIG_FAIL": ("failed", "could not reconfigure its nodes"),
}


def phase_of(state: str) -> tuple[Phase, str]:
    """Return the phase and the words of a state as SLURM prints it (`CANCELLED by 1000`, `CANCELLED+`)."""
    words = state.split()
    name = words[0].rstrip("+") if words else ""
    return STATES.get(name, ("unknown", f"is in a state that is not known here: {state or 'none'}"))
