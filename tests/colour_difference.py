"""How different colours look: CIEDE2000, for those who see all colours and for the red-green blind."""

import numpy as np
from jaxtyping import Float
from skimage.color import deltaE_ciede2000, rgb2lab

BLINDNESS = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
"""Linear red, green and blue as the red-green blind see them (Machado, Oliveira and Fernandes 2009, table of
severity 1)."""

Matrix = Float[np.ndarray, "n n"]


def differences(colours: Float[np.ndarray, "n 3"]) -> Matrix:
    """CIEDE2000 of all pairs of sRGB colours."""
    lab = rgb2lab(colours[None])[0]
    found: Matrix = deltaE_ciede2000(lab[:, None], lab[None])
    return found


def seen_with(colours: Float[np.ndarray, "n 3"], blindness: str) -> Float[np.ndarray, "n 3"]:
    """The sRGB colours that look to all as the given ones look to the red-green blind."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(BLINDNESS[blindness]), 0, 1)
    return np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)
