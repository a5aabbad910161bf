"""pyproject.toml, environment.yml and constraints.txt must tell one story."""

import os
import re
import subprocess
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

FIXED = "torch timm jupyterlab jupytext papermill matplotlib ipywidgets pycocotools nbval".split()


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    return {canonical(n): v for n, v in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.M)}


def disagreements(project: dict, environment: dict, constraints: str) -> list[str]:
    """Every way in which the three files contradict each other."""
    wrong, pinned = [], pins(constraints)
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    [pip] = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    names = sorted(re.split(r"[=<>]", d)[0] for d in conda)
    if names != ["pip", "python"] or pip != [
        "-c constraints.txt",
        "-e .[all]",
    ]:
        wrong.append(
            "environment.yml must leave all but python and pip to constraints.txt "
            "and pyproject.toml"
        )
    [python] = [d.split("=")[-1] for d in conda if d.startswith("python")]
    if not SpecifierSet(project["requires-python"]).contains(python + ".0"):
        wrong.append(f"environment.yml asks for python {python}")
    extras = [
        r for k, group in project["optional-dependencies"].items() if k != "all" for r in group
    ]
    for requirement in map(Requirement, project["dependencies"] + extras):
        version = pinned.get(canonical(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wrong.append(
                f"constraints.txt has {requirement.name} {version}, "
                f"pyproject.toml wants {requirement}"
            )
    return wrong


@pytest.fixture
def files(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((root / "environment.yml").read_text())
    return project, environment, (root / "constraints.txt").read_text()


def test_the_three_files_agree(files):
    assert disagreements(*files) == []


def test_a_changed_pin_is_seen(files):
    project, environment, constraints = files
    assert disagreements(
        project, environment, re.sub(r"^timm==.*$", "timm==0.9.0", constraints, flags=re.M)
    )
    assert disagreements(
        project, environment, re.sub(r"^papermill==.*$", "", constraints, flags=re.M)
    )
    environment["dependencies"].append("numpy")
    assert disagreements(project, environment, constraints)


def test_the_extra_all_is_all(files):
    groups = files[0]["optional-dependencies"]
    assert groups["all"] == [f"pointseg[{','.join(k for k in groups if k != 'all')}]"]


def test_the_packages_of_the_project_are_declared(files):
    project, _, _ = files
    extras = [
        r for k, group in project["optional-dependencies"].items() if k != "all" for r in group
    ]
    assert set(FIXED) <= {Requirement(r).name for r in project["dependencies"] + extras}


def test_python_keeps_what_it_compiles_whatever_the_shell_says(root):
    words = ["make", "--no-print-directory", "--eval", "shown: ; @printenv PYTHONDONTWRITEBYTECODE"]
    shell = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    shown = subprocess.check_output([*words, "shown"], cwd=root, env=shell, text=True)
    assert shown.strip() == ""
