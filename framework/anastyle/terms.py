"""Loss terms: each has a name, a weight in the experiment file, and a way to some parameter."""

import torch
from torch import Tensor, nn

from anastyle.errors import ConfigError, NumericalError, did_you_mean, listing
from anastyle.interfaces import Losses


def weighted_sum(losses: Losses, weights: dict[str, float], where: str) -> Tensor:
    """Return the sum of the terms, each times its weight; float32.

    Raises:
        ConfigError: a term without a weight, a weight without a term, a term that is no scalar.
    """
    problems = [f"weights: the term '{name}' has no weight" for name in losses if name not in weights]
    problems += [f"weights.{name}: there is no such term.{did_you_mean(name, losses)}" for name in weights
                 if name not in losses]  # fmt: skip
    problems += [f"the term '{name}' is no scalar but {tuple(term.shape)}" for name, term in losses.items()
                 if term.numel() != 1]  # fmt: skip
    if problems:
        raise ConfigError(f"{where}: weights and terms differ\n{listing(problems)}\n  terms: {', '.join(losses)}")
    return torch.stack([weights[name] * term.float().reshape(()) for name, term in losses.items()]).sum()


def check_reach(losses: Losses, weights: dict[str, float], parameters: list[nn.Parameter], where: str) -> None:
    """Refuse a weighted term from which no gradient can reach any of the parameters.

    Raises:
        NumericalError: names every such term.
    """
    trained = {id(parameter) for parameter in parameters}
    idle = [name for name, term in losses.items() if weights[name] and not _reaches(term, trained)]
    if idle:
        problems = [f"weights.{name}: {weights[name]}, but the term '{name}' reaches no parameter" for name in idle]
        raise NumericalError(f"{where}: a term that trains nothing\n{listing(problems)}\n  Set its weight to 0.")


def _reaches(term: Tensor, trained: set[int]) -> bool:
    todo, seen = [term.grad_fn], set()
    if term.grad_fn is None:
        return id(term) in trained
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if id(getattr(node, "variable", None)) in trained or "CheckpointFunction" in type(node).__name__:
            return True  # a reentrant checkpoint hides its parameters
        todo += [parent for parent, _ in node.next_functions]
    return False
