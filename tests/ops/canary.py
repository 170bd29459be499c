"""A canary: code that leaves a file behind when a careless reader runs it."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch


class Canary:
    """Sings when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @property
    def command(self) -> str:
        """A shell command that makes it sing."""
        return f"touch {self.file}"

    @property
    def sang(self) -> bool:
        """Whether anybody ran it."""
        return self.file.exists()

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)

    def pickled(self) -> bytes:
        """Return a plain pickle of it."""
        return pickle.dumps(self)

    def torched(self) -> bytes:
        """Return what ``torch.save`` makes of tensors with the canary among them."""
        buffer = io.BytesIO()
        torch.save({"weight": torch.ones(3), "canary": self}, buffer)
        return buffer.getvalue()
