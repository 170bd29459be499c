"""Frozen encodings on disk: computed once, never stale, never half there."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from anastyle.data.cache import cached


class Encoder:
    """Counts how often it is asked."""

    def __init__(self, value: float = 1.0) -> None:
        self.value, self.calls = value, 0

    def __call__(self) -> dict[str, Tensor]:
        self.calls += 1
        base = torch.full((4, 6), self.value)
        return {"latent": base.T, "part": base[1:2], "mask": torch.tensor([True, False])}


def entry(folder: Path) -> Path:
    (path,) = folder.glob("*.safetensors")
    return path


def test_the_second_time_it_is_read(tmp_path: Path) -> None:
    encoder = Encoder()

    first, second = (cached(tmp_path, {"data": "abc", "size": 64}, encoder) for _ in range(2))

    assert encoder.calls == 1
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(first["latent"], torch.ones(6, 4))
    assert first["mask"].dtype == torch.bool


def test_another_identity_is_another_entry_and_key_order_is_not(tmp_path: Path) -> None:
    encoder = Encoder()
    for identity in ({"data": "a", "size": 64}, {"size": 64, "data": "a"}, {"data": "b", "size": 64}):
        cached(tmp_path, identity, encoder)

    assert encoder.calls == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_entry_is_computed_anew(tmp_path: Path, damage: str) -> None:
    encoder = Encoder()
    whole = cached(tmp_path, {"k": 1}, encoder)
    path = entry(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 255
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flip" else content[:-8])

    with pytest.warns(UserWarning, match="computed anew"):
        again = cached(tmp_path, {"k": 1}, encoder)

    assert encoder.calls == 2
    assert torch.equal(again["latent"], whole["latent"])


def test_a_failed_computation_leaves_no_entry(tmp_path: Path) -> None:
    def failing() -> dict[str, Tensor]:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        cached(tmp_path, {"k": 1}, failing)

    assert torch.equal(cached(tmp_path, {"k": 1}, Encoder(3.0))["part"], torch.full((1, 6), 3.0))


def test_an_entry_without_its_card_was_never_finished(tmp_path: Path) -> None:
    encoder = Encoder()
    cached(tmp_path, {"k": 1}, encoder)
    entry(tmp_path).with_suffix(".json").unlink()

    cached(tmp_path, {"k": 1}, encoder)

    assert encoder.calls == 2


def test_others_may_read_what_their_umask_allows(tmp_path: Path) -> None:
    cached(tmp_path, {"k": 1}, Encoder())
    plain = tmp_path / "plain"
    plain.touch()

    assert entry(tmp_path).stat().st_mode == plain.stat().st_mode
