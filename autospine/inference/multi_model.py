"""Several models that predict together."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64

from autospine.core.errors import ModelError
from autospine.core.geometry import Box
from autospine.core.labels import LabelSpace
from autospine.core.types import LabelArray, Modality, ScoreArray
from autospine.inference.predictor import OnStart, Predictor, ignore_start
from autospine.inference.score_bands import ScoreBand, ScoreSink
from autospine.inference.to_native import THRESHOLD
from autospine.io.images import Volume
from autospine.plan import Plan
from autospine.system.log import progress


@dataclass(frozen=True, kw_only=True)
class JointPredictor:
    """Models of the same labels and channels, however different otherwise, with equal weights.

    Their probabilities are averaged on the image's own grid, a band of rows at a time.

    Raises:
        ModelError: If their labels or channels differ.
    """

    predictors: Sequence[Predictor]

    def __post_init__(self) -> None:
        first = self.plan
        for predictor in self.predictors[1:]:
            plan = predictor.plan
            if (plan.labels, plan.channels) != (first.labels, first.channels):
                raise ModelError(
                    "expected models of the same labels and channels to predict together, found "
                    f"{_described(first)} and {_described(plan)}; predict with one of them"
                )

    @property
    def plan(self) -> Plan:
        """Plan of the first model, whose labels and channels are those of all."""
        return self.predictors[0].plan

    def predict(
        self,
        volume: Volume,
        modality: Modality,
        description: str = "predict",
        on_start: OnStart = ignore_start,
        score_sink: ScoreSink | None = None,
    ) -> LabelArray:
        """Segment one volume, as `Predictor.predict` does; `on_start` is told of each model in turn."""
        labels = self.plan.labels
        whole = np.zeros(volume.grid.shape, dtype=labels.dtype)
        with progress(f"{description}, rows", volume.grid.shape[0]) as meter:
            streams = [
                predictor.score_bands(
                    volume, modality, f"{description}, {predictor.configuration.name}", on_start
                )
                for predictor in self.predictors
            ]
            for rows, scores in mean_bands(streams):
                if score_sink is not None:
                    box = Box(start=(rows.start, 0, 0), stop=(rows.stop, *volume.grid.shape[1:]))
                    for channel, part in enumerate(scores):
                        score_sink(box, channel, torch.from_numpy(part))
                whole[rows] = labels.decode(_decide(scores, labels))
                meter.advance(rows.stop - rows.start)
        return whole


def mean_bands(streams: Sequence[Iterable[ScoreBand]]) -> Iterator[ScoreBand]:
    """Average several streams of bands over the rows that all have at hand.

    Args:
        streams: Each covers the same rows in order, in bands of its own heights.
    """
    iterators = [iter(stream) for stream in streams]
    heads = [next(iterator, None) for iterator in iterators]
    while present := [head for head in heads if head is not None]:
        start, stop = present[0][0].start, min(rows.stop for rows, _ in present)
        total = present[0][1][:, : stop - start].copy()
        for _, scores in present[1:]:
            total += scores[:, : stop - start]
        total /= len(streams)
        yield slice(start, stop), total
        heads = [
            _after(head, stop) or next(rest, None) for head, rest in zip(present, iterators, strict=True)
        ]


def _after(band: ScoreBand, row: int) -> ScoreBand | None:
    """Return the part of a band that lies at or after a row."""
    rows, scores = band
    return (slice(row, rows.stop), scores[:, row - rows.start :]) if row < rows.stop else None


def _decide(
    scores: ScoreArray, labels: LabelSpace
) -> Bool[np.ndarray, "K S P L"] | Int64[np.ndarray, "S P L"]:
    """Return which voxels lie in which region, or the most likely class of each."""
    if labels.regions:
        inside: Bool[np.ndarray, "K S P L"] = scores > THRESHOLD
        return inside
    # PyTorch's argmax over the first axis runs in parallel, NumPy's does not.
    channels: Int64[np.ndarray, "S P L"] = torch.from_numpy(scores).argmax(dim=0).numpy()
    return channels


def _described(plan: Plan) -> str:
    return f"{', '.join(plan.labels.names)} from {', '.join(plan.channels)}"
