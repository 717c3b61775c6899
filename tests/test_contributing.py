"""The steps of CONTRIBUTING for a network and a cohort layout; those for a metric are in test_cross_validation."""

import ast
import importlib
from pathlib import Path

import pytest
import torch

from metaseg_nb.cohort.sources import folders, read_cohort
from metaseg_nb.cohort.sources.layouts import CaseFiles, Found, Layout
from metaseg_nb.parameters import resolve
from metaseg_nb.training import networks


def test_a_network_of_ones_own(tmp_path, monkeypatch):
    def one_layer(width, patch_size, in_channels):
        return torch.nn.Sequential(torch.nn.Conv3d(in_channels, 1, 3, padding=1))

    for table in ("NETWORKS", "OUTPUT_LAYERS"):
        monkeypatch.setattr(networks, table, {**getattr(networks, table)})
    networks.register(output_layers=r"0\.")(one_layer)
    monkeypatch.setattr("metaseg_nb.layout.PARAMS", tmp_path)
    for folder, text in {
        "models": "model: mine\ntitle: Mine\nnetwork: one_layer",
        "studies": "study: mine\nmodels: [mine]",
    }.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").write_text(text)
    found = resolve("03_train", "mine", "mine", 0)
    network = networks.build_network(found["network"], found["width"], 32)
    networks.start_at_prior(network)
    logits = network(torch.zeros(1, 1, 32, 32, 32))
    assert logits.shape == (1, 1, 32, 32, 32)
    assert torch.sigmoid(logits).mean().item() == pytest.approx(networks.LESION_PRIOR, rel=1e-3)


BENCHMARKS = sorted((Path(__file__).parents[1] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda path: path.stem)
def test_what_a_benchmark_imports_is_there(benchmark):
    """Benchmarks are rarely run: a name that moved would be noticed months later."""
    tree = ast.walk(ast.parse(benchmark.read_text(encoding="utf-8")))
    ours = [node for node in tree if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("metaseg_nb")]
    lost = [
        name.name
        for node in ours
        for name in node.names
        if not hasattr(importlib.import_module(node.module), name.name)
    ]
    assert not lost


def scans_and_contours(folder, image_files, label_file):
    scans = sorted((folder / "scans").iterdir())
    return Found([CaseFiles(s.name[:-7], folder, ([s],), [folder / "contours" / s.name]) for s in scans])


@pytest.mark.parametrize(
    "layout",
    [
        Layout("mine", ("scans/",), images=("scans/{patient}",), label="contours/{patient}"),
        Layout("mine", ("scans/",), scans_and_contours),
    ],
    ids=["by patterns", "by a function"],
)
def test_a_cohort_layout_of_ones_own(write_nifti, tmp_path, monkeypatch, layout):
    """Images in scans/, masks in contours/, each named by its patient."""
    for patient in ("anna", "berta"):
        for place in ("scans", "contours"):
            write_nifti(f"{place}/{patient}.nii.gz", torch.zeros(4, 4, 4).numpy())
    monkeypatch.setattr(folders, "LAYOUTS", [layout, *folders.LAYOUTS])
    cohort, problems = read_cohort(str(tmp_path), base=tmp_path)
    assert [(case.name, case.image.parent.name, case.label.parent.name) for case in cohort.cases] == [
        ("anna", "scans", "contours"),
        ("berta", "scans", "contours"),
    ]
    assert problems == []
    _, problems = read_cohort(str(tmp_path), base=tmp_path, label_file="*_seg")
    assert [problem.expected for problem in problems] == ["no file patterns: the file names of mine are fixed"]
