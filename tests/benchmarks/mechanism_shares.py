"""How much the mechanisms make up in a trained network: a part of `make bench-evidence`."""

import json
import tempfile
from pathlib import Path
from statistics import mean
from unittest import mock

from processes import autospine
from torch import Tensor

from autospine.cli import main
from autospine.network import AdaptiveSwinUNETR


def fusion_share(model: Path, images: Path) -> float:
    """Return the share of coarser levels in the spread of the logits, 0 to 1: the mean over all tiles.

    It is the standard deviation of what the levels add over the sum of that and of that of the finest logits.

    Args:
        model: Model folder.
        images: Folder of images to predict.
    """
    shares = []
    decode = AdaptiveSwinUNETR._decode

    def measured(
        self: AdaptiveSwinUNETR, x: Tensor, hidden: list[Tensor], coarse: list[Tensor] | None
    ) -> Tensor:
        logits = decode(self, x, hidden, coarse)
        if logits.is_meta:  # memory is estimated without values
            return logits
        with mock.patch.object(self, "level_fusion", None):
            fine = decode(self, x, hidden, coarse).float()
        added = float((logits.float() - fine).std())
        shares.append(added / (added + float(fine.std())))
        return logits

    words = ("--fold", "full", "--device", "cpu", "--no-naming", "--no-postprocessing", "--no-report")
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(AdaptiveSwinUNETR, "_decode", measured):
        status = main(["predict", "-m", str(model), "-i", str(images), "-o", folder, *words])
    if status:
        raise SystemExit(f"the prediction of {images} failed")
    return mean(shares)


def saliency_spread(model: Path, image: Path, workspace: Path) -> float:
    """Return the standard deviation of the first stage's saliency over an image, in logits of attention."""
    with tempfile.TemporaryDirectory() as folder:
        autospine(workspace, "attention", "-m", str(model), "-i", str(image), "-o", folder)
        maps = json.loads((Path(folder) / "attention.json").read_text(encoding="utf-8"))["maps"]
    spread: float = next(each for each in maps if each["map"] == "mean")["spread"]
    return spread
