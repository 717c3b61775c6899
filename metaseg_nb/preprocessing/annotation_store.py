"""Cases of which a training set knows less than their labels do.

The label part of such a case lies in a folder of its own, with `UNKNOWN` voxels, and with two more files:

================  ========================================================
marked_boxes.npy  int32, shape (B, 3, 2): hold all voxels that are not 0
head_voxels.npy   int32, shape (N, 3): those of the image's that are known
================  ========================================================
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from metaseg_nb.checksums import write_record
from metaseg_nb.preprocessing.case_store import StoredCase, facts_file, is_stored, save_array, save_label
from metaseg_nb.settings import settings_hash

# Value in a label of voxels that nobody said anything of.
UNKNOWN = 2


def store_annotation(
    folder: Path, case: StoredCase, how: Mapping[str, Any], make: Callable[[], tuple[np.ndarray, np.ndarray]]
) -> StoredCase:
    """Write what is known of a case for training, and open it in the label's place.

    Parameters
    ----------
    folder : path
        Of such annotations.
    case : StoredCase
    how : mapping
        All that decides the annotation beside the case; goes into its identity.
    make : callable
        Called if it is not there yet. Returns the label, uint8 of shape (X, Y, Z): 0, 1 or `UNKNOWN`; and boxes that
        hold all voxels that are not 0, int of shape (B, 3, 2), the upper end beyond.
    """
    facts = {"recipe": case.recipe, "sources": case.sources, "how": dict(how)}
    facts["identity"] = settings_hash({"case": case.identity, "how": facts["how"]})
    opened = replace(case, label_facts=facts, annotation=folder / case.name)
    if not is_stored(folder, case.name, "label", facts["identity"]):
        label, boxes = make()
        head = case.head_voxels
        known = head[label[tuple(head.T)] != UNKNOWN]
        arrays = {"marked_boxes": np.asarray(boxes, np.int32).reshape(-1, 3, 2)}
        arrays |= {"head_voxels": known if len(known) else head}
        files = [save_array(opened.annotation / f"{name}.npy", array) for name, array in arrays.items()]
        write_record(facts_file(opened.annotation, "label"), facts, [*save_label(opened.annotation, label), *files])
    return opened
