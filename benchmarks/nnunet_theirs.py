"""nnU-Net's side of `nnunet.py`, in its own environment: plan, train for so many CPU seconds on one thread, predict.

    BENCH_FOLDER/venv/bin/python benchmarks/nnunet_theirs.py DATASET RESULTS SECONDS SEED

DATASET is a folder ``nnUNet_raw/Dataset<n>_<name>`` with ``imagesTr``, ``labelsTr``, ``imagesTs``, ``dataset.json`` and
``splits.json``. Its own trainer, augmentation, loss, SGD, schedule and deep supervision, and the weights of the last
epoch; its plan is one for small images. Of the trainer only the number of epochs and their length differ.
"""

import os
import sys
from pathlib import Path

DATASET, RESULTS, SECONDS, SEED = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
PREPROCESSED = DATASET.parent.with_name("nnUNet_preprocessed")
os.environ |= {"nnUNet_raw": str(DATASET.parent), "nnUNet_preprocessed": str(PREPROCESSED)}
os.environ |= {"nnUNet_results": str(RESULTS / "nnUNet_results"), "nnUNet_compile": "f", "nnUNet_n_proc_DA": "0"}
os.environ |= {
    name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "nnUNet_def_n_proc")
}

import json  # noqa: E402, nnU-Net reads the environment when it is imported
import random  # noqa: E402
import shutil  # noqa: E402
import time  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from nnunetv2.experiment_planning.plan_and_preprocess_api import (  # noqa: E402
    extract_fingerprints,
    plan_experiments,
    preprocess,
)
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO  # noqa: E402
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor  # noqa: E402
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: E402

PLANS, CONFIGURATION, CPU = "nnUNetPlans", "3d_fullres", torch.device("cpu")
CHANNELS, EDGE, BATCH = (16, 32, 64, 128), 32, 2
# Steps of an epoch: the learning rate falls from epoch to epoch.
ITERATIONS, TRIED = 25, 3


class TimedTrainer(nnUNetTrainer):
    """Their trainer with another number of epochs; notes the CPU seconds of its training steps."""

    def begin(self, epochs: int) -> "TimedTrainer":
        """Set the number of epochs before `run_training`."""
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = epochs, ITERATIONS, 1
        self.seconds = []
        return self

    def on_train_epoch_start(self) -> None:
        """Start the clock: what comes before and after the steps (its pictures, its validation) is not counted."""
        self.started = time.process_time()
        super().on_train_epoch_start()

    def on_train_epoch_end(self, train_outputs: list) -> None:
        """Stop it."""
        super().on_train_epoch_end(train_outputs)
        self.seconds.append(time.process_time() - self.started)


class Predictor(nnUNetPredictor):
    """Theirs, but a window is shown twice: for a single one PyTorch takes a convolution that is five times slower."""

    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        return super()._internal_maybe_mirror_and_predict(torch.cat([x, x]))[:1]


def prepare() -> None:
    """Plan and preprocess the data set once, with a plan for small images."""
    done, number = PREPROCESSED / DATASET.name / "done", int(DATASET.name[7:10])
    if done.exists():
        return
    extract_fingerprints([number], num_processes=1)
    os.environ |= {"nnUNet_n_proc_DA": "1"}  # planning sets so many threads, and 0 is none
    plan_experiments([number])
    os.environ |= {"nnUNet_n_proc_DA": "0"}
    path = PREPROCESSED / DATASET.name / f"{PLANS}.json"
    plans = json.loads(path.read_text(encoding="utf-8"))
    own = plans["configurations"][CONFIGURATION]
    print("its own plan:", json.dumps(own), flush=True)
    own |= {"patch_size": [EDGE] * 3, "batch_size": BATCH}
    own["architecture"]["arch_kwargs"] |= {
        "n_stages": len(CHANNELS),
        "features_per_stage": list(CHANNELS),
        "kernel_sizes": [[3] * 3] * len(CHANNELS),
        "strides": [[1] * 3] + [[2] * 3] * (len(CHANNELS) - 1),
        "n_conv_per_stage": [2] * len(CHANNELS),
        "n_conv_per_stage_decoder": [2] * (len(CHANNELS) - 1),
    }
    path.write_text(json.dumps(plans, indent=1), encoding="utf-8")
    preprocess([number], PLANS, [CONFIGURATION], [1])
    shutil.copy(DATASET / "splits.json", PREPROCESSED / DATASET.name / "splits_final.json")
    done.touch()


def trained(epochs: int) -> TimedTrainer:
    """Train with this script's seed."""
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002, what they draw from
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    folder = PREPROCESSED / DATASET.name
    plans, facts = (json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in (PLANS, "dataset"))
    trainer = TimedTrainer(plans | {"continue_training": False}, CONFIGURATION, 0, facts, CPU).begin(epochs)
    trainer.run_training()
    return trainer


def main() -> None:
    prepare()
    shutil.rmtree(RESULTS, ignore_errors=True)
    tried = trained(TRIED)
    epochs = max(1, round(SECONDS / np.mean(tried.seconds[1:])))
    shutil.rmtree(tried.output_folder)
    trainer = trained(epochs)
    predictor = Predictor(use_mirroring=False, perform_everything_on_device=False, device=CPU, allow_tqdm=False)
    trainer.set_deep_supervision_enabled(False)
    weights, (plans, facts) = [trainer.network.state_dict()], (trainer.plans_manager, trainer.dataset_json)
    predictor.manual_initialization(
        trainer.network.eval(), plans, trainer.configuration_manager, weights, facts, "TimedTrainer", None
    )
    (RESULTS / "probabilities").mkdir()
    (validation,) = (split["val"] for split in json.loads((DATASET / "splits.json").read_text(encoding="utf-8")))
    files = [DATASET / "imagesTr" / f"{name}_0000.nii.gz" for name in validation]
    files += sorted((DATASET / "imagesTs").iterdir())
    start = time.process_time()
    for file in files:
        image, facts = SimpleITKIO().read_images([str(file)])
        _, found = predictor.predict_single_npy_array(image, facts, save_or_return_probabilities=True)
        probability = found[1].transpose(2, 1, 0).astype(np.float16)
        name = file.name.removesuffix("_0000.nii.gz")
        np.savez_compressed(RESULTS / "probabilities" / f"{name}.npz", probability=probability)
    record = {
        "cpu_s": sum(trainer.seconds),
        "steps": epochs * ITERATIONS,
        "epochs": epochs,
        "million_parameters": sum(p.numel() for p in trainer.network.parameters()) / 1e6,
        "prediction_s": (time.process_time() - start) / len(files),
    }
    (RESULTS / "record.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
