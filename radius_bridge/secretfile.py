"""Files that hold a secret."""

import os
import stat
from pathlib import Path


def is_everybodys(status: os.stat_result) -> bool:
    """True if everybody may read a file."""
    return bool(status.st_mode & stat.S_IROTH)


def secret_from_file(path: Path, key: str = "secret_file") -> bytes:
    """The secret that is all of a file, which `key` of the configuration names.

    Raises ValueError if it cannot be read, or if everybody can.
    """
    try:
        with path.open("rb") as file:
            if is_everybodys(os.fstat(file.fileno())):
                raise ValueError(f"{key} {path} can be read by everybody: chmod 640 {path}")
            return file.read(4096).rstrip(b"\r\n")
    except OSError as error:
        raise ValueError(f"{key} {path} cannot be read: {error.strerror}") from None
