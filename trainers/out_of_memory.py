"""Recognition of errors that are caused by too little memory."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether a GPU or the machine has run out of memory."""
    # On a CPU torch raises a plain RuntimeError, which only the name of its allocator tells apart.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
