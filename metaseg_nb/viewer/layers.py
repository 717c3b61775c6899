"""What lies over the image of a case in a viewer, and can be switched on and off: outlines and agreement."""

from dataclasses import dataclass

import numpy as np

from metaseg_nb.figures.case_images import AGREEMENT_COLOURS, CaseImages
from metaseg_nb.figures.style import REFERENCE
from metaseg_nb.parameters import model_title

# Okabe & Ito 2008, of which the reference has the blue and the agreement the green.
NETWORK_COLOURS = ("#E69F00", "#CC79A7", "#F0E442", "#D55E00", "#0072B2")


@dataclass(frozen=True)
class Layer:
    """Values over an image, each with a colour.

    Parameters
    ----------
    array : ndarray of uint8, shape (X, Y, Z)
        0 where nothing is drawn.
    colours : dict of str to str
        Meaning and colour of the values 1, 2, ...
    """

    array: np.ndarray
    colours: dict[str, str]


def layers_of(images: CaseImages) -> dict[str, Layer]:
    """Layers by name: the reference, each network's outline, and the first network's agreement with the reference."""
    layers = {"reference": Layer(images.reference.astype(np.uint8), {"reference": REFERENCE})}
    for i, (model, mask) in enumerate(images.predictions.items()):
        title = model_title(model)
        colour = NETWORK_COLOURS[i % len(NETWORK_COLOURS)]
        layers[title] = Layer(mask.astype(np.uint8), {title: colour})
    for model in list(images.predictions)[:1]:  # each layer is a volume that the browser has to hold
        layers[f"agreement: {model_title(model)}"] = Layer(images.agreement(model), AGREEMENT_COLOURS)
    return layers
