"""What an engine compiles for a network, kept on disk between starts.

A folder holds what belongs to one network, engine, precision, size and driver: after a change of
any of them another folder is used. The digests of its files are kept, so that an engine is never
given a damaged one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from ros2_pose.weights import cache_dir, sha256_of

log = logging.getLogger(__name__)

_SEAL = "sha256.json"
_DRIVER_FILES = ("/proc/driver/nvidia/version", "/etc/nv_tegra_release")
_GPU_FILES = "/proc/driver/nvidia/gpus"


class EngineCache:
    """The folder of one compiled network.

    Attributes:
        folder: of its files; None if it cannot be written.
    """

    def __init__(self, graph: Path, weights: Mapping[str, torch.Tensor], engine: str,
                 variant: tuple[str, ...]):
        """Choose the folder.

        Args:
            graph: ONNX file of the network.
            weights: of the network.
            engine: its name.
            variant: precision and size.
        """
        digest = hashlib.sha256(graph.read_bytes())
        for name, value in weights.items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        for part in (engine, *variant, *_versions()):
            digest.update(part.encode() + b"\0")
        folder = cache_dir() / "engines" / f"{graph.stem}-{engine}-{digest.hexdigest()[:16]}"
        self.folder: Path | None = folder if _is_writable(folder) else None

    @property
    def is_used(self) -> bool:
        """Whether there is anything in it."""
        return self.folder is not None and bool(self._files())

    def _files(self) -> dict[str, Path]:
        """Return its files by their path within the folder, without the seal."""
        assert self.folder is not None
        return {str(path.relative_to(self.folder)): path for path in self.folder.rglob("*")
                if path.is_file() and path.name != _SEAL}

    def seal(self) -> None:
        """Note the digests of the files, which an engine has just been started from."""
        if self.folder is None:
            return
        with contextlib.suppress(OSError), \
                tempfile.NamedTemporaryFile("w", dir=self.folder, delete=False) as part:
            Path(part.name).rename(self.folder / _SEAL)
            json.dump({name: sha256_of(path) for name, path in self._files().items()}, part)

    def drop_damaged(self) -> None:
        """Remove all files if one of them is damaged or missing, and those that are not noted."""
        if self.folder is None or not self.is_used:
            return
        try:
            noted = json.loads((self.folder / _SEAL).read_text())
            files = self._files()
            is_sound = all(sha256_of(files[name]) == value for name, value in noted.items())
        except (OSError, ValueError, KeyError, AttributeError):
            is_sound = False
        if not is_sound:
            log.warning("the engine cache %s is damaged or incomplete: made anew", self.folder)
            self.drop()
            return
        for name in files.keys() - noted.keys():
            files[name].unlink(missing_ok=True)

    def drop(self) -> None:
        """Remove all files."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = self.folder if _is_writable(self.folder) else None


def _is_writable(folder: Path) -> bool:
    """Create a folder; return False, and log it, if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("no engine cache: %s (%s); each start compiles anew", folder, error.strerror)
        return False
    return os.access(folder, os.W_OK)


def _versions() -> list[str]:
    """Return the versions of ONNX Runtime and of the driver, and the names of the GPUs."""
    import onnxruntime
    found = [onnxruntime.__version__]
    for path in (*map(Path, _DRIVER_FILES), *sorted(Path(_GPU_FILES).glob("*/information"))):
        with contextlib.suppress(OSError):
            found.append(path.read_text(errors="replace"))
    return found
