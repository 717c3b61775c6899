"""Metrics, tests and tables of cross-validation (notebook 04)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "baseline": ["score_threshold"],
        "calibration": [
            "FAILURE_DICE",
            "flags_of_failures",
            "patient_uncertainty",
            "probability_scores",
            "reliability",
        ],
        "claims": ["claim_table", "network_kinds"],
        "comparison": ["pairwise", "patient_scores", "rank_distribution", "rank_test"],
        "conclusions": [
            "how_sure",
            "is_the_transformer_better",
            "known_and_new_sites",
            "training_sets",
            "which_network",
            "worst_classes",
        ],
        "detection": ["froc", "froc_points", "operating_points"],
        "fold_results": ["finish_run", "rescore", "scored_with"],
        "intervals": ["bootstrap_interval", "estimate"],
        "leaderboard": ["epoch_choice", "limits_of_agreement", "make_leaderboard", "means", "patient_volumes"],
        "pooling": ["finished_part", "pool"],
        "scoring": ["score_cases", "score_follow_up", "score_probability"],
        "sites": ["compared", "site_differences", "with_site_seen"],
        "strata": ["STRATA", "all_strata", "classified", "per_patient"],
    },
)
