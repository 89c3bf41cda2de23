"""Topologies that others wrote: NCCL, nvidia-smi, rocm-smi, hwloc, and our own files."""
