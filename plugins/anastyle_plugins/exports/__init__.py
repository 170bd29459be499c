"""What other programs load: a LoRA for stock PixArt, peft's folder, a diffusers pipeline. Import it to load one."""

from anastyle_plugins.exports.adapter import load_adapter
from anastyle_plugins.exports.pipeline import AnastylePipeline, TextSide

__all__ = ["AnastylePipeline", "TextSide", "load_adapter"]
