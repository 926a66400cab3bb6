"""This machine and this process: devices, memory allocation, logging."""
