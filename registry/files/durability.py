"""Make written data survive a power cut: one folder, or a whole file system at once."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["CAN_SYNC_FILE_SYSTEM", "sync_file_system", "sync_folder"]

CAN_SYNC_FILE_SYSTEM = sys.platform == "linux"
"""On other systems, no call waits until all data of a file system is on its disk."""


def sync_folder(folder: str) -> None:
    """Make the names in a folder durable.

    Raises:
        OSError: The disk fails.
    """
    if os.name == "nt":  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file_system(folder: str) -> None:
    """Make all writes to the file system of a folder durable, names and contents.

    Waiting once for thousands of files takes as long as waiting for a few files. The function uses
    ``syncfs`` of Linux, which Python does not offer. Kernels before 5.8 do not report a failing
    disk.

    Raises:
        OSError: The disk fails.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), folder)
    finally:
        os.close(descriptor)
