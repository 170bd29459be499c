"""The small network that turns numbers into condition tokens, alike in every fuser that learns one."""

from torch import nn


def branch(size: int, hidden_dim: int, width: int, *, tokens: int = 1, layer_norm: bool = True) -> nn.Sequential:
    """Return LayerNorm, Linear, GELU, Linear: (..., size) to (..., tokens, width), drawn as the released code does."""
    layers = nn.Sequential(
        nn.LayerNorm(size, eps=1e-6) if layer_norm else nn.Identity(),
        nn.Linear(size, hidden_dim),
        nn.GELU(),
        nn.Linear(hidden_dim, tokens * width),
        nn.Unflatten(-1, (tokens, width)),
    )
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return layers
