from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

from fastmtl import doctor
from fastmtl.backends import native, triton
from tests.conftest import running_on

CLEAN = ("OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES", "CXX")


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine of four cores, without a GPU, on which everything is there."""
    for name in CLEAN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(native, "why_not", lambda device: "" if device == "cpu" else "no driver")
    monkeypatch.setattr(native, "isa", lambda: "avx2")
    monkeypatch.setattr(doctor, "_agree", lambda: True)
    monkeypatch.setattr(doctor, "cores", lambda: 4)
    monkeypatch.setattr(doctor, "_DRIVERS", ())
    monkeypatch.setattr(doctor, "_version", lambda package: "1.0")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 0.5, 0.5), raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    return monkeypatch


def finding(name):
    return next(each for each in doctor.examine() if each.name == name)


def test_nothing_is_wrong():
    findings = doctor.examine()
    assert {each.state for each in findings} == {"ok"}
    assert doctor.healthy(findings)


@pytest.mark.parametrize("compiler", ["/usr/bin/c++", None])
def test_no_native_core(machine, compiler):
    machine.setattr(native, "why_not", lambda device: "fastmtl._cpu is not built")
    machine.setattr(shutil, "which", lambda name: compiler)
    found = finding("CPU kernels")
    assert found.state == "wrong"
    assert "fastmtl._cpu is not built" in found.text
    assert ("no C++ compiler" in found.text) is (compiler is None)
    assert "reinstall" in found.advice
    assert ("install g++" in found.advice) is (compiler is None)


def test_sources_that_hide_the_native_core(machine):
    machine.setattr(native, "why_not", lambda device: "fastmtl._cpu is not in /checkout/fastmtl")
    machine.setattr(native, "hidden", lambda: "/site-packages/fastmtl/_cpu.so")
    assert finding("CPU kernels").advice.startswith("start Python in another directory")


def test_kernels_that_disagree_or_are_plain(machine):
    machine.setattr(native, "isa", lambda: "plain")
    assert finding("CPU kernels").state == "note"
    machine.setattr(doctor, "_agree", lambda: False)
    assert finding("CPU kernels").state == "wrong"


def test_kernels_are_compared_for_real(machine):
    machine.undo()
    with running_on("native"):
        pass
    assert doctor._agree()
    machine.setattr(torch, "allclose", lambda a, b, rtol: torch.equal(a + 1, b))
    assert not doctor._agree()


@pytest.mark.parametrize(("threads", "state"), [(8, "wrong"), (1, "note"), (2, "ok"), (4, "ok")])
def test_threads(machine, threads, state):
    machine.setattr(torch, "get_num_threads", lambda: threads)
    found = finding("threads")
    assert (found.state, f"{threads} on 4 cores" in found.text) == (state, True)
    assert ("OMP_NUM_THREADS=4" in found.advice) is (state != "ok")


def test_cores_are_those_of_the_container(machine, tmp_path):
    machine.undo()
    quota = tmp_path / "cpu.max"
    machine.setattr(doctor, "_QUOTA", quota)
    most = doctor.cores()
    assert 1 <= most <= (os.cpu_count() or 1)
    for text, expected in (("max 100000\n", most), ("100000 100000\n", 1), ("20000 100000\n", 1)):
        quota.write_text(text)
        assert doctor.cores() == expected


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no load average")
def test_load(machine):
    machine.setattr(os, "getloadavg", lambda: (99.0, 0.0, 0.0))
    assert (finding("load").state, "passive" in finding("load").advice) == ("note", True)
    machine.setenv("OMP_WAIT_POLICY", "passive")
    assert finding("load").state == "ok"


def test_a_driver_and_no_gpu(machine, tmp_path):
    machine.setattr(doctor, "_DRIVERS", (str(tmp_path),))
    assert (finding("GPU").state, "built without CUDA" in finding("GPU").text) == ("wrong", True)
    machine.setattr(torch.version, "cuda", "13.0")
    assert (finding("GPU").state, "sees no device" in finding("GPU").text) == ("wrong", True)
    machine.setenv("CUDA_VISIBLE_DEVICES", "")
    assert finding("GPU").state == "note"


def test_cuda_that_is_of_no_use(machine):
    machine.setattr(torch.version, "cuda", "13.0")
    found = finding("GPU")
    assert (found.state, "whl/cpu" in found.advice) == ("note", True)


def test_kernels_of_a_gpu(machine):
    machine.setattr(torch.cuda, "is_available", lambda: True)
    machine.setattr(torch.cuda, "get_device_name", lambda: "H200")
    machine.setattr(triton, "why_not", lambda device: "triton is not installed")
    assert (finding("GPU").state, "plain PyTorch" in finding("GPU").text) == ("wrong", True)
    machine.setattr(triton, "why_not", lambda device: "")
    assert (finding("GPU").state, "Triton" in finding("GPU").text) == ("note", True)
    for build, found in (("", False), ("CUDA 12.9 for 8.0", True)):
        machine.setattr(native, "cuda_build", lambda build=build: build)
        assert ("newer NVIDIA driver" in finding("GPU").advice) is found
    machine.setattr(native, "why_not", lambda device: "")
    assert finding("GPU").state == "ok"


def test_what_is_not_installed(machine):
    machine.setattr(doctor, "_version", lambda package: "" if package == "scipy" else "1.0")
    machine.setattr(shutil, "which", lambda name: None)
    assert finding("statistics").state == finding("torch.compile").state == "note"
    assert "fastmtl-torch[statistics]" in finding("statistics").advice
    assert finding("onnx").state == "ok"


def test_the_extras_are_those_of_the_package():
    text = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    for name, (packages, _) in doctor.EXTRAS.items():
        line = re.search(rf"^{name} = \[(.*)\]$", text, re.M)[1]
        assert tuple(re.findall(r'"([\w-]+)>=', line)) == packages
