"""The attention of a model in one image, on the image's grid, and whether it looks at boundaries."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from autospine.core.errors import ModelError
from autospine.core.modality import guess_modality
from autospine.core.types import LabelArray, Modality, ScoreMap
from autospine.evaluation.boundary_saliency import BoundaryRegion, boundary_region
from autospine.inference.attention_scan import StageAttention, scan_attention
from autospine.inference.predictor import Predictor
from autospine.io.images import Volume, read_labels, read_volume, write_map
from autospine.models.model_folder import ModelFolder
from autospine.network.swin.swin_unetr import AdaptiveSwinUNETR
from autospine.prediction.build_predictor import build_predictor
from autospine.preprocessing.prepare import Prepared, prepare_image
from autospine.preprocessing.resample import LINEAR, resample
from autospine.storage.serialization import write_json

FORMAT_VERSION = 1
JSON = "attention.json"

MEAN, RECEIVED = "mean", "received"
"""Names of maps that are no single head's: the mean saliency of a stage, and the attention received."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionFinding:
    """One map of a stage."""

    stage: int
    """Number of the stage, from 1."""

    map: str
    """`mean` (saliency, mean over the heads), `head1` ... (that of a head), or `received`."""

    gamma: float | None
    """Mean gamma of the head, or of all heads, over blocks and networks; None for `received`."""

    spread: float | None
    """Standard deviation of the saliency in logits over the image: 0 where the mechanism does nothing; None
    for `received`."""

    auc: float | None
    """How well the map tells voxels within 2 mm of a boundary from the others; None without a boundary."""

    curve: tuple[tuple[float, float], ...]
    """Distance in mm and mean of the map there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionResult:
    """The attention of a model in an image: its maps and figures."""

    volume: Volume
    labels: LabelArray
    """Label values whose boundaries were taken, on the volume's canonical grid."""

    findings: tuple[AttentionFinding, ...]
    fusion_weights: tuple[float, ...]
    """w_i, mean over the networks."""

    maps: dict[str, ScoreMap]
    """Mean saliency and received attention of each stage on the volume's grid, by their files' names."""

    written: tuple[Path, ...]
    """Files that were written."""

    @property
    def headline(self) -> AttentionFinding:
        """The mean saliency of the first stage that has one; the attention received where none has."""
        first = [each for each in self.findings if each.map == MEAN]
        return first[0] if first else self.findings[0]


def write_attention(
    model: ModelFolder,
    image: Path,
    output: Path,
    *,
    device: torch.device,
    folds: Sequence[str] | None = None,
    modality: Modality | None = None,
    reference: Path | None = None,
    heads: bool = False,
) -> AttentionResult:
    """Write the maps of a model's attention in an image as files on its grid, and measure them.

    Args:
        model: The model.
        image: A file, or a folder of DICOM slices.
        output: Folder for the files.
        device: Device that the prediction runs on, whose boundaries are taken without a reference.
        folds: Names of the folds; by default those that predict together.
        modality: Modality of the image; guessed if None.
        reference: Label map whose boundaries are taken; None for the model's own prediction.
        heads: Whether the saliency of each head is written too.

    Raises:
        ModelError: If the network has no attention, or takes more than one channel.
        ImageError: If image or reference cannot be read.
    """
    plan, configuration = model.plan, model.configuration
    if len(plan.channels) > 1:
        raise ModelError(
            f"expected a model of one channel, found one of {', '.join(plan.channels)}; maps are made for "
            "single images only"
        )
    volume = read_volume(image)
    kind = modality or guess_modality(volume.array[0])
    networks = model.networks(folds)
    prepared = prepare_image(volume, kind, configuration.spacing_mm, plan.normalisation[kind])
    stages = scan_attention(networks, prepared.normalised(), configuration.patch_size)
    if reference is None:
        predictor = build_predictor([model], device, folds)
        assert isinstance(predictor, Predictor)  # it is of one model
        labels = predictor.predict(volume, kind)
    else:
        labels = _read_reference(reference, model, volume)
    region = boundary_region(plan.labels.encode(labels), volume.grid.spacing_mm)
    findings: list[AttentionFinding] = []
    shown: dict[str, ScoreMap] = {}
    written: list[Path] = []
    for each in _maps(stages, networks):
        native = _on_volume(each.values, prepared)
        if each.of_all_heads or heads:
            written.append(output / f"{each.file}{plan.file_ending}")
            output.mkdir(parents=True, exist_ok=True)
            write_map(written[-1], native, volume.stored)
        if each.of_all_heads:
            shown[each.file] = native
        findings.append(_finding(each, native, region))
    result = AttentionResult(
        volume=volume,
        labels=labels,
        findings=tuple(findings),
        fusion_weights=_fusion_weights(networks),
        maps=shown,
        written=(*written, output / JSON),
    )
    described = {
        "format_version": FORMAT_VERSION,
        "boundaries": "of the prediction" if reference is None else "of the reference",
        "fusion_weights": list(result.fusion_weights),
        "maps": [asdict(each) for each in findings],
    }
    write_json(output / JSON, described)
    return result


@dataclass(frozen=True, kw_only=True, slots=True)
class _AttentionMap:
    """One map of a stage on the prepared image's voxels."""

    stage: int
    name: str
    """`mean`, `head1` ... or `received`."""

    gamma: float | None
    """Mean gamma over blocks and networks; None for `received`."""

    values: ScoreMap

    @property
    def of_all_heads(self) -> bool:
        """Whether the map is that of no single head, so that it is written and shown in any case."""
        return self.name in (MEAN, RECEIVED)

    @property
    def file(self) -> str:
        """Name of its file, without the ending."""
        return f"stage{self.stage}_{'saliency' if self.name == MEAN else self.name}"


def _read_reference(path: Path, model: ModelFolder, volume: Volume) -> LabelArray:
    """Read the label values of a reference in the axes of the image.

    Raises:
        ModelError: If it has another number of voxels.
    """
    labels: LabelArray = read_labels(path, model.plan.labels).turned_to(volume.grid)[0]
    if labels.shape != volume.grid.shape:
        raise ModelError(
            f"expected a label map of {volume.grid.shape} voxels as the image, found {labels.shape} in "
            f"{path}; give one on the image's grid"
        )
    return labels


def _finding(each: _AttentionMap, native: ScoreMap, region: BoundaryRegion | None) -> AttentionFinding:
    """Measure a map; `native` are its values on the volume's voxels, `region` lies at the boundaries."""
    auc = math.nan if region is None else region.auc(native)
    return AttentionFinding(
        stage=each.stage,
        map=each.name,
        gamma=each.gamma,
        spread=None if each.name == RECEIVED else round(float(each.values.std()), 6),
        auc=None if math.isnan(auc) else round(auc, 4),
        curve=() if region is None else region.curve(native),
    )


def _fusion_weights(networks: Sequence[torch.nn.Module]) -> tuple[float, ...]:
    """Return w_i, mean over the networks."""
    swin = [network for network in networks if isinstance(network, AdaptiveSwinUNETR)]
    weights = torch.stack([network.fusion_weights() for network in swin]).mean(dim=0)
    return tuple(round(float(value), 6) for value in weights)


def _maps(stages: Sequence[StageAttention], networks: Sequence[torch.nn.Module]) -> Iterator[_AttentionMap]:
    """Yield the maps of each stage: the mean saliency, that of each head, and the attention received."""
    for each in stages:
        stage = each.stage
        if each.saliency is not None:
            gammas = _gammas(networks, stage)
            mean = each.saliency.mean(axis=0)
            yield _AttentionMap(stage=stage, name=MEAN, gamma=round(float(gammas.mean()), 6), values=mean)
            for head, values in enumerate(each.saliency):
                gamma = round(float(gammas[head]), 6)
                yield _AttentionMap(stage=stage, name=f"head{head + 1}", gamma=gamma, values=values)
        yield _AttentionMap(stage=stage, name=RECEIVED, gamma=None, values=each.received)


def _gammas(networks: Sequence[torch.nn.Module], stage: int) -> np.ndarray:
    """Return gamma of each head of a stage, mean over blocks and networks."""
    swin = [network for network in networks if isinstance(network, AdaptiveSwinUNETR)]
    blocks = [gamma for network in swin for gamma in network.saliency_gammas()[stage - 1]]
    return torch.stack(blocks).mean(dim=0).cpu().numpy()


def _on_volume(values: Float32[np.ndarray, "s p l"], prepared: Prepared) -> ScoreMap:
    """Return a map on the volume's own voxels; it is 0 where the volume was cropped."""
    cropped = prepared.crop.shape
    whole = np.zeros(prepared.source_shape, dtype=np.float32)
    whole[prepared.crop.slices] = resample(values[None].astype(np.float32), cropped, LINEAR)[0]
    return whole
