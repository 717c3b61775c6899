"""What tests share."""

import base64
import contextlib
import fcntl
import gc
import html
import importlib.util
import io
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import unicodedata
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import hypothesis
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image, UnidentifiedImageError

from metaseg_nb.checksums import checksum, write_record
from metaseg_nb.cohort.cases import Case, Cohort
from metaseg_nb.cohort.datalist import write_datalist
from metaseg_nb.cohort.lesions import find_lesions
from metaseg_nb.cohort.volumes import Volume, read_volume, write_volume
from metaseg_nb.evaluation.scoring import score_cases
from metaseg_nb.files import write_table
from metaseg_nb.layout import PROJECT, StudyLayout
from metaseg_nb.parameters import resolve
from metaseg_nb.preprocessing.case_store import open_case, store_image, store_label
from metaseg_nb.preprocessing.grid import Grid
from metaseg_nb.preprocessing.steps import PreparedImage
from metaseg_nb.preprocessing.stored_case import record_correction
from metaseg_nb.settings import Train

# A busy machine is no failure.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

STUDIES = Path(__file__).parent / "studies"


def tiny_file(changes):
    """The file of the tiny study with these lines for those of the same keys."""
    given = re.findall(r"^(\w+):", changes, re.MULTILINE)
    others = [line for line in (STUDIES / "tiny.yaml").read_text().splitlines() if line.split(":")[0] not in given]
    return "\n".join([*others, changes])


def pytest_configure(config):
    """Tests mean the CPU, where results are equal bit for bit; those of a GPU are asked for by ``-m gpu``."""
    if config.option.markexpr != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


# Files that take minutes: begun last, one of them would leave the other processes idle. test_study makes the tiny
# study, for which others wait: meanwhile the other processes have fast ones.
LONGEST = (
    "test_slurm",
    "test_study",
    "test_explore",
    "test_annotate_in_jupyterlab",
    "test_real_data",
    "test_budget_study",
    "test_processes",
    "test_in_jupyterlab",
)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """Fast before slow tests, the longest files first; tests of one file that are as fast stay in one process."""
    for item in items:
        if "chromium" in item.fixturenames:
            item.add_marker("landing")
    items.sort(key=lambda item: (_is_slow(item), _rank(item)))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(f"{item.path.stem}, slow: {_is_slow(item)}"))


def _is_slow(item):
    return item.get_closest_marker("slow") is not None


def _rank(item):
    return LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST)


def pytest_collection_finish():
    """What is loaded by now stays: garbage is looked for in the rest alone, which takes a fraction of the time."""
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def heard_ctrl_c():
    """Tests that a shell began with `&` would ignore Ctrl-C, and so would all that they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """No test pulls the plug: thousands of small files that are flushed one by one would take minutes."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data published by others, which lies beside the repository or is not there."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data, which is not here")
    return folder


@pytest.fixture
def write_nifti(tmp_path):
    """Write an array given in RAS order as a NIfTI file whose own axes are others; returns its path."""

    def write(name, array, spacing_mm=(1.0, 1.0, 1.0), axes="RAS", origin_mm=(-12.0, 7.0, 30.0), turn=None):
        affine = np.diag([*spacing_mm, 1.0])
        if turn is not None:
            affine[:3, :3] = turn @ affine[:3, :3]
        affine[:3, 3] = origin_mm
        image = nib.Nifti1Image(array, affine)
        native = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axes)
        )
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(image.as_reoriented(native), path)
        return path

    return write


@pytest.fixture
def write_case(write_nifti):
    """Write a small case: noise in a bright ball as the image, and two lesions as its label, one placed by the seed."""

    def write(name, seed=0, primary="lung", shape=(24, 24, 20), labelled=True, **grid):
        places = np.indices(shape).reshape(3, -1).T
        middle = np.array(shape) / 2 - 0.5
        ball = (np.linalg.norm((places - middle) / (middle + 0.5), axis=1) < 0.9).reshape(shape)
        noise = np.random.default_rng(seed).uniform(0, 10, shape)
        image = write_nifti(f"{name}/image.nii.gz", (100 * ball + noise).astype(np.float32), **grid)
        label = None
        if labelled:
            mask = np.zeros(shape, np.uint8)
            x, y = 6 + seed // 5 % 4, 6 + seed % 5
            mask[x : x + 3, y : y + 4, 6:11] = 1
            mask[15, 15, 12] = 1
            label = write_nifti(f"{name}/label.nii.gz", mask, **grid)
        return Case(name, (image,), label, patient=f"patient_{name}", primary=primary)

    return write


@pytest.fixture(scope="session")
def tiny_training():
    """Settings of a training of seconds: narrow, small patches, nothing random done to them; keywords change them."""
    settings = resolve("03_train", str(STUDIES / "tiny.yaml"), "unet", 0)
    settings |= {"width": 0.125, "patches_per_case": 1, "epochs": 2, "validate_every": 1, "overlap": 0.0}
    settings |= {"flip_probability": 0.0, "rotate_probability": 0.0, "intensity_scale": 0.0, "intensity_shift": 0.0}
    settings |= {"learning_rate": 0.01, "weight_decay": 0.0, "ema_decay": 0.0}
    return lambda **changes: Train.check(settings | changes)


@pytest.fixture
def store(tmp_path):
    """Put an image (X, Y, Z), or several (C, X, Y, Z), and its lesions into a case store, as they are, at 1 mm.

    Returns the stored case.
    """

    def put(name, image, label, label_file=None, **recipe):
        images = image if image.ndim == 4 else image[None]
        grid = Grid((1.0, 1.0, 1.0), images.shape[1:])
        head = images[0] > 0 if (images[0] > 0).any() else np.ones(grid.shape, bool)
        volume = Volume(np.ones(grid.shape, np.float32), np.eye(4), nib.orientations.axcodes2ornt("RAS"))
        correction = record_correction(volume, volume.array, volume.array, head)
        prepared = PreparedImage(images, head, grid, volume, [correction])
        way = {"spacing_mm": 1.0, "intensity_scaling": "percentiles", "sequences": len(images)} | recipe
        store_image(tmp_path / "cases", name, prepared, way, [[1000, 0]])
        source = checksum(label_file) if label_file else "of no file"
        lesions = find_lesions(label > 0, grid.spacing_mm).boxes.values()  # of one size in these tests
        facts = {"recipe": {}, "sources": [source], "slices": [box[2].stop - box[2].start for box in lesions]}
        store_label(tmp_path / "cases", name, label > 0, facts)
        return open_case(tmp_path / "cases", name)

    return put


@pytest.fixture
def store_blobs(store):
    """Put a dim noisy head with bright cubes, which are its lesions, into the case store."""

    def put(name, corners=((9, 12, 8), (25, 20, 20)), shape=(40, 44, 36), edge=6, seed=0):
        label = np.zeros(shape, bool)
        for corner in corners:
            label[tuple(slice(start, start + edge) for start in corner)] = True
        image = np.random.default_rng(seed).uniform(0.2, 0.4, shape)
        image[label] += 0.5
        return store(name, image, label)

    return put


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Empty folder that runs and reports are written to."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("METASEG_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def metaseg():
    """Call ``python -m metaseg_nb`` with everything it makes below ``home``."""

    def call(home, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "metaseg_nb", *map(str, arguments)],
            env={**os.environ, "METASEG_HOME": str(home)},
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )

    return call


@dataclass(frozen=True)
class RestartedStudy:
    """A study whose processes were killed, after its second start: what was kept, and what that start printed.

    All processes of pytest share its folder: a test that changes it takes a copy.
    """

    home: Path
    kept: dict[Path, int]
    result: subprocess.CompletedProcess


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory, metaseg, worker_id):
    """The tiny study, killed while networks trained and started again; made by the first process that asks for it."""
    base = tmp_path_factory.getbasetemp()
    base = base if worker_id == "master" else base.parent
    made = base / "tiny_study.pickle"
    with (base / "tiny_study.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the others wait
        if not made.exists():
            study = _killed_and_restarted(tmp_path_factory.mktemp("tiny"), metaseg)
            made.write_bytes(pickle.dumps(study))
    return pickle.loads(made.read_bytes())


def _killed_and_restarted(home, metaseg):
    command = [sys.executable, "-m", "metaseg_nb", "study", "--study", str(STUDIES / "tiny.yaml")]
    env, silent = {**os.environ, "METASEG_HOME": str(home)}, subprocess.DEVNULL
    first = subprocess.Popen(command, env=env, cwd=PROJECT, stdout=silent, stderr=silent, start_new_session=True)
    log, started = home / "runs/tiny/snakemake.log", time.monotonic()
    while not (log.is_file() and "(Rule: train)" in log.read_text()):
        assert first.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() - started < 600, "no network was trained in ten minutes"
        time.sleep(0.2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    # a run whose last lines Snakemake did not see is scored again, but never trained again
    trained = [metrics.with_name("history.csv") for metrics in home.glob("runs/tiny/*/fold*/metrics.json")]
    files = [*trained, *home.glob("runs/tiny/cases/*/*.json")]
    kept = {path: path.stat().st_mtime_ns for path in files}
    result = metaseg(home, "study", "--study", STUDIES / "tiny.yaml")
    assert result.returncode == 0, result.stderr[-2000:] + log.read_text()[-2000:]
    return RestartedStudy(home, kept, result)


@pytest.fixture
def reviewed_study(write_case, tmp_path, monkeypatch):
    """Three cases in three folds; one network predicts the label, the other a cube elsewhere. Its layout."""
    monkeypatch.setenv("METASEG_HOME", str(tmp_path / "home"))
    layout, cases, tables, models = StudyLayout("tiny"), [], [], ("unet", "unetr")
    for i, axes in enumerate(("RAS", "LPI", "PIR")):
        case = write_case(f"c{i}", seed=i, axes=axes, spacing_mm=(1, 1, 1.5))
        cases.append(Case(**{**vars(case), "fold": i}))
        label = read_volume(case.label, case.name, np.uint8)
        elsewhere = np.zeros_like(label.array)
        elsewhere[14:21, 3:7, 3:7] = 1
        for model, array in (("unet", label.array), ("unetr", elsewhere)):
            mask = layout.run(model, i).predictions / f"{case.name}.nii.gz"
            write_volume(mask, Volume(array, label.affine, label.native_orientation))
    cohort = Cohort("tiny", "", cases)
    places = pd.DataFrame([{"case": "c0", "x": 7.0, "y": 7.5, "z": 8.0, "third": "inferior", "depth_mm": 5.0}])
    write_table(layout.lesions_table, places)
    write_datalist(layout.dataset, cohort, [layout.lesions_table])
    for model in models:
        scored = [score_cases([case], layout.run(model, case.fold).predictions, cohort.rule) for case in cases]
        tables.append([pd.concat(part, ignore_index=True).assign(model=model) for part in zip(*scored, strict=True)])
    for model, case in product(models, cases):
        run = layout.run(model, case.fold)
        scores = tables[models.index(model)][0]
        write_table(run.metrics_table, scores[scores["case"] == case.name].drop(columns="model"))
        write_record(run.metrics, {}, [run.metrics_table, run.predictions / f"{case.name}.nii.gz"])
    for name, parts in zip(("metrics", "lesions"), zip(*tables, strict=True), strict=True):
        write_table(layout.cross_validation / f"{name}.csv", pd.concat(parts, ignore_index=True))
    write_table(layout.leaderboard, pd.DataFrame({"model": [*models, "intensity_threshold"]}))
    write_record(layout.comparison, {}, layout.cross_validation.glob("*.csv"))
    return layout


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MB; called, it gets another size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")

    def resize(size):
        subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)

    yield folder, resize
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def all_said_in(folder):
    """All words of a folder, in small composed letters: of files, their names, and what pictures hold beside pixels."""
    said = []
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        pictures = [content, *(base64.b64decode(data) for data in re.findall(rb"base64,([\w+/=]+)", content))]
        said += [path.name, html.unescape(content.decode("utf-8", "replace"))]
        for picture in pictures:
            said.append(picture.decode("latin-1"))
            with contextlib.suppress(UnidentifiedImageError):
                said.append(str(Image.open(io.BytesIO(picture)).info))
    return unicodedata.normalize("NFC", "\n".join(said)).lower()


CHROMIUM = "/usr/bin/chromium"
# Software rendering, and nothing of its own that asks a network.
CHROMIUM_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-gpu-watchdog",  # on a busy machine it takes drawing by software for a hang, and the picture is lost
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium():
    """A browser without a window; where there is none the test is skipped, or fails if METASEG_NEEDS_BROWSER is set."""
    missing = "" if Path(CHROMIUM).is_file() else f"no {CHROMIUM}: apt-get install chromium"
    if importlib.util.find_spec("playwright") is None:
        missing = "playwright is not installed: pip install -e '.[dev]'"
    if missing and os.environ.get("METASEG_NEEDS_BROWSER"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()
