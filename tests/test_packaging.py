"""What packages are made by says what pyproject.toml says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# What conda calls packages that have another name on PyPI.
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


def notes(version: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / ".ci/notes"), version]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_notes_of_a_version_are_its_section_of_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    version = PROJECT["project"]["version"]
    of_version = notes(version).stdout
    assert of_version.strip() in changelog
    assert changelog.index(version) < changelog.index(of_version)
    unreleased = notes("Unreleased").stdout
    assert unreleased.strip() in changelog
    assert of_version not in unreleased
    assert "\n## " not in unreleased + of_version


def test_a_version_without_notes_is_named() -> None:
    failed = notes("9.9")
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert failed.stderr == "version: expected one of Unreleased, 0.1.0, got '9.9'\n"


def test_the_version_is_the_same_everywhere() -> None:
    version = PROJECT["project"]["version"]
    recipe = (ROOT / "packaging/conda/recipe.yaml").read_text()
    assert f'version: "{version}"' in recipe
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_recipe_asks_for_what_the_package_asks_for() -> None:
    yaml = pytest.importorskip("yaml")
    requirements = yaml.safe_load((ROOT / "packaging/conda/recipe.yaml").read_text())[
        "requirements"
    ]

    def asked(names: list[str]) -> set[str]:
        """Names with their oldest version, those with a condition too."""
        found = set()
        for each in names:
            name, version = re.match(r"([\w-]+)\s*>=([\d.]+)", each).groups()
            found.add(f"{CONDA.get(name, name)} >={version}")
        return found

    run = [each["then"] if isinstance(each, dict) else each for each in requirements["run"]]
    wanted = asked(PROJECT["project"]["dependencies"])
    assert set(run) - {f"python {PROJECT['project']['requires-python']}"} == wanted
    built = asked([each for each in PROJECT["build-system"]["requires"] if ">=" in each])
    assert built <= {*requirements["host"], *requirements["build"]}


def test_the_recipe_has_the_pythons_and_the_c_library_of_the_wheels() -> None:
    yaml = pytest.importorskip("yaml")
    variants = yaml.safe_load((ROOT / "packaging/conda/variants.yaml").read_text())
    wheels = PROJECT["tool"]["cibuildwheel"]
    pythons = [f"cp{version.replace('.', '')}-*" for version in variants["python"]]
    assert " ".join(pythons) == wheels["build"]
    oldest = variants["c_stdlib_version"][0]["then"].replace(".", "_")
    assert wheels["manylinux-x86_64-image"] == f"manylinux_{oldest}"


def test_wheels_for_linux_have_the_cuda_kernels() -> None:
    wheels = PROJECT["tool"]["cibuildwheel"]
    asked = {**wheels["environment"], "FASTMTL_CUDA": "on"}
    linux = wheels["linux"]["environment"]
    assert linux == {**asked, "CUDA_HOME": linux["CUDA_HOME"]}
    version = linux["CUDA_HOME"].removeprefix("/usr/local/cuda-").replace(".", "-")
    assert wheels["linux"]["before-all"][-1].endswith(f" cuda-minimal-build-{version}")
    assert "fastmtl._cuda" in wheels["linux"]["test-command"]


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_an_image_is_built_of_what_is_sent_to_docker(name: str) -> None:
    dockerfile = (ROOT / f"packaging/docker/{name}.Dockerfile").read_text()
    sent = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    ]
    assert all((ROOT / each).exists() for each in sent)
    # All that a build from the sdist has, and what pyproject.toml names.
    included = set(
        re.findall(r"^(?:include|graft) (.*)$", (ROOT / "MANIFEST.in").read_text(), re.M)
    )
    assert set(" ".join(included).split()) | {"fastmtl", "setup.py", "README.md"} <= set(sent)
    assert "FASTMTL_NATIVE=on" in dockerfile
    assert ("FASTMTL_CUDA=on" in dockerfile) == (name == "cuda")


def test_what_make_wheel_uses_is_pinned() -> None:
    for line in (ROOT / "packaging/requirements.txt").read_text().splitlines():
        assert re.match(r"#|[\w-]+==[\d.]+", line)
