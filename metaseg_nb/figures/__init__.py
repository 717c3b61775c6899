"""Pictures, figures and tables to read."""

from metaseg_nb import exported

__getattr__, __dir__, __all__ = exported(
    __name__,
    case_figures="describe_counts describe_problems draw_case_by_network draw_corrections draw_lesion_map draw_margin "
    "draw_montage draw_stored_cases draw_test_case draw_unlabelled pick_cases",
    raw_images="draw_brains draw_earlier_dates draw_lesions_over_time draw_registrations",
    reviewed="StudyTables read_case_images",
    style="PREDICTION REFERENCE Records draw fitted model_colour palette save_figure show_leaderboard show_table "
    "somebody_watches use_style with_titles",
    training="draw_batch draw_hidden draw_restored learning_curve live_learning_curve",
)
