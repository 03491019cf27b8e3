"""Node-local storage: where it is, and the directory in it that a run has for itself or that is kept between runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil

from sciml_hpc.errors import UserError

VARIABLES = ("SLURM_TMPDIR", "PBS_JOBFS", "JOBFS", "LOCALSCRATCH", "LOCAL_SCRATCH", "TMPDIR")
SHARED_FILE_SYSTEMS = {
    "lustre",
    "gpfs",
    "nfs",
    "nfs4",
    "beegfs",
    "ceph",
    "fuse.ceph",
    "cifs",
    "smb3",
    "panfs",
    "orangefs",
    "daos",
}


def find(asked: Path | None, environment: Mapping[str, str] = os.environ) -> tuple[Path, str]:
    """Node-local storage and how it was found: `--scratch`, else the first usable variable, else /tmp.

    A directory on a shared file system is passed over unless it was asked for. Raises UserError if what was asked for
    cannot be used.
    """
    candidates = [(asked, "--scratch")] if asked else []
    if not asked:
        candidates = [(Path(environment[v]), f"${v}") for v in VARIABLES if environment.get(v)]
        candidates.append((Path("/tmp"), "default"))
    for path, how in candidates:
        kind = file_system(path)
        if path.is_dir() and os.access(path, os.W_OK | os.X_OK) and (asked or kind not in SHARED_FILE_SYSTEMS):
            shared = ", a shared file system" if kind in SHARED_FILE_SYSTEMS else ""
            return path, f"{path} ({how}, {kind}{shared})"
    tried = ", ".join(f"{path} ({how})" for path, how in candidates)
    raise UserError(f"no writable node-local directory: tried {tried}; give one with --scratch DIR")


def file_system(path: Path) -> str:
    """Type of the file system that holds `path` ("ext4", "tmpfs", "lustre", …); "unknown" if it cannot be told."""
    best, kind = "", "unknown"
    real = str(path.resolve())
    for part in psutil.disk_partitions(all=True):
        mount = part.mountpoint
        if (real == mount or real.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(best):
            best, kind = mount, part.fstype
    return kind


def base(root: Path, host: str) -> Path:
    """Directory below which this user has data on a node, kept data sets by name."""
    return root / f"sciml_hpc-{os.getuid()}-{host}"


class RunDirectory:
    """A directory of this run alone, locked as long as the process lives: so others can tell what a killed run left."""

    def __init__(self, below: Path) -> None:
        while True:
            with contextlib.suppress(FileNotFoundError):  # another run has just tidied up: once more
                below.mkdir(mode=0o700, exist_ok=True)
                self.path = Path(tempfile.mkdtemp(prefix="run-", dir=below))
                self._lock = os.open(self.path, os.O_RDONLY)
                with contextlib.suppress(OSError):  # a file system without locks: what killed runs leave stays
                    fcntl.flock(self._lock, fcntl.LOCK_SH)
                if self.path.exists():
                    return
                os.close(self._lock)

    def remove(self) -> None:
        """Remove it, and the directory it is in if nothing else is."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()


def enter(below: Path) -> None:
    """Make the user's directory on this node, and remove what killed runs left in it.

    Raises UserError if it is there and another user's.
    """
    below.mkdir(mode=0o700, exist_ok=True)
    if below.is_symlink() or below.stat().st_uid != os.getuid():
        raise UserError(f"{below} belongs to somebody else; give another directory with --scratch DIR")
    for left in below.glob("run-*"):
        with contextlib.suppress(OSError):
            lock = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)
