"""Jobs on a SLURM cluster: prepared as text, shown, sent, followed."""

from launcher.slurm.submission import Submission, prepare, submit, submitted_jobs

__all__ = ["Submission", "prepare", "submit", "submitted_jobs"]
