"""The code as one archive whose bytes depend on the code alone: the same from a checkout and when installed."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import sciml_hpc

_LEFT_OUT = {"_commit", "datasets.yaml"}
"""Written at installation: the commit, and the manifest, which a checkout has beside the package."""


def archive() -> bytes:
    """A tar file (ustar, sorted, without times and owners) of the package and its manifest; well under 10 MB."""
    package = Path(sciml_hpc.__file__).parent
    files = {f"sciml_hpc/{name}": package / name for name in _files(package) if name not in _LEFT_OUT}
    for manifest in (package / "datasets.yaml", package.parent / "datasets.yaml"):
        if manifest.is_file():
            files["datasets.yaml"] = manifest
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, path in sorted(files.items()):
            content = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def sha256() -> str:
    """SHA-256 of `archive()`: identifies the code of a run, with or without a repository (about 20 ms, on one rank)."""
    return hashlib.sha256(archive()).hexdigest()


def _files(package: Path) -> list[str]:
    found = (p.relative_to(package) for p in package.rglob("*") if p.is_file())
    return [str(p) for p in found if "__pycache__" not in p.parts and p.suffix not in (".pyc", ".so")]
