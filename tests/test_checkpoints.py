"""Checkpoints that are damaged, of other programs or of other versions: each is told, and none predicts."""

import pickle
import zipfile

import numpy as np
import pytest
import torch
from test_fit import RECIPE, equal

from metaseg_nb.inference.ensemble import load_ensemble
from metaseg_nb.inference.sliding_window import predict_probability
from metaseg_nb.machine import versions
from metaseg_nb.training import checkpoints
from metaseg_nb.training.checkpoints import load_checkpoint, save_checkpoint
from metaseg_nb.training.networks import NETWORKS, build_network

CPU = torch.device("cpu")


@pytest.fixture
def content(tiny_training):
    """What a small best.pt holds."""
    weights = build_network("unet", 0.125, 32).state_dict()
    return {"identity": {"settings": tiny_training().model_dump(), "recipe": RECIPE}, "network": weights}


@pytest.fixture
def path(tmp_path, content):
    save_checkpoint(tmp_path / "fold0/best.pt", content)
    return tmp_path / "fold0/best.pt"


def flipped(raw, place, bit):
    return raw[:place] + bytes([raw[place] ^ 1 << bit]) + raw[place + 1 :]


def damages(raw):
    """Single bits, zeroed pages, and bits of the directory at the end, which no checksum of a member covers."""
    rng = np.random.default_rng(0)
    for first_byte in (0, len(raw) - 9000):
        for place, bit in rng.integers((first_byte, 0), (len(raw), 8), size=(200, 2)):
            yield flipped(raw, place, bit)
    for first in 4096 * rng.integers(len(raw) // 4096, size=60):
        yield raw[:first] + bytes(4096) + raw[first + 4096 :]


def test_damage_anywhere_in_a_file_is_noticed_or_changes_nothing(path, content):
    noticed = 0
    for raw in damages(path.read_bytes()):
        path.write_bytes(raw)
        try:
            assert equal(load_checkpoint(path), content)
        except ValueError as error:
            assert str(path) in str(error)
            noticed += 1
    assert noticed > 300


def test_a_tensor_that_is_marked_as_a_folder_is_noticed(path):
    raw = path.read_bytes()
    entry = raw.rindex(b"PK\x01\x02", 0, raw.rindex(b"data/3PK"))
    path.write_bytes(flipped(raw, entry + 38, 4))  # torch reads zeros then
    with pytest.raises(ValueError, match="not a complete checkpoint of this workbook"):
        load_checkpoint(path)


class Net(torch.nn.Module):
    def forward(self, x):
        return x


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "not a checkpoint")


OTHERS = {
    "nnU-Net": lambda path: torch.save({"network_weights": {"w": torch.ones(2)}, "init_args": {}}, path),
    "Lightning": lambda path: torch.save({"state_dict": {"w": torch.ones(2)}, "epoch": 3}, path),
    "weights alone": lambda path: torch.save(build_network("unet", 0.125, 32).state_dict(), path),
    "weights as network": lambda path: torch.save({"network": {"w": torch.ones(2)}}, path),
    "a module as network": lambda path: torch.save({"identity": {"settings": {}, "recipe": {}}, "network": "w"}, path),
    "a tensor": lambda path: torch.save(torch.ones(2), path),
    "a whole module": lambda path: torch.save(Net(), path),
    "TorchScript": lambda path: torch.jit.trace(Net(), torch.ones(1)).save(str(path)),
    "before zip": lambda path: torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=False),
    "pickle": lambda path: path.write_bytes(pickle.dumps({"w": 1})),
    "safetensors": lambda path: path.write_bytes((2).to_bytes(8, "little") + b"{}"),
    "zip": zipped,
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("other", OTHERS)
def test_a_file_of_another_program_is_told_as_such(tmp_path, other):
    path = tmp_path / "model.pt"
    OTHERS[other](path)
    with pytest.raises(
        ValueError, match=r"model\.pt: no.* checkpoint of this workbook.*Give the best\.pt of a run"
    ) as told:
        load_ensemble(path, CPU)
    assert len(str(told.value).splitlines()) == 1


def test_a_checkpoint_that_does_not_say_how_images_were_prepared_is_refused(path, content):
    save_checkpoint(path, content | {"identity": {"settings": {}}})
    with pytest.raises(ValueError, match=r"no.* checkpoint of this workbook.*Give"):
        load_checkpoint(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_do_not_predict(path, content, value):
    content["network"][name := next(iter(content["network"]))][0] = value
    save_checkpoint(path, content)
    with pytest.raises(ValueError, match=rf"best\.pt: weights that are not finite in 1 of \d+ tensors, such as {name}"):
        load_ensemble(path, CPU)


def test_probabilities_that_are_no_numbers_are_an_error_that_names_the_checkpoint(path, content, monkeypatch):
    class Spoilt(torch.nn.Module):
        def forward(self, x):
            return x * float("nan")

    monkeypatch.setitem(NETWORKS, "unet", lambda width, patch_size, in_channels: Spoilt())
    save_checkpoint(path, content | {"network": {}})
    ensemble = load_ensemble(path, CPU)
    image, reach = np.ones((1, 32, 32, 32), np.float32), np.ones((32, 32, 32), bool)
    with pytest.raises(FloatingPointError, match="probabilities that are not finite"):
        predict_probability(ensemble.networks[0], image, reach, ensemble.settings, CPU)
    with pytest.raises(ValueError, match=r"fold0/best\.pt: the network gives probabilities that are not finite"):
        ensemble.probability(image, reach, CPU)


def test_weights_of_another_network_than_described_are_told_with_the_versions(path, content):
    weights = build_network("segresnet", 0.125, 32).state_dict()
    save_checkpoint(path, content | {"network": weights, "versions": versions() | {"monai": "1.3.0"}})
    with pytest.raises(ValueError, match=r"best\.pt: weights that do not fit.*made with monai 1\.3\.0 \(here") as told:
        load_ensemble(path, CPU)
    assert len(str(told.value)) < 600


# Versions


def test_versions_that_differ_are_told_when_predicting(path, content, monkeypatch):
    then = {
        "commit": "1234",
        "python": "3.11.0",
        "torch": "2.9.0+cpu",
        "monai": "1.5.0",
        "numpy": "2.0",
        "simpleitk": "2",
    }
    save_checkpoint(path, content | {"versions": then})
    now = then | {"commit": "9999", "torch": "2.13.0+cu130", "monai": "1.6.1"}
    monkeypatch.setattr(checkpoints, "versions", lambda: now)
    assert "made with torch 2.9.0+cpu (here 2.13.0+cu130), monai 1.5.0 (here 1.6.1)" in str(load_ensemble(path, CPU))
    monkeypatch.setattr(checkpoints, "versions", lambda: then | {"commit": "9999", "torch": "2.9.0+cu130"})
    assert "made with" not in str(load_ensemble(path, CPU))
