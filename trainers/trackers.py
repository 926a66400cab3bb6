"""Experiment trackers, which receive the numbers of a training in addition to its files.

A tracker of another distribution is an entry point in the group `autospine.trackers` that names a callable
from a `TrackedRun` to a `Tracker`.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from filelock import FileLock

from autospine.core.errors import TrainingError
from autospine.core.plugins import find_plugin, let_interrupts_pass, plugin_names, warn_if_hidden
from autospine.storage.atomic import write_text
from autospine.storage.file_names import folder_to_write

T = TypeVar("T")

GROUP = "autospine.trackers"
"""Group of the entry points."""

PROJECT = "autospine"
"""Name of the project in W&B, and prefix of the experiments in MLflow."""

LOCK_SECONDS = 120.0
"""Longest wait for another fold that opens the same tracker; then training goes on without it."""

MLFLOW_PARAMS, MLFLOW_METRICS = 100, 1000
"""Largest numbers of parameters and of metrics in one request (limits of MLflow's REST API)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrackedRun:
    """Description of the training of one fold for a tracker."""

    group: str
    """Dataset and configuration, which the folds have in common."""

    name: str
    """Name of the fold."""

    folder: Path
    """Folder of the fold; a tracker may keep its own files in a folder inside."""

    identity: str
    """Identity of the run: the same if an interrupted fold resumes, another for every other fold or seed."""

    epoch: int = 0
    """Epochs that a resumed fold has completed; 0 for a new one."""

    params: Mapping[str, object] = field(default_factory=dict)
    """Values of the configuration by flat names."""


@runtime_checkable
class Tracker(Protocol):
    """Receiver of the numbers of a training.

    If a method raises an error, a warning says so once and training goes on without the tracker.
    """

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record the configuration; called once at the beginning."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record the numbers of an epoch; `step` is its number, from 1."""

    def log_image(self, name: str, path: Path, step: int) -> None:
        """Record the PNG file `path` under a name; `step` is the number of the last epoch."""

    def close(self) -> None:
        """End the run; called after a training that has failed, too."""


OpenTracker = Callable[[TrackedRun], Tracker]
"""Opens a tracker for a run."""


class TensorBoard:
    """Tracker that writes event files to the folder `tensorboard` of the fold."""

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = folder_to_write(run.folder, "tensorboard")
        # Purge what an interrupted run wrote after its last checkpoint: those epochs are trained again.
        self._writer: Any = SummaryWriter(str(folder), purge_step=run.epoch + 1 if run.epoch else None)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Write the configuration as a table."""
        rows = [f"| {name} | {value} |" for name, value in params.items()]
        self._writer.add_text("configuration", "\n".join(["| | |", "|---|---|", *rows]))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Write the numbers as scalars."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def log_image(self, name: str, path: Path, step: int) -> None:
        """Write the pixels of the picture without its alpha channel."""
        from matplotlib.image import imread

        self._writer.add_image(name, imread(path)[..., :3], step, dataformats="HWC")

    def close(self) -> None:
        """Write all pending events and close the file."""
        self._writer.close()


class WandB:
    """Tracker that logs to a run of Weights & Biases; `WANDB_MODE=offline` keeps it on this machine."""

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
    """Tracker that logs to the server or folder that `MLFLOW_TRACKING_URI` names, else MLflow's default."""

    def __init__(self, run: TrackedRun) -> None:
        from mlflow.tracking import MlflowClient

        name = f"{PROJECT} {run.group}"
        # Without the lock, folds that start side by side would make the same database and experiment twice.
        path = run.folder.parent / ".mlflow.lock"
        with FileLock(path, timeout=LOCK_SECONDS):
            self._client: Any = MlflowClient()
            known = self._client.get_experiment_by_name(name)
            experiment = known.experiment_id if known else self._client.create_experiment(name)
            with suppress(OSError):
                path.unlink()  # while it is held, as `autospine.storage.locks` does
        earlier = self._client.search_runs([experiment], f"tags.identity = '{run.identity}'", max_results=1)
        self._resumed = bool(earlier) and run.epoch > 0
        if self._resumed:
            self._id = earlier[0].info.run_id
        else:
            tags = {"identity": run.identity}
            self._id = self._client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
        self._client.update_run(self._id, status="RUNNING")

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log the configuration, unless the run is resumed: MLflow refuses to change logged parameters."""
        if self._resumed:
            return
        from mlflow.entities import Param

        rows = [Param(name, str(value)) for name, value in params.items()]
        for batch in _batched(rows, MLFLOW_PARAMS):
            self._client.log_batch(self._id, params=batch)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log the numbers in as few requests as MLflow's limit allows."""
        from mlflow.entities import Metric

        now_ms = int(1000 * time.time())
        rows = [Metric(_plain(name), value, now_ms, step) for name, value in metrics.items()]
        for batch in _batched(rows, MLFLOW_METRICS):
            self._client.log_batch(self._id, metrics=batch)

    def log_image(self, name: str, path: Path, step: int) -> None:
        """Keep the picture as an artifact."""
        self._client.log_artifact(self._id, str(path))

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._id)


@dataclass(frozen=True, kw_only=True, slots=True)
class _BuiltIn:
    """Entry of a tracker that comes with AutoSpine."""

    make: OpenTracker
    """Function that opens the tracker."""

    package: str
    """Package that the tracker needs; the extra of the tracker's name installs it."""


BUILT_IN = {
    "tensorboard": _BuiltIn(make=TensorBoard, package="tensorboard"),
    "wandb": _BuiltIn(make=WandB, package="wandb"),
    "mlflow": _BuiltIn(make=MLflow, package="mlflow"),
}
"""Trackers that come with AutoSpine, by name."""


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that cannot be opened, before training starts.

    Args:
        names: Names of the trackers, as `--tracker` takes them.

    Raises:
        TrainingError: If a name is unknown, or its package is not installed.
    """
    known = sorted({*BUILT_IN, *plugin_names(GROUP)})
    for name in names:
        if name not in known:
            raise TrainingError(
                f"expected --tracker among {', '.join(known)}, found {name!r}; choose one of them, or "
                f"install a distribution with an entry point {GROUP} of that name"
            )
        built_in = BUILT_IN.get(name)
        if built_in is not None:
            warn_if_hidden(GROUP, name, "tracker")
        if built_in is not None and find_spec(built_in.package) is None:
            raise TrainingError(
                f"expected the package {built_in.package} for --tracker {name}, found none; "
                f"install it with: pip install 'autospine[{name}]'"
            )


def flat(nested: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Flatten a nested mapping: names are joined by dots, and sequences become texts.

    Args:
        nested: Mapping whose values may be mappings themselves.
        prefix: Prefix of all names.
    """
    values: dict[str, object] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{name}.")
        else:
            plain = value is None or isinstance(value, bool | int | float | str)
            values[f"{prefix}{name}"] = value if plain else str(value)
    return values


class Trackers:
    """All trackers of one run, none of which can stop the training.

    They are opened with the first row of metrics. A tracker that fails is not used any more.

    Args:
        names: Names of the trackers, checked by `check_trackers`.
        run: Description of the run; None if there are no trackers.
        find: Finds the function that opens the tracker of a name.
    """

    def __init__(
        self,
        names: Sequence[str],
        run: TrackedRun | None = None,
        find: Callable[[str], OpenTracker] | None = None,
    ) -> None:
        self._waiting, self._run, self._find = tuple(names), run, find or find_tracker
        self._open: dict[str, Tracker] = {}
        self._failures: dict[str, str] = {}

    def failures(self) -> dict[str, str]:
        """Return the failures since the last call: sentences by `tracker_NAME`."""
        failures, self._failures = self._failures, {}
        return failures

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Send the numbers of an epoch to every tracker."""
        self._start()
        self._each("sent the metrics", lambda tracker: tracker.log_metrics(metrics, step))

    def log_image(self, name: str, path: Path, step: int) -> None:
        """Send a PNG file to every tracker."""
        self._each("sent a picture", lambda tracker: tracker.log_image(name, path, step))

    def close(self) -> None:
        """End the run of every tracker."""
        self._each("closed", lambda tracker: tracker.close())
        self._open = {}

    def _start(self) -> None:
        """Open the trackers that are not open yet, and send them the configuration."""
        waiting, self._waiting = self._waiting, ()
        if self._run is None or not waiting:
            return
        for name in waiting:
            try:
                self._open[name] = self._find(name)(self._run)
            except BaseException as error:  # whatever other people's code raises
                let_interrupts_pass(error)
                self._failed(name, "opened", error)
        params = self._run.params
        self._each("sent the configuration", lambda tracker: tracker.log_params(params))

    def _each(self, action: str, send: Callable[[Tracker], None]) -> None:
        """Apply a function to every open tracker; close those that fail.

        Args:
            action: Past participle for the message, as in "could not be opened".
            send: Function that sends something to a tracker.
        """
        for name, tracker in list(self._open.items()):
            try:
                send(tracker)
            except BaseException as error:  # whatever other people's code raises
                let_interrupts_pass(error)
                del self._open[name]
                self._failed(name, action, error)

    def _failed(self, name: str, action: str, error: BaseException) -> None:
        reason = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
        self._failures[f"tracker_{name}"] = (
            f"the tracker {name} could not be {action} ({reason}) and is not used any more; "
            "training continues and writes its own files as always"
        )


def find_tracker(name: str) -> OpenTracker:
    """Return the function that opens the tracker of this name, built-in or of another distribution."""
    if (built_in := BUILT_IN.get(name)) is not None:
        return built_in.make
    loaded: OpenTracker = find_plugin(GROUP, name, kind="tracker", error=TrainingError).load()
    return loaded


def _wandb_id(run: TrackedRun) -> str:
    """Return the id of the run in W&B: a new one, unless the fold resumes in the folder where it began.

    A fold that is trained anew needs a new run, because W&B drops steps that a run has already.
    """
    path = folder_to_write(run.folder, "wandb") / "run_id.txt"
    kept = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    if run.epoch > 0 and kept:
        return kept
    new = f"{secrets.token_hex(4)}-{run.identity}"
    write_text(path, new)
    return new


def _batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Divide items into batches of at most `size` (`itertools.batched` needs Python 3.12)."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _plain(name: str) -> str:
    """Replace the characters in a metric's name that MLflow refuses."""
    return "".join(letter if letter.isalnum() or letter in "_-./ " else "_" for letter in name)
