"""The class name alone, in a phrase of one's own: the row of an ablation that has no attribute captioning.

Experiments say ``captions: class_label`` without any table; this writes one where the class folders are codes
(``nv``) or the phrase should be another.
"""

from dataclasses import dataclass, field

from anastyle import CAPTIONERS, Caption, Captioned, Captioner, ConfigError, Record
from anastyle_plugins.captioners._words import spoken


@CAPTIONERS.register
class ClassLabel(Captioner):
    """Fills the class into a phrase."""

    @dataclass
    class Config(Captioner.Config):
        """The phrase, and what codes stand for."""

        phrase: str = "a photo of {label}"
        names: dict[str, str] = field(default_factory=dict)
        """What to call a class, by its label; the others are called as they are."""

        def __post_init__(self) -> None:
            if "{label}" not in self.phrase:
                raise ConfigError(f"phrase={self.phrase!r}: leave a place for the class, as in 'a photo of {{label}}'.")

    def caption(self, records: list[Record]) -> list[Captioned]:
        """Return a phrase with the class of each record."""
        return [self._one(record) for record in records]

    def _one(self, record: Record) -> Captioned:
        words = self.config.names.get(record.label) or spoken(record.label)
        if not words:
            return Captioned(None, reason="no class label")
        caption = Caption(self.config.phrase.replace("{label}", words), label=record.label)
        return Captioned(caption, {"text": "dataset: class label", "label": "dataset"})
