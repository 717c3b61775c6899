"""Snakemake's logger plugin "events": what happens to the steps of a study, as lines of JSON, for batch/study.py."""

import json
import logging
import os

from snakemake_interface_logger_plugins.base import LogHandlerBase

FIELDS = ("event", "jobid", "rule_name", "wildcards", "log", "done", "total")


class LogHandler(LogHandlerBase):
    """Append each event, and each message of an error, to the file METASEG_EVENTS."""

    writes_to_stream = writes_to_file = needs_rulegraph = False
    has_filter = has_formatter = True

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        facts = {name: getattr(record, name) for name in FIELDS if getattr(record, name, None) is not None}
        if record.levelno >= logging.ERROR:
            facts["error"] = record.getMessage()
        if facts:
            with open(os.environ["METASEG_EVENTS"], "a", encoding="utf-8") as events:
                events.write(json.dumps(facts, default=str) + "\n")
