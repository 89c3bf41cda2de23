"""Reading checkpoints without running what they say.

torch.distributed.checkpoint reads tensors with `weights_only`, but the index of a checkpoint with plain
pickle, which can call anything. Here the index may name only the types that an index of tensors consists of.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

_MODULES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
_NAMES = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("collections", "OrderedDict"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        dtype = module == "torch" and name.islower() and not name.startswith("_") and name in _DTYPES
        own = module in _MODULES and name.lstrip("_")[:1].isupper() and "." not in name
        if own or dtype or (module, name) in _NAMES:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"the index names {module}.{name}, which no checkpoint of tensors needs")


_DTYPES = {f"{kind}{bits}" for kind in ("float", "int", "uint") for bits in (8, 16, 32, 64)} | {
    "bfloat16",
    "bool",
}


class TensorReader(FileSystemReader):
    """A `FileSystemReader` for checkpoints that hold only tensors."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return the index.

        Raises:
            ValueError: when it holds anything but tensors.
        """
        with (Path(self.path) / ".metadata").open("rb") as stream:
            try:
                metadata = _Unpickler(stream).load()
            except pickle.UnpicklingError as error:
                raise ValueError(str(error)) from None
        if not isinstance(metadata, Metadata) or not all(
            isinstance(entry, TensorStorageMetadata) for entry in metadata.state_dict_metadata.values()
        ):
            raise ValueError("the index holds something other than tensors")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata
