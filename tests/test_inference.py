"""Inference: probabilities of whole volumes, masks on the grid of the image whatever its axes, Dice by hand."""

import shutil
from dataclasses import asdict, replace
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch

from metaseg_nb.cohort.cases import Case, LesionRule
from metaseg_nb.cohort.head import REACH_MM
from metaseg_nb.cohort.problems import CohortError
from metaseg_nb.cohort.volumes import read_volume
from metaseg_nb.inference.decision import (
    UNDECIDED,
    Decision,
    native_mask,
    native_probability,
)
from metaseg_nb.inference.ensemble import load_ensemble
from metaseg_nb.inference.predict import new_case, predict_image, require_predictable
from metaseg_nb.inference.predict import predict as predict_all
from metaseg_nb.inference.sliding_window import predict_case, predict_probability, selection_dice
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing.case_store import UNKNOWN, open_case
from metaseg_nb.preprocessing.grid import Grid
from metaseg_nb.preprocessing.prepare import prepare_case
from metaseg_nb.preprocessing.steps import image_recipe
from metaseg_nb.settings import Preprocess
from metaseg_nb.training.checkpoints import load_checkpoint, network_of, save_checkpoint
from metaseg_nb.training.networks import NETWORKS, build_network, patch_edges, predicts_in

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


def everywhere(shape):
    return np.ones(shape, bool)


@pytest.fixture
def predict(tiny_training):
    """Predict an image (X, Y, Z) by windows of 32 voxels; its head is everywhere unless given."""

    def call(network, image, reach=None, **settings):
        reach = everywhere(image.shape) if reach is None else reach
        return predict_probability(network, image[None], reach, tiny_training(**settings), CPU)

    return call


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("shape", [(32, 32, 32), (50, 40, 33), (20, 40, 9), (5, 5, 5)])
def test_the_probability_of_each_voxel_is_that_of_the_network(predict, shape, overlap, mirrored):
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    network = Steep(slope=3.0, level=0.0)
    probability = predict(network, image, overlap=overlap, mirrored=mirrored)
    assert probability.shape == shape
    assert probability.dtype == np.float32
    np.testing.assert_allclose(probability, sigmoid(3.0 * image), atol=1e-5)
    assert {size[2:] for size in network.seen} == {(32, 32, 32)}, "a network sees patches of its own size only"


def test_a_probability_is_never_beyond_0_and_1(predict):
    image = np.random.default_rng(0).choice([-1.0, 1.0], (50, 40, 33)).astype(np.float32)
    probability = predict(Steep(slope=1000.0, level=0.0), image, overlap=0.7)
    assert probability.min() == 0
    assert probability.max() == 1


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_takes_the_windows_of_its_patches(network, tiny_training):
    size = patch_edges(network)[0]
    settings = tiny_training(network=network, width=0.1, patch_size=size)
    image = np.random.default_rng(0).random((1, size + 6, size - 6, size), dtype=np.float32)
    built = build_network(network, settings.width, settings.patch_size).eval()
    probability = predict_probability(built, image, everywhere(image.shape[1:]), settings, CPU)
    assert probability.shape == image.shape[1:]
    assert 0 < probability.min() < probability.max() < 1


@pytest.fixture
def amx(monkeypatch):
    """Say whether the processor multiplies matrices of bf16; those without compute the same, more slowly."""
    return lambda there: monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": there})


@pytest.mark.parametrize(
    ("precision", "there", "expected"),
    [("bf16", True, torch.bfloat16), ("bf16", False, None), ("fp16", True, None), ("no", True, None)],
)
def test_a_processor_with_matrices_of_bf16_predicts_in_it(amx, predict, precision, there, expected):
    class Convolution(torch.nn.Conv3d):
        def forward(self, x):
            result = super().forward(x)
            self.computed_in = result.dtype
            return result

    amx(there)
    assert predicts_in(precision, CPU) == expected
    network = Convolution(1, 1, 1)
    probability = predict(network, np.ones((32, 32, 32), np.float32), precision=precision)
    assert network.computed_in == (expected or torch.float32)
    assert probability.dtype == np.float32


@pytest.mark.parametrize("network", sorted({*NETWORKS} - {"swin_unetr"}))  # in bf16 a CPU takes a minute for it
def test_in_bf16_a_network_says_nearly_the_same(network, amx, tiny_training):
    amx(True)
    torch.manual_seed(0)
    size = patch_edges(network)[0]
    image = np.random.default_rng(0).random((1, size, size, size), dtype=np.float32)
    weights = build_network(network, 0.1, size).state_dict()

    def predicted(precision):
        settings = tiny_training(network=network, width=0.1, patch_size=size, precision=precision)
        identity = {"settings": settings.model_dump(), "recipe": {"sequences": 1}}
        rebuilt = network_of({"identity": identity, "network": weights}, CPU)
        return predict_probability(rebuilt, image, everywhere(image.shape[1:]), settings, CPU)

    in_half, in_whole = predicted("bf16"), predicted("no")
    assert not np.array_equal(in_half, in_whole)
    assert np.abs(in_half - in_whole).max() < 0.05
    assert np.abs(in_half - in_whole).mean() < 0.01


def n_windows(network):
    return sum(size[0] for size in network.seen)


def test_more_overlap_and_mirroring_ask_the_network_more_often(predict):
    image, counts = np.zeros((64, 32, 32), np.float32), []
    for settings in ({"overlap": 0.0}, {"overlap": 0.5}, {"overlap": 0.0, "mirrored": True}):
        network = Steep()
        predict(network, image, **settings)
        counts.append(n_windows(network))
    assert counts == [2, 3, 16]


def test_mirrored_is_the_mean_probability_over_the_eight_mirror_images(predict):
    class Lower(torch.nn.Module):
        """Finds lesion in the lower half of each axis of what it is shown."""

        def forward(self, x):
            logits = torch.full_like(x, -100.0)
            logits[:, :, :16, :16, :16] = 100.0
            return logits

    image = np.zeros((32, 32, 32), np.float32)
    alone, mirrored = (predict(Lower(), image, mirrored=m) for m in (False, True))
    assert alone[:16, :16, :16].min() > 0.99
    assert alone[16:].max() < 0.01
    # each octant is the lower one in one of the eight images; a mean of logits would be -75 everywhere
    np.testing.assert_allclose(mirrored, 1 / 8, atol=1e-6)


def test_neighbouring_windows_are_blended_without_a_seam(predict):
    class Corner(torch.nn.Module):
        """Says something else in each window: the mean over it."""

        def forward(self, x):
            return x.mean(dim=(2, 3, 4), keepdim=True).expand_as(x).clone()

    image = np.zeros((48, 32, 32), np.float32)
    image[24:] = 1
    line = predict(Corner(), image, overlap=0.5)[:, 16, 16]
    assert line[0] == pytest.approx(sigmoid(0.25))
    assert line[-1] == pytest.approx(sigmoid(0.75))
    assert (np.diff(line) >= -1e-6).all()
    assert np.diff(line).max() < 0.25 * (line[-1] - line[0])


def test_windows_far_from_the_head_are_not_shown_to_the_network(predict):
    image = np.ones((128, 32, 32), np.float32)  # four windows side by side, and bright: lesion, if one looked
    network, reach = Steep(), np.zeros(image.shape, bool)
    reach[70:90, 5:25, 5:25] = True
    probability = predict(network, image, reach)
    assert n_windows(network) == 1
    assert (probability[reach] > 0.99).all()
    assert not probability[~reach].any()


@pytest.mark.parametrize("mirrored", [False, True])
def test_skipping_windows_changes_no_voxel_of_the_head(predict, mirrored):
    rng = np.random.default_rng(1)
    head = np.zeros((70, 60, 50), bool)
    head[30:64, 5:30, 20:50] = True
    image = rng.random(head.shape, dtype=np.float32)
    networks = [torch.nn.Conv3d(1, 1, 3, padding=1), Steep()]
    for network in networks:
        looked, all_windows = (predict(network, image, v, overlap=0.5, mirrored=mirrored) for v in (head, None))
        np.testing.assert_allclose(looked[head], all_windows[head], atol=1e-6)
        assert not looked[~head].any()


def test_no_head_at_all_is_no_lesion(predict):
    network = Steep()
    assert not predict(network, np.ones((40, 40, 40), np.float32), np.zeros((40, 40, 40), bool)).any()
    assert network.seen == []


def test_what_is_probable_everywhere_ends_near_the_head(write_nifti, save, tiny_training, tmp_path, monkeypatch):
    """The mask that is written, of a stored case and of its image, by a network that takes everything for lesion."""
    image = np.random.default_rng(0).uniform(0, 10, (60, 64, 50)).astype(np.float32)
    apart = np.linalg.norm(np.indices(image.shape) - np.reshape([30, 32, 25], (3, 1, 1, 1)), axis=0)
    image[apart < 12] += 200
    path, mask = write_nifti("image.nii.gz", image), tmp_path / "mask.nii.gz"
    everything = Steep(level=-5.0)
    monkeypatch.setitem(NETWORKS, "unet", lambda width, patch_size, in_channels: everything)
    settings = Preprocess.check(SETTINGS.model_dump() | {"spacing_mm": 1.0})
    outline(save(recipe=image_recipe(settings, 1)), [path], mask)
    of_image = nib.load(mask).get_fdata() > 0
    prepare_case(Case("case", (path,), None, "p", "lung"), tmp_path / "cases", settings, LesionRule())
    stored = open_case(tmp_path / "cases", "case")
    probability = predict_case(everything, stored, tiny_training(), {mask: Decision(0.5, 0.5, 0.0)}, CPU)
    for predicted in (of_image, nib.load(mask).get_fdata() > 0):
        assert predicted[apart < 12 + REACH_MM - 1].all(), "a lesion at the rim of the head is not cut"
        assert not predicted[apart > 12 + REACH_MM + 2].any(), "2 mm is the edge of the voxels that heads are found on"
    assert (probability[stored.reach] > 0.99).all()
    assert not probability[~stored.reach].any()


def test_prediction_leaves_image_and_gradients_alone(predict):
    image = np.random.default_rng(0).random((33, 33, 33), dtype=np.float32)
    before = image.copy()
    network = torch.nn.Conv3d(1, 1, 1)
    predict(network, image, overlap=0.5)
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
def save(tmp_path, monkeypatch, tiny_training):
    """Save a checkpoint of a fold whose network is `Steep`; returns its path."""
    monkeypatch.setitem(NETWORKS, "unet", lambda width, patch_size, in_channels: Steep())

    def write(fold=0, decision=UNDECIDED, recipe=RECIPE, **settings):
        identity = {"settings": tiny_training(fold=fold, overlap=0.25, **settings).model_dump(), "recipe": recipe}
        content = {"identity": identity, "network": {}} | ({"decision": asdict(decision)} if decision else {})
        save_checkpoint(tmp_path / f"unet/fold{fold}/best.pt", content)
        return tmp_path / f"unet/fold{fold}/best.pt"

    return write


def outline(checkpoint, images, mask, probability=None):
    return predict_image(load_ensemble(checkpoint, CPU), new_case(images), CPU, mask, probability)[0]


def centre(file, values):
    """World position of the middle of a mask in millimetres."""
    return nib.affines.apply_affine(file.affine, np.argwhere(values > 0).mean(axis=0))


@pytest.mark.parametrize("grid", GRIDS)
def test_a_predicted_mask_lies_on_its_image_and_the_lesion_where_it_is(image_file, save, tmp_path, grid):
    image_path, truth_path = image_file(grid)
    volume_mm3 = outline(save(), [image_path], tmp_path / "mask.nii.gz", tmp_path / "probability.nii.gz")
    image, mask, truth = nib.load(image_path), nib.load(tmp_path / "mask.nii.gz"), nib.load(truth_path)
    probability = nib.load(tmp_path / "probability.nii.gz")
    for result, dtype in ((mask, np.uint8), (probability, np.float32)):
        assert result.shape == image.shape
        assert np.array_equal(result.affine, image.affine)
        assert nib.aff2axcodes(result.affine) == nib.aff2axcodes(image.affine)
        assert result.get_data_dtype() == dtype
    values, expected = np.asarray(mask.dataobj), truth.get_fdata()
    assert set(np.unique(values)) == {0, 1}
    off_mm = centre(mask, values) - centre(truth, expected)
    off_voxels = np.linalg.solve(image.affine[:3, :3], off_mm)
    assert np.abs(off_voxels).max() < 0.5
    assert dice(values > 0, expected > 0) > 0.85
    assert volume_mm3 == pytest.approx(values.sum() * abs(np.linalg.det(image.affine[:3, :3])))
    likely = np.asarray(probability.dataobj)
    assert 0 <= likely.min() < 0.01
    assert 0.9 < likely.max() <= 1
    assert dice(likely >= 0.5, expected > 0) > 0.8
    assert dice(likely >= 0.5, values > 0) > 0.85


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def test_an_image_without_anything_bright_gives_an_empty_mask(write_nifti, save, tmp_path):
    image = np.zeros((40, 40, 40), np.float32)
    image[5:35, 5:35, 5:35] = 100
    image[20, 20, 20] = 200  # one voxel sets the scale; on the study grid it is spread too thin to count
    assert outline(save(), [write_nifti("image.nii.gz", image)], tmp_path / "mask.nii.gz") == 0
    assert not np.asarray(nib.load(tmp_path / "mask.nii.gz").dataobj).any()


def test_the_head_is_found_whatever_the_scale_of_intensities(write_nifti, save, tmp_path, monkeypatch):
    """With z-scores air is below 0 and beyond the volume there is 0: no value of an image says where its head is."""
    image = np.zeros((130, 60, 60), np.float32)
    image[70:125, 5:55, 5:55] = np.random.default_rng(0).uniform(90, 110, (55, 50, 50))
    image[90:100, 20:30, 20:30] = 300
    recipe = {**RECIPE, "intensity_scaling": "z_score", "spacing_mm": 1.0}
    network = Steep(level=3.0)
    monkeypatch.setitem(NETWORKS, "unet", lambda width, patch_size, in_channels: network)
    path = write_nifti("image.nii.gz", image)
    assert outline(save(recipe=recipe), [path], tmp_path / "mask.nii.gz") == pytest.approx(1000, rel=0.1)
    # the study grid is 75 x 70 x 70: three windows of 32 along each axis, all of them near the head
    assert n_windows(network) == 27


def test_a_lower_threshold_marks_more(save, tmp_path, image_file):
    image_path, _ = image_file("LAS")
    volumes = [
        outline(save(decision=Decision(threshold, threshold, 0.0)), [image_path], tmp_path / "mask.nii.gz")
        for threshold in (0.1, 0.5, 0.9)
    ]
    assert volumes[0] > volumes[1] > volumes[2] > 0


def test_lesions_smaller_than_decided_are_left_out(save, tmp_path, write_nifti):
    image = np.zeros((60, 60, 60), np.float32)
    image[5:55, 5:55, 5:55] = 100
    image[12:18, 12:18, 12:18] = image[30:42, 30:42, 30:42] = 300  # 216 and 1728 mm³
    path, mask = write_nifti("image.nii.gz", image), tmp_path / "mask.nii.gz"
    both = outline(save(), [path], mask)
    larger = outline(save(decision=Decision(0.5, 0.5, 500.0)), [path], mask)
    assert both - larger == pytest.approx(216, rel=0.3)
    assert larger == pytest.approx(1728, rel=0.2)
    left = np.argwhere(nib.load(mask).get_fdata())
    assert (left > 27).all()


@pytest.mark.parametrize("name", ["mask.png", "image.nii.gz"])
def test_a_result_that_cannot_be_written_is_refused_before_any_work(save, tmp_path, write_nifti, name):
    path = write_nifti("image.nii.gz", np.zeros((8, 8, 8), np.float32))
    before = path.read_bytes()
    with pytest.raises(CohortError, match=name):
        outline(save(), [path], tmp_path / name)
    assert path.read_bytes() == before


def test_a_file_that_predict_did_not_write_is_never_replaced(save, tmp_path, write_nifti):
    path, drawn = (
        write_nifti("image.nii.gz", np.arange(512, dtype=np.float32).reshape(8, 8, 8)),
        tmp_path / "drawn.nii.gz",
    )
    nib.save(nib.Nifti1Image(np.ones((8, 8, 8), np.uint8), np.eye(4)), drawn)
    before = drawn.read_bytes()
    for results in ([drawn], [tmp_path / "new.nii.gz", drawn]):
        with pytest.raises(CohortError, match="a file that `predict` did not write"):
            outline(save(), [path], *results)
    assert drawn.read_bytes() == before
    mask, probability = tmp_path / "mask.nii.gz", tmp_path / "probability.nii.gz"
    for _ in range(2):  # its own results are replaced
        outline(save(), [path], mask, probability)
    own = nib.load(mask)
    corrected = np.asarray(own.dataobj).copy()
    corrected[0, 0, 0] ^= 1
    nib.save(nib.Nifti1Image(corrected, None, own.header), mask)  # by a person, whose program keeps the header
    for content in (mask.read_bytes(), probability.read_bytes()[:200] + bytes(400), b"", bytes(352)):
        mask.write_bytes(content)
        with pytest.raises(CohortError, match="or that was changed since"):
            outline(save(), [path], mask)
        assert mask.read_bytes() == content


@pytest.mark.parametrize("names", [("a.nii.gz", "b.nii.gz"), ("a.nii", "C.NII.GZ")])
def test_results_of_a_folder_do_not_go_into_it(save, tmp_path, write_nifti, names):
    for name in names:
        write_nifti(f"images/{name}", np.zeros((8, 8, 8), np.float32))
    before = sorted((tmp_path / "images").iterdir())
    with pytest.raises(ValueError, match="the folder of the images"):
        [*predict_all(save(), [tmp_path / "images"], tmp_path / "images", None)]
    assert sorted((tmp_path / "images").iterdir()) == before


def test_mask_and_probability_need_names_of_their_own(save, tmp_path, write_nifti):
    path = write_nifti("image.nii.gz", np.zeros((8, 8, 8), np.float32))
    with pytest.raises(CohortError, match="a name of its own for each result"):
        outline(save(), [path], tmp_path / "mask.nii.gz", tmp_path / "mask.nii.gz")


@pytest.mark.parametrize("grid", ["PIL", "thick", "oblique"])
def test_a_case_of_the_store_is_predicted_on_the_grid_of_its_image(image_file, tiny_training, tmp_path, grid):
    image_path, truth_path = image_file(grid)
    case = Case("case", (image_path,), truth_path, patient="p", primary="lung")
    prepare_case(case, tmp_path / "cases", SETTINGS, LesionRule())
    stored = open_case(tmp_path / "cases", "case")
    mask = tmp_path / "predictions" / "case.nii.gz"
    predict_case(Steep(), stored, tiny_training(overlap=0.25), {mask: Decision(0.5, 0.5, 0.0)}, CPU)
    predicted, truth = read_volume(mask, "case"), read_volume(truth_path, "case")
    assert np.array_equal(nib.load(mask).affine, nib.load(image_path).affine)
    both = ((predicted.array > 0) & (truth.array > 0)).sum()
    assert 2 * both / (predicted.array.sum() + truth.array.sum()) > 0.85
    assert [path.name for path in mask.parent.iterdir()] == ["case.nii.gz"]


def test_a_case_of_the_store_and_its_image_are_predicted_alike(image_file, save, tiny_training, tmp_path):
    image_path, truth_path = image_file("LPS")
    prepare_case(Case("case", (image_path,), truth_path, "p", "lung"), tmp_path / "cases", SETTINGS, LesionRule())
    stored, decision = open_case(tmp_path / "cases", "case"), Decision(0.3, 0.3, 5.0)
    stored_mask, image_mask = tmp_path / "stored.nii.gz", tmp_path / "image_mask.nii.gz"
    predict_case(Steep(), stored, tiny_training(overlap=0.25), {stored_mask: decision}, CPU)
    outline(save(decision=decision), [image_path], image_mask)
    assert dice(*(nib.load(mask).get_fdata() > 0 for mask in (stored_mask, image_mask))) > 0.99


def test_an_image_is_predicted_with_the_sequences_of_the_training(save, tmp_path, image_file):
    image_path, _ = image_file("LAS")
    other = image_path.with_name("other.nii.gz")
    nib.save(nib.Nifti1Image(300 - nib.load(image_path).get_fdata(), nib.load(image_path).affine), other)
    mask = tmp_path / "mask.nii.gz"
    alone = outline(save(), [image_path], mask)
    two = save(recipe=image_recipe(SETTINGS, 2))
    with pytest.raises(ValueError, match=r"1 sequence\(s\); expected 2"):
        outline(two, [image_path], mask)
    assert outline(two, [image_path, other], mask) == alone  # `Steep` looks at the first


@pytest.mark.parametrize(
    ("names", "several"),
    [
        (["patient1.nii.gz", "patient2.nii.gz"], True),
        (["p001/t1.nii.gz", "p002/t1.nii.gz"], True),
        (["p001_0000.nii.gz", "p002_0000.nii.gz"], True),
        (["p001_0000.nii.gz", "p001_0001.nii.gz"], False),
        (["p001/t1.nii.gz", "p001/t2.nii.gz"], False),
        (["p001_T1c.nii.gz", "p001_FLAIR.nii.gz"], False),
        (["p001.nii.gz"], False),
    ],
)
def test_images_of_several_patients_are_not_taken_for_sequences_of_one(image_file, tmp_path, names, several):
    image, _ = image_file("LAS")
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        shutil.copy(image, path)
    if not several:
        require_predictable(new_case(paths), [tmp_path / "mask.nii.gz"])
        return
    with pytest.raises(CohortError, match=r"as images of several patients do.*predict each patient separately"):
        require_predictable(new_case(paths), [tmp_path / "mask.nii.gz"])


def test_one_file_is_not_two_sequences(image_file, tmp_path):
    image, _ = image_file("LAS")
    with pytest.raises(CohortError, match="listed 2 times"):
        require_predictable(new_case([image, image]), [tmp_path / "mask.nii.gz"])


GRID = Grid((1.0, 1.0, 1.0), (4, 4, 4))


def test_a_probability_equal_to_the_threshold_counts():
    probability = np.zeros((4, 4, 4), np.float32)
    probability[1, 2, 3], probability[0, 0, 0] = 0.5, 0.49
    mask = native_mask(probability, GRID, GRID, Decision(0.5, 0.5, 0.0))
    assert np.argwhere(mask).tolist() == [[1, 2, 3]]
    assert mask.dtype == np.uint8


def test_a_lesion_of_the_smallest_volume_is_kept_and_corners_join_voxels():
    probability = np.zeros((4, 4, 4), np.float32)
    probability[0, 0, 0] = probability[1, 1, 1] = 1  # 2 mm³: one lesion, joined at a corner
    probability[3, 3, 3] = 1  # 1 mm³
    assert np.argwhere(native_mask(probability, GRID, GRID, Decision(0.5, 0.5, 2.0))).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert native_mask(probability, GRID, GRID, Decision(0.5, 0.5, 2.1)).sum() == 0
    twice = Grid((1.0, 1.0, 2.0), (4, 4, 4))  # the same voxels of 2 mm³
    assert native_mask(probability, twice, twice, Decision(0.5, 0.5, 2.1)).sum() == 2


def test_probabilities_are_0_where_the_study_grid_does_not_reach():
    native = Grid((1.0, 1.0, 1.0), (8, 4, 4))
    probability = native_probability(np.ones((4, 4, 4), np.float32), GRID, native)
    np.testing.assert_allclose(probability[:4], 1, atol=1e-6)
    assert not probability[4:].any()


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
    cases = half_found, rightly_empty, falsely_found, missed, half_found
    each = [replace(case, patient=f"p{i}") for i, case in enumerate(cases)]
    assert dice(*each) == float(np.mean([dice(case) for case in cases])), "to the last bit"
    p, also_p = (replace(case, patient="p") for case in (half_found, rightly_empty))
    assert dice(p, missed, also_p) == pytest.approx(((2 / 3 + 1) / 2 + 0) / 2), "a patient with two cases counts once"


def test_selection_dice_does_not_count_unknown_voxels(store, tiny_training):
    image, label = np.zeros((32, 32, 32)), np.zeros((32, 32, 32), np.uint8)
    image[4:8, 4, 4] = 1  # two voxels of lesion that are found, and two that nobody knows
    label[4:6, 4, 4], label[6:10, 4, 4] = 1, UNKNOWN
    case = store("case", image, label == 1)
    partly = SimpleNamespace(patient="p", image=case.image, reach=case.reach, label=label)
    assert selection_dice(Steep(), [partly], tiny_training(), CPU) == 1


def test_selection_dice_takes_lesion_probabilities_of_a_half_and_more(store, tiny_training):
    image, label = np.zeros((32, 32, 32)), np.zeros((32, 32, 32))
    image[:10], label[:10] = 0.75, 1
    case = store("case", image, label)
    for level, expected in ((0.5, 1), (0.7499, 1), (0.7501, 0), (0.9, 0)):
        assert selection_dice(Steep(level=level), [case], tiny_training(), CPU) == expected


def test_selection_dice_looks_at_the_head_only(store, tiny_training):
    image = np.zeros((96, 32, 32))
    image[74:86, 10:20, 10:20] = 0.9
    network = Steep()
    case = store("case", image, image > 0)
    assert selection_dice(network, [case], tiny_training(), CPU) == 1
    assert n_windows(network) == 1


def test_one_checkpoint_is_an_ensemble_of_one(save):
    ensemble = load_ensemble(save(fold=3, decision=Decision(0.35, 0.35, 10.0)), CPU)
    assert (len(ensemble.networks), ensemble.decision) == (1, Decision(0.35, 0.35, 10.0))
    assert str(ensemble) == "1 network(s), probability ≥ 0.35, lesions ≥ 10 mm³"


def test_a_network_from_elsewhere_predicts_without_its_model_file(save):
    path = save()
    checkpoint = load_checkpoint(path)
    checkpoint["identity"]["settings"]["model"] = "unet_of_another_hospital"
    save_checkpoint(path, checkpoint)
    assert load_ensemble(path, CPU).settings.overlap == 0.25


def test_the_folds_of_a_model_predict_the_mean_and_decide_by_mean_and_median(save, monkeypatch, tmp_path):
    levels = iter([0.0, 1.0, 2.0])
    monkeypatch.setitem(NETWORKS, "unet", lambda width, patch_size, in_channels: Steep(slope=1.0, level=next(levels)))
    for fold, decision in ((2, Decision(0.3, 0.3, 0.0)), (0, Decision(0.5, 0.8, 20.0)), (10, Decision(0.7, 0.7, 5.0))):
        save(fold, decision)
    (tmp_path / "unet/fold4").mkdir()  # not trained yet
    ensemble = load_ensemble(tmp_path / "unet", CPU)
    assert [network.level for network in ensemble.networks] == [0, 1, 2]
    assert ensemble.decision == Decision(pytest.approx(0.5), pytest.approx(0.6), 5.0)
    assert "04 tested each alone" in str(ensemble)
    image = np.random.default_rng(0).random((1, 40, 33, 32), dtype=np.float32)
    expected = np.mean([sigmoid(image[0] - level) for level in (0, 1, 2)], axis=0)
    probability = ensemble.probability(image, everywhere(image.shape[1:]), CPU)
    assert probability.dtype == np.float32
    np.testing.assert_allclose(probability, expected, atol=1e-5)


@pytest.mark.parametrize("left", ["last.pt", "previous.pt", "metrics.json"])
def test_a_fold_that_lost_its_weights_is_named_and_not_left_out(save, tmp_path, left):
    for fold in range(3):
        save(fold)
    (tmp_path / "unet/fold1/best.pt").replace(tmp_path / f"unet/fold1/{left}")
    with pytest.raises(FileNotFoundError, match=r"fold1/best\.pt: no such checkpoint.*run notebook 03"):
        load_ensemble(tmp_path / "unet", CPU)


def test_a_training_that_did_not_finish_is_named(save, tmp_path):
    save(0, Decision(0.3, 0.3, 20.0))
    save(1, None)
    ensemble = load_ensemble(tmp_path / "unet", CPU)
    assert ensemble.decision == Decision(0.4, 0.4, 10.0)
    assert "fold1/best.pt, whose training did not finish: 0.5 is assumed" in str(ensemble)
    assert "fold0" not in str(ensemble)


def test_folds_trained_or_prepared_otherwise_are_refused_all_at_once(save, tmp_path):
    save(0)
    save(1, title="Another title", compiled=True)  # decides nothing
    save(2, epochs=3, patch_size=64)
    save(3, recipe={**RECIPE, "spacing_mm": 1.0})
    with pytest.raises(CohortError) as refused:
        load_ensemble(tmp_path / "unet", CPU)
    found = {problem.case: problem.found for problem in refused.value.problems}
    assert found == {
        "fold2": "epochs 3, fold0 2, patch_size 64, fold0 32",
        "fold3": "spacing_mm 1.0, fold0 1.5",
    }


def test_a_folder_without_folds_says_what_to_give(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no fold<k>/best.pt in .*; give a model's folder"):
        load_ensemble(tmp_path, CPU)
