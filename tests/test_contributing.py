"""The steps of CONTRIBUTING for a network and a cohort layout; those for a metric are in test_cross_validation."""

import ast
import importlib
import re
import tomllib
from pathlib import Path

import pytest
import torch
import yaml

from metaseg_nb.cohort.sources import folders, read_cohort
from metaseg_nb.cohort.sources.layouts import CaseFiles, Found, Layout
from metaseg_nb.layout import PROJECT, RunLayout, parameter_file
from metaseg_nb.parameters import model_title, resolve
from metaseg_nb.training import networks
from metaseg_nb.training.checkpoints import load_checkpoint
from metaseg_nb.training.fit import fit
from metaseg_nb.training.patches import PatchBatches


def test_a_network_of_ones_own(store_blobs, tiny_training, tmp_path, monkeypatch):
    def one_layer(width, patch_size, in_channels):
        return torch.nn.Sequential(torch.nn.Conv3d(in_channels, 1, 3, padding=1))

    # steps 1 and 2: the function, and its output layers
    for table in ("NETWORKS", "OUTPUT_LAYERS"):
        monkeypatch.setattr(networks, table, {**getattr(networks, table)})
    networks.register(output_layers=r"0\.")(one_layer)
    # steps 3 and 4: a copy of unet.yaml, and a line of the study
    copied = parameter_file("model", "unet").read_text()
    for key, value in {"model": "mine", "title": "Mine", "network": "one_layer"}.items():
        copied = re.sub(rf"^{key}: .*", f"{key}: {value}", copied, flags=re.MULTILINE)
    monkeypatch.setattr("metaseg_nb.layout.PARAMS", tmp_path)
    for folder, text in {"models": copied, "studies": "study: mine\nmodels: [mine]"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").write_text(text)
    # step 5: 03 trains it, and 04 compares it
    found = resolve("03_train", "mine", "mine", 0)
    settings = tiny_training(**{key: found[key] for key in ("model", "title", "network", "width")}, epochs=1)
    batches = PatchBatches([store_blobs(f"case{i}", seed=i) for i in range(2)], settings)
    history = fit(RunLayout(tmp_path / "mine/fold0"), batches, lambda network: 0.5)
    assert history["epoch"].tolist() == [1]
    assert load_checkpoint(tmp_path / "mine/fold0/last.pt")["identity"]["settings"]["network"] == "one_layer"
    assert [model_title(model) for model in resolve("04_cross_validation", "mine")["models"]] == ["Mine"]
    network = networks.build_network(found["network"], found["width"], 32)
    networks.start_at_prior(network)
    logits = network(torch.zeros(1, 1, 32, 32, 32))
    assert logits.shape == (1, 1, 32, 32, 32)
    assert torch.sigmoid(logits).mean().item() == pytest.approx(networks.LESION_PRIOR, rel=1e-3)


def test_the_readme_is_short_and_the_version_is_the_same_everywhere():
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").splitlines()) <= 100
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))
    released = re.search(
        r"^## (\d\S*) \((\S+)\)$", (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert released and released.groups() == (version, str(citation["date-released"]))
    assert citation["version"] == version


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


@pytest.mark.parametrize("thing", ["network", "metric", "cohort layout"])
def test_what_can_be_added_takes_five_steps(thing):
    text = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    steps = text.split(f"## Add a {thing}\n")[1].split("\n## ")[0]
    assert re.findall(r"^(\d)\. ", steps, re.MULTILINE) == list("12345")


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
