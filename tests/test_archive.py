"""The archive holds what a reader needs, says so with hashes, and is the same bytes each time."""

import hashlib
import json
import zipfile

import pytest
from support.finished_runs import finish

from pointseg.lab.archive import METADATA, archive
from pointseg.structures import InputError


def test_every_file_has_its_hash_and_every_run_is_an_action(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    run = finish(tmp_path, "as-full", {"val": {"voc_mAP50_11pt": 50.0}})
    smoke = tmp_path / "runs" / "smoke" / "x" / "s0"
    smoke.mkdir(parents=True)
    (smoke / "result.json").write_text("{}")
    first, second = tmp_path / "a.zip", tmp_path / "b.zip"
    lines = archive(first, tmp_path / "runs")
    archive(second, tmp_path / "runs")
    assert first.read_bytes() == second.read_bytes()
    assert lines[1] == f"sha256 {hashlib.sha256(first.read_bytes()).hexdigest()}"
    with zipfile.ZipFile(first) as file:
        graph = {each["@id"]: each for each in json.loads(file.read(METADATA))["@graph"]}
        names = set(file.namelist()) - {METADATA}
        assert {each["@id"] for each in graph["./"]["hasPart"]} == names
        for name in names:
            assert graph[name]["sha256"] == hashlib.sha256(file.read(name)).hexdigest()
    assert {"constraints.txt", "book/claims.yml", f"runs/{run.id}/result.json"} <= names
    assert not [name for name in names if "smoke/" in name or "__pycache__" in name]
    action = graph[f"#{run.id}"]
    assert {each["@id"] for each in action["result"]} <= names and action["object"]["@id"] in names


def test_a_run_that_has_not_ended_well_is_not_published(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    finish(tmp_path, "as-full", {}, status="crashed")
    with pytest.raises(InputError, match="not finished: attentionshift/as-full/s0"):
        archive(tmp_path / "a.zip", tmp_path / "runs")
    assert not (tmp_path / "a.zip").exists()
