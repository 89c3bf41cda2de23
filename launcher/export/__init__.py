"""Plans as configurations of other frameworks."""

from launcher.export.accelerate import ACCELERATE_EXPORTER
from launcher.export.deepspeed import DEEPSPEED_EXPORTER
from launcher.export.export import Export, Exporter
from launcher.export.megatron import MEGATRON_EXPORTER
from launcher.export.nanotron import NANOTRON_EXPORTER
from launcher.export.torchtitan import TORCHTITAN_EXPORTER

EXPORTERS: tuple[Exporter, ...] = (
    MEGATRON_EXPORTER,
    TORCHTITAN_EXPORTER,
    DEEPSPEED_EXPORTER,
    NANOTRON_EXPORTER,
    ACCELERATE_EXPORTER,
)

__all__ = ["EXPORTERS", "Export", "Exporter"]
