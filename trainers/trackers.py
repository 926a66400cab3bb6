"""Experiment trackers: who else is told how a training goes.

The files of a fold are always written; trackers come on top. A tracker of another distribution is an entry
point `autospine.trackers` that names a callable from a `TrackedRun` to a `Tracker`.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from filelock import FileLock

from autospine.core.errors import TrainingError

T = TypeVar("T")

GROUP = "autospine.trackers"

PROJECT = "autospine"
"""What trackers that keep several projects apart are told."""


MLFLOW_PARAMS, MLFLOW_METRICS = 100, 1000
"""What MLflow takes in one request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackedRun:
    """The training of one fold, as a tracker needs to know it."""

    group: str
    """Dataset and configuration, which the folds have in common."""

    name: str
    """Of the fold."""

    folder: Path
    """Of the fold; a tracker may keep files of its own in a folder inside."""

    identity: str
    """The same when an interrupted fold goes on, and for no other fold or seed."""

    epoch: int = 0
    """Epochs that are behind it, when it goes on."""

    params: Mapping[str, object] = field(default_factory=dict)
    """Flat names and values of the configuration."""


@runtime_checkable
class Tracker(Protocol):
    """What is told how a training goes. Whatever it raises is said once and never stops the training."""

    def log_params(self, params: Mapping[str, object]) -> None:
        """Told once, at the beginning."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Told at the end of every epoch; `step` is its number, from 1."""

    def log_image(self, name: str, path: Path, step: int) -> None:
        """Told a PNG."""

    def close(self) -> None:
        """The end, also of a training that fails."""


class TensorBoard:
    """Event files in the fold's folder `tensorboard`."""

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder / "tensorboard"
        # What an interrupted run wrote after its last checkpoint is taken back.
        self._writer: Any = SummaryWriter(str(folder), purge_step=run.epoch + 1 if run.epoch else None)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Write a table."""
        rows = [f"| {name} | {value} |" for name, value in params.items()]
        self._writer.add_text("configuration", "\n".join(["| | |", "|---|---|", *rows]))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Write scalars."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def log_image(self, name: str, path: Path, step: int) -> None:
        """Write the picture's pixels."""
        from matplotlib.image import imread

        self._writer.add_image(name, imread(path)[..., :3], step, dataformats="HWC")

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases; `WANDB_MODE=offline` keeps it on this machine."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self._wandb: Any = wandb
        self._run: Any = wandb.init(
            project=PROJECT,
            group=run.group,
            name=f"{run.group} {run.name}",
            id=_wandb_id(run),
            resume="allow",
            reinit="create_new",
            dir=str(run.folder),
            settings=wandb.Settings(silent=True),
        )

    def log_params(self, params: Mapping[str, object]) -> None:
        """Set the run's configuration."""
        self._run.config.update(dict(params), allow_val_change=True)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the numbers."""
        self._run.log(dict(metrics), step=step)

    def log_image(self, name: str, path: Path, step: int) -> None:
        """Log the picture."""
        self._run.log({name: self._wandb.Image(str(path))}, step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class MLflow:
    """A run of the server or folder that `MLFLOW_TRACKING_URI` names, or MLflow's own default."""

    def __init__(self, run: TrackedRun) -> None:
        from mlflow.tracking import MlflowClient

        name = f"{PROJECT} {run.group}"
        # Folds that begin side by side would make the same database and experiment twice.
        with FileLock(run.folder.parent / ".mlflow.lock"):
            self._client: Any = MlflowClient()
            found = self._client.get_experiment_by_name(name)
            place = found.experiment_id if found else self._client.create_experiment(name)
        same = self._client.search_runs([place], f"tags.identity = '{run.identity}'", max_results=1)
        self._goes_on = bool(same) and run.epoch > 0
        if self._goes_on:
            self._id = same[0].info.run_id
        else:
            tags = {"identity": run.identity}
            self._id = self._client.create_run(place, run_name=run.name, tags=tags).info.run_id
        self._client.update_run(self._id, status="RUNNING")

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log them, a hundred at a time; MLflow lets none of a run that goes on change."""
        if self._goes_on:
            return
        from mlflow.entities import Param

        made = [Param(name, str(value)) for name, value in params.items()]
        for part in _batched(made, MLFLOW_PARAMS):
            self._client.log_batch(self._id, params=part)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the numbers, all of them in one request."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        made = [Metric(_plain(name), value, now, step) for name, value in metrics.items()]
        for part in _batched(made, MLFLOW_METRICS):
            self._client.log_batch(self._id, metrics=part)

    def log_image(self, name: str, path: Path, step: int) -> None:
        """Keep the picture as an artifact."""
        self._client.log_artifact(self._id, str(path))

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._id)


@dataclass(frozen=True, kw_only=True, slots=True)
class _BuiltIn:
    make: Callable[[TrackedRun], Tracker]
    package: str
    """That it cannot do without; the extra of its name installs it."""


BUILT_IN = {
    "tensorboard": _BuiltIn(make=TensorBoard, package="tensorboard"),
    "wandb": _BuiltIn(make=WandB, package="wandb"),
    "mlflow": _BuiltIn(make=MLflow, package="mlflow"),
}


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are not there, before anything starts.

    Raises:
        TrainingError: if a name is unknown, or its package is not installed.
    """
    known = sorted({*BUILT_IN, *(entry.name for entry in entry_points(group=GROUP))})
    for name in names:
        if name not in known:
            raise TrainingError(
                f"expected --tracker among {', '.join(known)}, found {name!r}; choose one of them, or "
                f"install a distribution with an entry point {GROUP} of that name"
            )
        built_in = BUILT_IN.get(name)
        if built_in is not None and find_spec(built_in.package) is None:
            raise TrainingError(
                f"expected the package {built_in.package} for --tracker {name}, found none; "
                f"install it with: pip install 'autospine[{name}]'"
            )


def flat(nested: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested names joined by dots; sequences as texts."""
    found: dict[str, object] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            plain = value is None or isinstance(value, bool | int | float | str)
            found[f"{prefix}{name}"] = value if plain else str(value)
    return found


class Trackers:
    """Several trackers of one run, none of which can stop the training.

    They are opened when there is something to tell. One that fails is left out from then on.

    Args:
        names: as `check_trackers` lets them pass.
        run: what they are told about; not needed without any.
    """

    def __init__(self, names: Sequence[str], run: TrackedRun | None = None) -> None:
        self._waiting, self._run = tuple(names), run
        self._open: dict[str, Tracker] = {}
        self._failures: dict[str, str] = {}

    def failures(self) -> dict[str, str]:
        """What failed since this was last asked: `tracker_NAME` -> sentence."""
        failures, self._failures = self._failures, {}
        return failures

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Tell every tracker the numbers of an epoch."""
        self._start()
        self._each("told", lambda tracker: tracker.log_metrics(metrics, step))

    def log_image(self, name: str, path: Path, step: int) -> None:
        """Show every tracker a PNG."""
        self._each("shown a picture", lambda tracker: tracker.log_image(name, path, step))

    def close(self) -> None:
        """End every run."""
        self._each("closed", lambda tracker: tracker.close())
        self._open = {}

    def _start(self) -> None:
        waiting, self._waiting = self._waiting, ()
        if self._run is None or not waiting:
            return
        for name in waiting:
            try:
                self._open[name] = _maker(name)(self._run)
            except Exception as error:  # whatever other people's code raises
                self._failed(name, "opened", error)
        params = self._run.params
        self._each("told the configuration", lambda tracker: tracker.log_params(params))

    def _each(self, doing: str, tell: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                tell(tracker)
            except Exception as error:  # whatever other people's code raises
                del self._open[name]
                self._failed(name, doing, error)

    def _failed(self, name: str, doing: str, error: Exception) -> None:
        reason = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        self._failures[f"tracker_{name}"] = (
            f"the tracker {name} could not be {doing} ({reason}) and is left out; "
            "training goes on and its own files are whole"
        )


def _maker(name: str) -> Callable[[TrackedRun], Tracker]:
    if (built_in := BUILT_IN.get(name)) is not None:
        return built_in.make
    entry: EntryPoint = next(iter(entry_points(group=GROUP, name=name)))
    loaded: Callable[[TrackedRun], Tracker] = entry.load()
    return loaded


def _wandb_id(run: TrackedRun) -> str:
    """The id under which W&B knows a run: a new one, unless the fold goes on in the folder where it began.

    Where a fold is trained anew, its run of before would drop every step that it has already.
    """
    path = run.folder / "wandb" / "run_id.txt"
    kept = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    if run.epoch > 0 and kept:
        return kept
    made = f"{secrets.token_hex(4)}-{run.identity}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(made, encoding="utf-8")
    return made


def _batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _plain(name: str) -> str:
    """A metric's name with nothing in it that MLflow refuses."""
    return "".join(letter if letter.isalnum() or letter in "_-./ " else "_" for letter in name)
