"""Who speaks and writes, of the processes that a launcher started together: the first one."""

import os


def is_main() -> bool:
    """Say whether this process is rank 0."""
    return int(os.environ.get("RANK") or 0) == 0


def say(text: str) -> None:
    """Print, from rank 0 only."""
    if is_main():
        print(text, flush=True)
