"""Pictures and figures."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["cohort"],
    submod_attrs={
        "case_images": ["read_case_images"],
        "cases": ["draw_case_by_network", "draw_test_case", "draw_unlabelled", "pick_cases"],
        "charts": ["draw", "learning_curve", "palette", "with_titles"],
        "cohort_words": ["describe_counts", "describe_problems"],
        "leaderboard_table": ["show_leaderboard"],
        "live": ["live_learning_curve", "somebody_watches"],
        "preprocessing": ["draw_corrections", "draw_stored_cases"],
        "records": ["Records"],
        "restoration": ["draw_hidden", "draw_restored"],
        "style": ["PREDICTION", "REFERENCE", "fitted", "model_colour", "save_figure", "show_table", "use_style"],
        "training": ["draw_batch", "sampling_table"],
    },
)
