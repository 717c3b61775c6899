"""Pictures, figures and tables to read."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "case_figures": [
            "draw_case_by_network",
            "draw_corrections",
            "draw_lesion_map",
            "draw_margin",
            "draw_montage",
            "draw_stored_cases",
            "draw_test_case",
            "draw_unlabelled",
            "pick_cases",
        ],
        "charts": ["draw", "learning_curve", "live_learning_curve", "palette", "somebody_watches", "with_titles"],
        "follow_up": ["draw_lesions_over_time"],
        "patches": ["draw_batch", "draw_hidden", "draw_restored"],
        "raw_images": ["draw_brains", "draw_earlier_dates", "draw_registrations"],
        "reviewed": ["StudyTables", "read_case_images"],
        "style": ["PREDICTION", "REFERENCE", "Records", "fitted", "model_colour", "save_figure", "use_style"],
        "tables": ["describe_counts", "describe_problems", "show_leaderboard", "show_table"],
    },
)
