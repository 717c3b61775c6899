"""Inference: probabilities of whole volumes, masks on the grid of the image whatever its axes, Dice by hand."""

import nibabel as nib
import numpy as np
import pytest
import torch

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.volumes import read_volume
from metaseg_nb.inference.native_grid import native_mask
from metaseg_nb.inference.predict import predict_case, predict_image
from metaseg_nb.inference.selection import selection_dice
from metaseg_nb.inference.sliding_window import predict_probability
from metaseg_nb.preprocessing.case_store import open_case
from metaseg_nb.preprocessing.grid import Grid
from metaseg_nb.preprocessing.images import image_recipe
from metaseg_nb.preprocessing.prepare import prepare_case
from metaseg_nb.settings import Preprocess, resolve
from metaseg_nb.training.checkpoints import save_checkpoint
from metaseg_nb.training.networks import NETWORKS

CPU = torch.device("cpu")
SETTINGS = Preprocess.check(
    {
        **resolve("02_preprocess_n4", "demo"),
        "spacing_mm": 1.5,
        "bias_correction": "none",
        "intensity_scaling": "min_max",
    }
)
RECIPE = image_recipe(SETTINGS, 1)


class Steep(torch.nn.Module):
    """A network that takes for lesion what is brighter than a level; its logits are known."""

    def __init__(self, slope=40.0, level=0.65):
        super().__init__()
        self.slope, self.level = slope, level
        self.seen = []

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        return self.slope * (x[:, :1] - self.level)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("shape", [(32, 32, 32), (50, 40, 33), (20, 40, 9), (5, 5, 5)])
def test_the_probability_of_each_voxel_is_that_of_the_network(shape, overlap):
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    network = Steep(slope=3.0, level=0.0)
    probability = predict_probability(network, image[None], 32, overlap, CPU)
    assert probability.shape == shape
    assert probability.dtype == np.float32
    np.testing.assert_allclose(probability, sigmoid(3.0 * image), atol=1e-5)
    assert {size[2:] for size in network.seen} == {(32, 32, 32)}, "a network sees patches of its own size only"


def test_more_overlap_asks_the_network_more_often():
    image, networks = np.zeros((1, 64, 32, 32), np.float32), [Steep(), Steep()]
    for network, overlap in zip(networks, (0.0, 0.5), strict=True):
        predict_probability(network, image, 32, overlap, CPU)
    assert [sum(size[0] for size in network.seen) for network in networks] == [2, 3]


def test_neighbouring_windows_are_blended_without_a_seam():
    class Corner(torch.nn.Module):
        """Says something else in each window: the mean over it."""

        def forward(self, x):
            return x.mean(dim=(2, 3, 4), keepdim=True).expand_as(x).clone()

    image = np.zeros((48, 32, 32), np.float32)
    image[24:] = 1
    line = predict_probability(Corner(), image[None], 32, 0.5, CPU)[:, 16, 16]
    assert line[0] == pytest.approx(sigmoid(0.25))
    assert line[-1] == pytest.approx(sigmoid(0.75))
    assert (np.diff(line) >= -1e-6).all()
    assert np.diff(line).max() < 0.25 * (line[-1] - line[0])


def test_prediction_leaves_image_and_gradients_alone():
    image = np.random.default_rng(0).random((1, 33, 33, 33), dtype=np.float32)
    before = image.copy()
    network = torch.nn.Conv3d(1, 1, 1)
    predict_probability(network, image, 32, 0.5, CPU)
    assert np.array_equal(image, before)
    assert network.weight.grad is None


def head_with_blob(shape, spacing_mm, centre_mm, radius_mm=7.0):
    """A head of value 100 in the volume's middle, and in it a ball of 300, in RAS order; also the ball's mask."""
    places = np.stack(np.indices(shape), axis=-1) * np.array(spacing_mm)
    extent = np.array(shape) * spacing_mm
    head = (np.abs((places + np.array(spacing_mm) / 2) / extent - 0.5) < 0.4).all(axis=-1)
    blob = np.linalg.norm(places - centre_mm, axis=-1) <= radius_mm
    return np.where(blob, 300, 100 * head).astype(np.float32), blob


def turn(degrees_x, degrees_z):
    a, b = np.deg2rad([degrees_x, degrees_z])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return about_x @ about_z


GRIDS = {
    "LAS": {"axes": "LAS"},
    "LPS": {"axes": "LPS"},
    "RSA": {"axes": "RSA"},
    "PIL": {"axes": "PIL"},
    "thick": {"axes": "LPS", "spacing_mm": (0.8, 0.8, 6.5)},
    "fine": {"axes": "RAS", "spacing_mm": (0.6, 0.7, 0.9)},
    "coarse": {"axes": "LAS", "spacing_mm": (2.0, 2.0, 3.0)},
    "oblique": {"axes": "LPS", "spacing_mm": (1.0, 0.9, 1.2), "turn": turn(17, 11)},
}
SHAPE = {"thick": (80, 76, 12), "fine": (80, 80, 60), "coarse": (32, 30, 22)}
each_grid = pytest.mark.parametrize("grid", GRIDS)


@pytest.fixture
def image_file(write_nifti):
    """Write a head with a blob on one of the grids; returns the files of the image and of the blob's mask."""

    def write(grid):
        options = {"spacing_mm": (1.0, 1.0, 1.0), **GRIDS[grid]}
        shape = SHAPE.get(grid, (52, 56, 44))
        centre_mm = np.array(shape) * options["spacing_mm"] * (0.6, 0.4, 0.55)  # in no plane of symmetry
        image, blob = head_with_blob(shape, options["spacing_mm"], centre_mm)
        path, mask = write_nifti("image.nii.gz", image, **options), write_nifti("truth.nii.gz", blob * 1.0, **options)
        return path, mask

    return write


@pytest.fixture
def checkpoint(tmp_path, monkeypatch, tiny_training):
    """A checkpoint whose network is `Steep`."""
    monkeypatch.setitem(NETWORKS, "unet", lambda width, patch_size, in_channels: Steep())
    identity = {"settings": tiny_training(overlap=0.25).model_dump(), "recipe": RECIPE}
    save_checkpoint(tmp_path / "best.pt", {"identity": identity, "network": {}})
    return tmp_path / "best.pt"


def centre(file, values):
    """World position of the middle of a mask in millimetres."""
    return nib.affines.apply_affine(file.affine, np.argwhere(values > 0).mean(axis=0))


@each_grid
def test_a_predicted_mask_lies_on_its_image_and_the_lesion_where_it_is(image_file, checkpoint, tmp_path, grid):
    image_path, truth_path = image_file(grid)
    volume_mm3 = predict_image(checkpoint, [image_path], tmp_path / "mask.nii.gz", CPU)
    image, mask, truth = nib.load(image_path), nib.load(tmp_path / "mask.nii.gz"), nib.load(truth_path)
    assert mask.shape == image.shape
    assert np.array_equal(mask.affine, image.affine)
    assert nib.aff2axcodes(mask.affine) == nib.aff2axcodes(image.affine)
    assert mask.get_data_dtype() == np.uint8
    values, expected = np.asarray(mask.dataobj), truth.get_fdata()
    assert set(np.unique(values)) == {0, 1}
    off_mm = centre(mask, values) - centre(truth, expected)
    off_voxels = np.linalg.solve(image.affine[:3, :3], off_mm)
    assert np.abs(off_voxels).max() < 0.5
    dice = 2 * ((values > 0) & (expected > 0)).sum() / (values.sum() + expected.sum())
    assert dice > 0.85
    assert volume_mm3 == pytest.approx(values.sum() * abs(np.linalg.det(image.affine[:3, :3])))


def test_an_image_without_anything_bright_gives_an_empty_mask(write_nifti, checkpoint, tmp_path):
    image = np.zeros((40, 40, 40), np.float32)
    image[5:35, 5:35, 5:35] = 100
    image[20, 20, 20] = 200  # one voxel sets the scale; on the study grid it is spread too thin to count
    assert predict_image(checkpoint, [write_nifti("image.nii.gz", image)], tmp_path / "mask.nii.gz", CPU) == 0
    assert not np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj).any()


def test_a_lower_threshold_marks_more(checkpoint, tmp_path, tiny_training, image_file):
    image_path, _ = image_file("LAS")
    volumes = []
    for threshold in (0.1, 0.5, 0.9):
        identity = {"settings": tiny_training(threshold=threshold).model_dump(), "recipe": RECIPE}
        save_checkpoint(checkpoint, {"identity": identity, "network": {}})
        volumes.append(predict_image(checkpoint, [image_path], tmp_path / "mask.nii.gz", CPU))
    assert volumes[0] > volumes[1] > volumes[2] > 0


@each_grid
def test_a_case_of_the_store_is_predicted_on_the_grid_of_its_image(image_file, tiny_training, tmp_path, grid):
    image_path, truth_path = image_file(grid)
    case = Case("case", (image_path,), truth_path, patient="p", primary="lung")
    prepare_case(case, tmp_path / "cases", SETTINGS, LesionRule())
    stored = open_case(tmp_path / "cases", "case")
    mask = tmp_path / "predictions" / "case.nii.gz"
    predict_case(Steep(), stored, tiny_training(overlap=0.25), CPU, mask)
    predicted, truth = read_volume(mask, "case"), read_volume(truth_path, "case")
    assert np.array_equal(nib.load(mask).affine, nib.load(image_path).affine)
    both = ((predicted.array > 0) & (truth.array > 0)).sum()
    assert 2 * both / (predicted.array.sum() + truth.array.sum()) > 0.85
    assert [path.name for path in mask.parent.iterdir()] == ["case.nii.gz"]


def test_an_image_is_predicted_with_the_sequences_of_the_training(checkpoint, tmp_path, tiny_training, image_file):
    image_path, _ = image_file("LAS")
    other = image_path.with_name("other.nii.gz")
    nib.save(nib.Nifti1Image(300 - nib.load(image_path).get_fdata(), nib.load(image_path).affine), other)
    mask = tmp_path / "mask.nii.gz"
    alone = predict_image(checkpoint, [image_path], mask, CPU)
    identity = {"settings": tiny_training(overlap=0.25).model_dump(), "recipe": image_recipe(SETTINGS, 2)}
    save_checkpoint(checkpoint, {"identity": identity, "network": {}})
    with pytest.raises(ValueError, match=r"1 image\(s\) given; expected 2"):
        predict_image(checkpoint, [image_path], mask, CPU)
    assert predict_image(checkpoint, [image_path, other], mask, CPU) == alone  # `Steep` looks at the first


def test_a_probability_equal_to_the_threshold_counts(write_nifti):
    source = read_volume(write_nifti("image.nii.gz", np.zeros((4, 4, 4), np.float32)), "case")
    probability = np.zeros((4, 4, 4), np.float32)
    probability[1, 2, 3], probability[0, 0, 0] = 0.5, 0.49
    mask = native_mask(probability, Grid((1.0, 1.0, 1.0), (4, 4, 4)), source, 0.5)
    assert np.argwhere(mask.array).tolist() == [[1, 2, 3]]
    assert mask.array.dtype == np.uint8


def test_selection_dice_by_hand(store, tiny_training):
    blank, spots = np.zeros((32, 32, 32)), np.zeros((32, 32, 32))
    spots[4:8, 4, 4] = 1  # 4 bright voxels
    longer = np.zeros((32, 32, 32))
    longer[4:12, 4, 4] = 1  # 8 voxels of lesion
    half_found = store("half_found", spots, longer)  # 2 * 4 / (4 + 8)
    rightly_empty = store("rightly_empty", blank, blank)  # 1
    falsely_found = store("falsely_found", spots, blank)  # 0
    missed = store("missed", blank, longer)  # 0
    settings = tiny_training()

    def dice(*cases):
        return selection_dice(Steep(), cases, settings, CPU)

    assert dice(half_found) == pytest.approx(2 / 3)
    assert dice(rightly_empty) == 1
    assert dice(falsely_found) == dice(missed) == 0
    assert dice(half_found, rightly_empty, falsely_found, missed) == pytest.approx((2 / 3 + 1) / 4)
    assert isinstance(dice(half_found, missed), float)


def test_selection_dice_uses_the_threshold_of_the_settings(store, tiny_training):
    image, label = np.zeros((32, 32, 32)), np.zeros((32, 32, 32))
    image[:10], label[:10] = 0.7, 1  # the network is undecided: probability 0.5
    case = store("undecided", image, label)
    assert selection_dice(Steep(level=0.7), [case], tiny_training(threshold=0.4), CPU) == 1
    assert selection_dice(Steep(level=0.7), [case], tiny_training(threshold=0.6), CPU) == 0
