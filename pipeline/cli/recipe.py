"""A recipe as objects: augmentation, mixing, decay of the learning rate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from pipeline.preprocessing import AffineAugmentation, Mixing
from pipeline.utils.schedules import decay_after_warmup


@dataclass(frozen=True)
class Recipe:
    """A recipe as the objects that its values make.

    Args:
        augmentation: what varies each training image, or None.
        mixing: what is done to each training batch at last, or None.
        decay: the share of the learning rate that is left after so many completed epochs, 0 to 1; None if it stays.
    """

    augmentation: AffineAugmentation | None
    mixing: Mixing | None
    decay: Callable[[int], float] | None

    @classmethod
    def of(cls, values: Mapping) -> "Recipe":
        """The recipe of flags' `values` by their names; of those of augmentation and mixing, what is missing is off."""
        decay = decay_after_warmup(values["schedule"], values.get("epochs", 1), values.get("warmup_epochs", 0))
        return cls(_made(AffineAugmentation, values), _made(Mixing, values), decay)


def _made(kind: type, values: Mapping) -> object | None:
    """An object of `kind` out of those of `values` that bear the names of its fields; None if it does nothing."""
    made = kind(**{field.name: values[field.name] for field in fields(kind) if field.name in values})
    return None if made == kind() else made
