"""Metrics, tests and tables of cross-validation (notebook 04)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "baseline": ["score_threshold"],
        "calibration": ["patient_uncertainty", "probability_scores", "reliability"],
        "comparison": [
            "bootstrap_interval",
            "estimate",
            "pairwise",
            "patient_scores",
            "rank_distribution",
            "rank_test",
        ],
        "conclusions": [
            "claim_table",
            "how_sure",
            "is_the_transformer_better",
            "network_kinds",
            "training_sets",
            "which_network",
            "worst_classes",
        ],
        "detection": ["froc", "froc_points", "operating_points"],
        "fold_results": ["finish_run", "finished_part", "pool", "rescore", "scored_with"],
        "leaderboard": [
            "STRATA",
            "all_strata",
            "classified",
            "limits_of_agreement",
            "make_leaderboard",
            "missed_and_false",
            "patient_volumes",
            "per_patient",
            "epoch_choice",
            "with_costs",
        ],
        "scoring": ["score_cases", "score_probability"],
    },
)
