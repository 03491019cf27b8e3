"""Node-local storage: which directory is taken, what is cleared away, and what is nobody's to touch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sciml_hpc.data import scratch
from sciml_hpc.errors import UserError


def test_scratch_is_what_was_asked_for_else_the_first_usable_variable(tmp_path, monkeypatch):
    kinds = {tmp_path / "lustre": "lustre"}
    monkeypatch.setattr(scratch, "file_system", lambda path: kinds.get(path, "ext4"))
    for name in ("asked", "slurm", "tmp", "lustre"):
        (tmp_path / name).mkdir()
    environment = {"SLURM_TMPDIR": str(tmp_path / "slurm"), "TMPDIR": str(tmp_path / "tmp")}
    assert scratch.find(tmp_path / "asked", environment) == (
        tmp_path / "asked",
        f"{tmp_path / 'asked'} (--scratch, ext4)",
    )
    assert scratch.find(None, environment)[1] == f"{tmp_path / 'slurm'} ($SLURM_TMPDIR, ext4)"
    (tmp_path / "slurm").rmdir()
    assert scratch.find(None, environment)[0] == tmp_path / "tmp"
    assert scratch.find(None, {})[1] == "/tmp (default, ext4)"
    # A shared file system is passed over, but taken if asked for, and called what it is.
    assert scratch.find(None, {"TMPDIR": str(tmp_path / "lustre")})[0] == Path("/tmp")
    assert scratch.find(tmp_path / "lustre", {})[1].endswith("lustre (--scratch, lustre, a shared file system)")
    with pytest.raises(UserError, match=r"no writable node-local directory: tried .*none \(--scratch\)"):
        scratch.find(tmp_path / "none", environment)


def test_the_type_of_a_file_system_is_the_kernels():
    assert scratch.file_system(Path("/proc/self")) == "proc"
    assert scratch.file_system(Path("/sys/kernel")) == "sysfs"


def test_what_a_killed_run_left_is_removed_but_not_what_a_living_one_has(tmp_path):
    below = tmp_path / "mine"
    scratch.enter(below)
    (below / "kept-set").mkdir()
    living = scratch.RunDirectory(below)
    (living.path / "x").touch()
    child = os.fork()
    if child == 0:
        killed = scratch.RunDirectory(below)
        (killed.path / "y").touch()
        os._exit(9)
    os.waitpid(child, 0)
    assert len(list(below.glob("run-*"))) == 2
    scratch.enter(below)
    assert list(below.glob("run-*")) == [living.path]
    living.remove()
    assert [p.name for p in below.iterdir()] == ["kept-set"]
    (below / "kept-set").rmdir()
    scratch.RunDirectory(below).remove()
    assert not below.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's directory")
def test_a_directory_of_another_user_is_not_used(tmp_path):
    (tmp_path / "base").mkdir()
    os.chown(tmp_path / "base", 12345, 12345)
    with pytest.raises(UserError, match="base belongs to somebody else"):
        scratch.enter(tmp_path / "base")
