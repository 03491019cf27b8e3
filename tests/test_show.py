"""What `list`, `info` and `system` tell."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from toy import entry, write_manifest

from sciml_hpc import benchmarks, show
from sciml_hpc.config import describe_keys
from sciml_hpc.errors import VALID, UserError
from sciml_hpc.manifest import load_manifest

pytest_plugins = ["toy_fixtures"]


@pytest.fixture
def manifest(tmp_path):
    origin = {"kind": "files", "path": "ds1", "get": "aws s3 cp s3://toys .", "seed": 5}
    published = entry() | {"origin": origin, "bytes": 4_900_000_000_000}
    published["target"] = entry()["target"] | {"direction": "max", "value": 0.9, "official": True}
    return write_manifest(tmp_path / "toys.yaml", published=published, sized=entry() | {"bytes": 123_456})


def one_space(text: str) -> str:
    return " ".join(text.split())


def test_list_shows_every_benchmark_preset_and_data_set(toy, manifest, capsys):
    assert show.print_list(manifest) == VALID
    out = one_space(capsys.readouterr().out)
    for name in benchmarks.names():
        for kind in benchmarks.classes(name):
            assert f"{kind.name}{f' --task {kind.task}' if kind.task else ''}: {kind.title}" in out
            for preset, content in kind.presets.items():
                assert f"{preset} ({content.dataset}" in out
    for name in load_manifest(manifest):
        assert name in out
    assert "toy-tiny simulated 203 train, 37 validation; size ?; eval_loss ≤ 0.02" in out
    assert "published published 203 train, 37 validation; 4.9 TB; eval_loss ≥ 0.9" in out
    assert "sized simulated 203 train, 37 validation; 123 kB; eval_loss" in out


def test_info_of_a_benchmark_shows_all_that_can_be_set(toy, capsys):
    assert show.print_info("toy", None) == VALID
    out = one_space(capsys.readouterr().out)
    assert "toy: Toy: linear regression" in out
    assert "What is the slope?" in out
    assert "citation: C. F. Gauss" in out
    for key, default, meaning in describe_keys(toy):
        assert f"{key} ({default}): {meaning}" in out
    assert "small toy-small: global_batch=64, epochs=2" in out


def test_info_of_a_benchmark_shows_published_figures(capsys):
    show.print_info("cloudmask", None)
    out = one_space(capsys.readouterr().out)
    for kind in benchmarks.classes("cloudmask"):
        for figure in kind.published:
            assert one_space(f"{figure.what}: {figure.value} ({figure.source})") in out


def test_info_of_a_data_set(manifest, capsys):
    assert show.print_info("published", manifest) == VALID
    out = one_space(capsys.readouterr().out)
    assert "data set published, version 1, for toy" in out
    assert "origin published files in ds1" in out
    assert "get it with aws s3 cp s3://toys ." in out
    assert "seed 5" in out
    assert "size 4.9 TB" in out
    assert "target eval_loss ≥ 0.9 (official: noise² is 0.01)" in out
    assert "index SHA-256 recorded at preparation" in out
    assert "licence none" in out
    show.print_info("toy-tiny", manifest)
    out = one_space(capsys.readouterr().out)
    assert "origin the embedded simulator" in out
    assert "parameters the simulator's defaults" in out
    assert "(declared: noise² is 0.01)" in out


def test_lines_fit_a_terminal(toy, manifest, capsys):
    show.print_list(manifest)
    for name in (*benchmarks.names(), *load_manifest(manifest)):
        show.print_info(name, manifest)
    lines = capsys.readouterr().out.splitlines()
    # a command is not broken, so that it can be copied
    assert [line for line in lines if len(line) > show.WIDTH and not line.startswith("get it with")] == []


def test_an_unknown_name():
    with pytest.raises(UserError, match=r"no benchmark or data set is called 'unno' \(did you mean 'uno'\?\)"):
        show.print_info("unno", None)


@pytest.mark.parametrize(
    ("built", "said"),
    [({"mpi"}, "0.28.1, built with mpi"), ({"mpi", "nccl", "cuda"}, "0.28.1, built with mpi, nccl, cuda")],
)
def test_what_horovod_was_built_with(monkeypatch, built: set[str], said: str):
    names = ("mpi", "nccl", "gloo", "ddl", "ccl", "cuda", "rocm")
    torch = SimpleNamespace(**{f"{name}_built": (lambda name=name: name in built) for name in names})
    monkeypatch.setitem(sys.modules, "horovod", SimpleNamespace(torch=torch, __version__="0.28.1"))
    monkeypatch.setitem(sys.modules, "horovod.torch", torch)
    assert show.horovod_build() == said


def test_without_horovod(monkeypatch):
    monkeypatch.setitem(sys.modules, "horovod", None)
    assert show.horovod_build().startswith("not usable with torch (")


def test_system_is_this_nodes(capsys):
    import os
    import socket

    assert show.print_system() == VALID
    out = capsys.readouterr().out
    assert "Horovod: " in out
    assert socket.gethostname() in out
    assert os.uname().release in out
