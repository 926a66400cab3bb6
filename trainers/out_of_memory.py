"""Recognition of errors that mean too little memory."""

import torch


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether a GPU or the machine has run out of memory; on a CPU torch raises a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
