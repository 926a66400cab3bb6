"""Estimates of the time and memory of a prediction, announced before it begins."""

import torch

from autospine.inference.ensemble import Mirrored
from autospine.inference.predictor import Predictor, TileJob
from autospine.memory.estimate import inference_memory
from autospine.plan import Precision
from autospine.prediction.probabilities import stored_bytes
from autospine.system.devices import inference_half
from autospine.system.hardware import free_memory, held_memory

SHORTEST = 10.0
"""Seconds below which reading and writing take as long as the networks."""


class Estimates:
    """Memory and time of the cases of one run.

    Args:
        loaded: Bytes that the process holds once its networks are loaded.
    """

    def __init__(self, loaded: int) -> None:
        self._loaded = loaded
        self._tiles: dict[int, int] = {}

    def announcement(self, predictor: Predictor, job: TileJob, held: int, *, save_probabilities: bool) -> str:
        """Describe the work on a case in one line.

        Args:
            predictor: Predictor that does the work.
            job: The work.
            held: Further bytes that are held: of probabilities to be saved, and of other models' slabs.
            save_probabilities: Whether probabilities are saved.
        """
        voxels = "x".join(str(n) for n in job.shape)
        mirrored = sum(isinstance(network, Mirrored) for network in predictor.networks)
        networks = len(predictor.networks) - mirrored
        each = predictor.known_seconds_per_tile if job.run else 0.0
        skipped = {
            "everything": "",
            "body": " (the rest is air)",
            "spine": " (the rest is off the spine)",
        }
        on_disk = stored_bytes(predictor.plan.labels, job.shape)
        return (
            f"{voxels} voxels; {len(job.run)} of {job.tiles} tiles"
            f"{skipped[job.region] if len(job.run) < job.tiles else ''} by {networks} "
            f"network{'s' if networks > 1 else ''}{', mirrored too' if mirrored else ''}; "
            f"{'' if each is None else _duration(each * len(job.run)) + ', '}"
            f"{_size(self.memory(predictor, job) + held)} of memory"
            f"{f'; probabilities of up to {_size(on_disk)} on disk' if save_probabilities else ''}"
        )

    def shortage(self, predictor: Predictor, job: TileJob, held: int) -> str | None:
        """Return a warning if too little memory is free; the arguments are those of `announcement`."""
        more, free = self.memory(predictor, job) + held - held_memory(), free_memory()
        if more <= free:
            return None
        return (
            f"expected {_size(more)} more of free memory, found {_size(free)}; should the system stop it, "
            "close other programs, or predict with a configuration of larger voxels or smaller patches"
        )

    def memory(self, predictor: Predictor, job: TileJob) -> int:
        """Estimate the bytes of RAM that the whole process takes at most."""
        tile = 0 if predictor.device.type == "cuda" else self._tile(predictor, job)
        return self._loaded + tile + job.memory.total

    def _tile(self, predictor: Predictor, job: TileJob) -> int:
        """Estimate the bytes of a tile in one network, and of the libraries that it loads."""
        if id(predictor) not in self._tiles:
            plan, configuration = predictor.plan, predictor.configuration
            estimate = inference_memory(
                configuration.network,
                configuration.patch_size,
                case=job.memory,
                precision=_precision(predictor),
                in_channels=len(plan.channels),
                out_channels=plan.labels.n_channels,
                spacing_mm=configuration.spacing_mm,
            )
            self._tiles[id(predictor)] = estimate.activations + estimate.transients + estimate.libraries
        return self._tiles[id(predictor)]


def _precision(predictor: Predictor) -> Precision:
    half = inference_half(predictor.configuration.training.precision, predictor.device)
    if half is None:
        return "float32"
    return "bfloat16" if half == torch.bfloat16 else "float16"


def _size(amount: int) -> str:
    return f"{amount / 1e9:.1f} GB" if amount >= 1e9 else f"{max(1, round(amount / 1e6))} MB"


def _duration(seconds: float) -> str:
    if seconds < SHORTEST:
        return f"less than {SHORTEST:.0f} s"
    return f"about {seconds:.0f} s" if seconds < 100 else f"about {seconds / 60:.0f} min"
