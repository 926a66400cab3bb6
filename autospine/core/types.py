"""Array aliases with named axes, shared by every part.

Axes: `C` channel, `S` superior, `P` posterior, `L` left (the index grows in that direction),
`K` class, `B` batch. The aliases are documentation that the tests check at run time. Those of tensors
are in `autospine.core.tensor_types`.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Integer, Num

Vector3 = tuple[float, float, float]
Shape3 = tuple[int, int, int]
Slices3 = tuple[slice, slice, slice]
Modality = Literal["CT", "MR"]

VolumeArray = Num[np.ndarray, "C S P L"]
ChannelArray = Num[np.ndarray, "S P L"]
Position = Float64[np.ndarray, "3"]
Matrix3 = Float64[np.ndarray, "3 3"]
ImageArray = Float32[np.ndarray, "C S P L"]
LabelArray = Integer[np.ndarray, "S P L"]
MaskArray = Bool[np.ndarray, "S P L"]
ScoreArray = Float32[np.ndarray, "K S P L"]
ScoreMap = Float32[np.ndarray, "S P L"]
