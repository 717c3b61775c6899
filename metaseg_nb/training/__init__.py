"""Networks, patches and the training loop (notebooks 03 and 03b)."""

from metaseg_nb import exported

__getattr__, __dir__, __all__ = exported(
    __name__,
    checkpoints="is_finished keep_weights load_checkpoint network_of save_checkpoint",
    cost="network_cost",
    finished_run="finish finish_run run_facts scored_with",
    fit="train",
    patches="PatchBatches",
    pretraining="RestorationBatches load_unseen pretrained variance_restored",
)
