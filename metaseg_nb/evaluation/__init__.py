"""Metrics, tests and tables of cross-validation (notebook 04)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["answers"],
    submod_attrs={
        "agreement": ["limits_of_agreement", "missed_and_false"],
        "calibration": ["know_failures"],
        "claims": ["claim_table", "claims_by_network"],
        "comparison": ["pairwise", "patient_scores", "rank_distribution", "rank_test"],
        "detection": ["froc_points"],
        "fold_results": ["finish_run", "score_cases"],
        "leaderboard": ["make_leaderboard", "selection_luck", "with_costs"],
        "pooling": ["pool"],
        "probability_tables": ["score_probability"],
        "strata": ["all_strata", "classified", "per_patient"],
        "threshold_baseline": ["score_threshold"],
    },
)
