"""Many small pictures in one figure."""

import math

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH_INCHES = 11.0
# More columns, and so smaller panels, for many.
FEW, MANY = 60, 200


def grid_of_panels(n: int) -> tuple[Figure, list[Axes]]:
    """Make a figure with n panels, row by row; what is left of the last row stays blank."""
    columns = min(n, 6 if n <= FEW else 8 if n <= MANY else 10)
    size_inches = min(WIDTH_INCHES / columns, 4.0)
    rows = math.ceil(n / columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(columns * size_inches, rows * size_inches * 1.25), layout="constrained", squeeze=False
    )
    panels = panels.ravel().tolist()
    for panel in panels[n:]:
        panel.set_visible(False)
    return figure, panels[:n]
