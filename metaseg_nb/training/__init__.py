"""Networks, patches and the training loop (notebooks 03 and 03b)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checkpoints": ["is_finished", "keep_weights", "load_checkpoint", "network_of", "save_checkpoint"],
        "cost": ["network_cost"],
        "finished_run": ["finish", "run_facts"],
        "fit": ["train"],
        "patches": ["PatchBatches"],
        "pretraining": ["RestorationBatches", "load_unseen", "pretrained", "variance_restored"],
    },
)
