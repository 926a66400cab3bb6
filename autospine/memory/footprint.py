"""The parts of a memory estimate, in bytes."""

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingMemory:
    """Bytes at the moment of a training step that needs the most."""

    weights: int

    gradients: int
    """Gradients of the parameters; 0 where they do not exist at that moment."""

    optimiser: int
    """AdamW's two moments and the running average of the weights."""

    activations: int
    """Tensors that the forward pass keeps for the backward pass, the logits among them."""

    loss: int
    """Tensors of the loss besides the logits."""

    transients: int
    """Tensors that live for a moment in the backward pass, and workspace."""

    libraries: int
    """Code and libraries that the process loads."""

    @property
    def fixed(self) -> int:
        """The part that does not depend on the patch: weights, gradients, optimiser and libraries."""
        return self.weights + self.gradients + self.optimiser + self.libraries

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return sum(getattr(self, field.name) for field in fields(self))

    def calibrated(self, factor: float) -> "TrainingMemory":
        """Return the estimate with its estimated parts multiplied by a measured factor.

        Args:
            factor: Measured over predicted memory, by `planners.calibration_factor`.
        """
        return replace(
            self,
            activations=round(factor * self.activations),
            loss=round(factor * self.loss),
            transients=round(factor * self.transients),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class InferenceMemory:
    """Peak bytes of the prediction of one volume, besides what the process holds before."""

    weights: int
    """Weights of all networks of the ensemble, with the position biases that they keep."""

    activations: int
    """Activations of one tile in one network, and its scores."""

    scores: int
    """The slab of every class' scores that moves along the volume."""

    image: int
    """The volume as it was read, its label map, and the rows that tiles are cut from."""

    transients: int
    """Workspace."""

    libraries: int
    """Code and libraries that the process loads."""

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return sum(getattr(self, field.name) for field in fields(self))
