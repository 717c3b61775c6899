"""Partly annotated cases: a training set knows less of them than their full labels do.

Such a label has `UNKNOWN` voxels. It is kept in a folder of its own, with two more files:

================  ========================================================
marked_boxes.npy  int32, shape (B, 3, 2): boxes that hold all voxels that are not 0
head_voxels.npy   int32, shape (N, 3): head voxels of the image that are known
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

# Value of voxels in a label of which nothing is known.
UNKNOWN = 2


def store_annotation(
    folder: Path, case: StoredCase, how: Mapping[str, Any], make: Callable[[], tuple[np.ndarray, np.ndarray]]
) -> StoredCase:
    """Store a partial annotation of a case, and open the case with it in place of its label.

    Parameters
    ----------
    folder : path
        Holds such annotations, a folder each.
    case : StoredCase
    how : mapping
        Everything else that decides the annotation; part of its identity.
    make : callable
        Called if the annotation is not stored yet. Returns the label, uint8 of shape (X, Y, Z): 0, 1 or `UNKNOWN`;
        and boxes that hold all voxels that are not 0, int of shape (B, 3, 2), the upper end exclusive.
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
