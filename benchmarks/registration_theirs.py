"""Register with elastix: python registration_theirs.py FOLDER with first and other (.nii.gz); prints JSON.

It runs in an environment of its own, made by ``registration.py``. The matrix leads from millimetres in the first
image's world (LPS) to those in the other's.
"""

import json
import sys
import time
from pathlib import Path

import itk
import numpy as np


def main() -> None:
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(1)
    folder = Path(sys.argv[1])
    first, other = (itk.imread(str(folder / f"{name}.nii.gz"), itk.F) for name in ("first", "other"))
    parameters = itk.ParameterObject.New()
    parameters.AddParameterMap(parameters.GetDefaultParameterMap("rigid", 4))
    start = time.process_time()
    _, result = itk.elastix_registration_method(first, other, parameter_object=parameters)
    seconds = time.process_time() - start
    found = result.GetParameterMap(0)
    angles, shift = np.array(found["TransformParameters"], float).reshape(2, 3)
    centre = np.array(found["CenterOfRotationPoint"], float)
    (sx, sy, sz), (cx, cy, cz) = np.sin(angles), np.cos(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = about_z @ about_x @ about_y
    matrix[:3, 3] = shift + centre - matrix[:3, :3] @ centre
    print(json.dumps({"matrix": matrix.tolist(), "seconds": seconds}))


if __name__ == "__main__":
    main()
