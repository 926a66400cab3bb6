"""Prediction on the workers of a cluster: each takes parts of the cases, as `--part` does."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from autospine.cluster.dask_cluster import DaskCluster
from autospine.cluster.executor import ClusterError, Lost, Need, Task
from autospine.cluster.worker_side import unwanted_check, wait_for_lock
from autospine.core.errors import counted, listed
from autospine.dataset.case_parts import CasePart
from autospine.models.archive import opened_model
from autospine.models.model_folder import ModelFolder
from autospine.prediction.case_log import PredictedCase
from autospine.prediction.case_outputs import PreviewDrawer
from autospine.prediction.part_records import join_parts
from autospine.prediction.predict_cases import predict, prepare_output
from autospine.prediction.prediction_memory import prediction_memory
from autospine.prediction.prediction_options import PredictionOptions
from autospine.prediction.prediction_run import Predicted, warn_of_training_images
from autospine.storage.part_folders import part_folder, part_lock
from autospine.storage.trained_models import named_model
from autospine.system.allocation import use_huge_pages
from autospine.system.log import get_logger, progress

logger = get_logger(__name__)

PARTS_PER_WORKER = 4
"""Parts for each worker: with more of them none waits long for the last one, with fewer networks are loaded
less often."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedParts:
    """What all parts of a prediction have in common. All paths are absolute, but the name of the starter."""

    models: tuple[Path, ...]
    inputs: tuple[Path, ...]
    output: Path
    options: PredictionOptions
    draw_preview: PreviewDrawer | None
    """Draws previews; a function of a module. None for no previews."""

    only: tuple[str, ...] | None
    """Cases to predict, of those that the inputs hold; None for all of them."""


def predict_on_cluster(
    models: Sequence[ModelFolder], work: PredictedParts, cluster: DaskCluster
) -> Predicted:
    """Predict cases as `predict` does, part by part on the workers.

    Args:
        models: The opened models.
        work: What is predicted with them.
        cluster: The workers.

    Raises:
        ClusterError: If no worker is large enough for a case, the cluster is gone, or parts were not
            predicted because their workers were killed; the other label maps are there.
        AutospineError: As `predict` says.
    """
    cases, faults, maps = prepare_output(models, work.inputs, work.output, work.options, work.only)
    names = (*(case.name for case in cases), *faults)
    needs = prediction_memory(models, cases, work.options.folds)
    gpu = cluster.uses_gpu(work.options.device)
    count = min(len(names), PARTS_PER_WORKER * cluster.workers)
    parts = [CasePart(number=number, count=count) for number in range(1, count + 1)]
    tasks = [
        Task(
            name=f"part {part}",
            argument=part,
            need=Need(memory_bytes=max(needs.get(name, 0) for name in part.of(names)), gpu=gpu, alone=True),
        )
        for part in parts
    ]
    join_parts(work.output)  # of an earlier run in other parts
    kept: set[str] = set()
    entries: dict[str, PredictedCase] = {}
    lost: dict[str, str] = {}
    try:
        with progress("predict", len(names)) as meter:
            for task, outcome in cluster.run(partial(_predict_part, work=work), tasks):
                if isinstance(outcome, Lost):
                    lost[task.name] = outcome.reason
                else:
                    kept |= outcome.kept
                    entries |= {entry.case: entry for entry in outcome.cases}
                meter.advance(len(task.argument.of(names)))
    except KeyboardInterrupt:
        logger.warning("workers finish the cases that they are at; the same command goes on with --continue")
        raise
    join_parts(work.output)  # if a worker was killed between its last case and this
    if lost:
        raise ClusterError(
            f"expected every part of the cases to be predicted, found {counted(len(lost), 'part')} lost "
            f"({listed(list(lost))}): {next(iter(lost.values()))}; run the same command again with --continue"
        )
    entries = {name: entries[name] for name in sorted(entries)}
    warn_of_training_images(entries)
    there = {name for name, entry in entries.items() if entry.status != "failed"}
    written = tuple(maps.path(case) for case in cases if case.name in there)
    return Predicted(cases=tuple(entries.values()), written=written, kept=frozenset(kept))


def _predict_part(part: CasePart, *, work: PredictedParts) -> Predicted:
    """Predict a part in a worker."""
    lock = part_lock(part_folder(work.output, part.number, part.count))
    wait_for_lock(lock)
    use_huge_pages()
    with ExitStack() as bundles:
        opened = [bundles.enter_context(opened_model(named_model(model))) for model in work.models]
        return predict(
            *(opened, work.inputs, work.output, work.options, work.draw_preview),
            only=work.only,
            part=part,
            unwanted=unwanted_check(),
        )
