"""Metrics, tests and tables of cross-validation (notebook 04)."""

from metaseg_nb import exported

__getattr__, __dir__, __all__ = exported(
    __name__,
    baseline="score_threshold",
    calibration="FAILURE_DICE flags_of_failures patient_uncertainty probability_scores reliability",
    comparison="epoch_choice limits_of_agreement make_leaderboard means pairwise patient_scores patient_volumes "
    "rank_distribution rank_test",
    conclusions="claim_table how_sure is_the_transformer_better known_and_new_sites network_kinds not_compared_alike "
    "training_sets what_would_help_the_transformer which_network worst_classes",
    detection="froc froc_points operating_points",
    intervals="bootstrap_interval estimate",
    pooling="compared finished_part pool",
    scoring="rescore score_cases score_follow_up score_probability",
    strata="STRATA all_strata classified per_patient site_differences with_site_seen",
)
