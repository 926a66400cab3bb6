"""The sliding window as it is written in a book: everything is held at once."""

from itertools import product

import numpy as np
import torch

from autospine.inference.tiles import TileGrid, gaussian_weights
from autospine.preprocessing.prepare import prepare_image
from autospine.preprocessing.resample import LINEAR, resample


@torch.no_grad()
def blended(image, networks, tile, background, regions=False):
    """Mean probabilities (K, S, P, L) of a normalised image (C, S, P, L), and the tiles that were run."""
    shape = image.shape[1:]
    layout = TileGrid.covering(shape, tile)
    before = [-starts[0] for starts in layout.starts]
    grown = [max(n, k) for n, k in zip(shape, tile, strict=True)]
    padded = background.view(-1, 1, 1, 1).expand(-1, *grown).clone()
    inside = (slice(None), *(slice(b, b + n) for b, n in zip(before, shape, strict=True)))
    padded[inside] = image
    weights, total, weight_sum = gaussian_weights(tile), 0, torch.zeros(grown)
    for start in product(*layout.starts):
        box = tuple(slice(a + b, a + b + k) for a, b, k in zip(start, before, tile, strict=True))
        where = (slice(None), *box)
        logits = torch.stack([network(padded[where][None])[0].float() for network in networks])
        probabilities = (logits.sigmoid() if regions else logits.softmax(1)).mean(0)
        if isinstance(total, int):
            total = torch.zeros(len(probabilities), *grown)
        counted = torch.zeros(tile)
        counted[layout.valid_region(start).counted_from(start).slices] = 1
        total[where] += probabilities * weights * counted
        weight_sum[box] += weights * counted
    return (total / weight_sum)[inside]


def scores(predictor, volume, modality="CT"):
    """What `Predictor.score_bands` hands out, in one piece."""
    configuration, labels = predictor.configuration, predictor.plan.labels
    prepared = prepare_image(
        volume, modality, configuration.spacing_mm, predictor.plan.normalisation[modality]
    )
    fine = blended(
        torch.from_numpy(prepared.normalised()),
        predictor.networks,
        configuration.patch_size,
        torch.tensor(prepared.transform.background),
        labels.regions,
    )
    whole = np.zeros((labels.n_channels, *volume.grid.shape), dtype=np.float32)
    if not labels.regions:
        whole[0] = 1
    whole[(slice(None), *prepared.crop.slices)] = resample(fine.numpy(), prepared.crop.shape, LINEAR)
    return whole
