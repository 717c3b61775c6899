"""Memory that is used again: fresh pages cost a batch of patches several times what filling it does."""

import weakref

import numpy as np
import torch


class Buffers:
    """Tensors of one shape and type, whose memory is handed out again as soon as nobody holds it.

    Parameters
    ----------
    shape : tuple of ints
    dtype : NumPy type
    """

    def __init__(self, shape: tuple[int, ...], dtype: type):
        self._shape, self._dtype = shape, dtype
        self._lent: list[tuple[np.ndarray, weakref.ref]] = []

    def take(self) -> torch.Tensor:
        """Give a tensor that shares memory with no other in use; what it holds is left over from before."""
        free = [i for i, (_, holder) in enumerate(self._lent) if holder() is None]
        array = self._lent.pop(free[0])[0] if free else np.empty(self._shape, self._dtype)
        # a tensor, its views and what is made of them hold this view as long as one of them is there
        view = array.view()
        self._lent.append((array, weakref.ref(view)))
        return torch.from_numpy(view)
