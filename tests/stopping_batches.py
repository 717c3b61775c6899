"""Training patches that end a run at a step, as a kill would."""

from metaseg_nb.training.patches import PatchBatches


class Stopped(Exception):
    """What ends a run."""


class Stopping(PatchBatches):
    """Batches that end in an exception at a step."""

    def __init__(self, cases, settings, stop_at, **more):
        super().__init__(cases, settings, **more)
        self.stop_at = stop_at

    def packed(self, step):
        if step == self.stop_at:
            raise Stopped(step)
        return super().packed(step)
