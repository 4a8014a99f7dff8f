"""A recipe as objects: augmentation, mixing, decay of the learning rate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

from pipeline.preprocessing import AffineAugmentation, Mixing, RandomCrop
from pipeline.utils.schedules import decay_after_warmup


@dataclass(frozen=True)
class Recipe:
    """The objects that a recipe's values describe.

    Args:
        augmentation: applied to each training image; None if all of it is off.
        mixing: applied to each training batch; None if all of it is off.
        decay: maps completed epochs to a factor of the learning rate, 0 to 1; None for a constant rate.
    """

    augmentation: AffineAugmentation | RandomCrop | None
    mixing: Mixing | None
    decay: Callable[[int], float] | None

    @classmethod
    def of(cls, values: Mapping) -> "Recipe":
        """Create the recipe from flags' `values` by name. Augmentation and mixing that are not named are off.

        Values that include `crop_area` are for images of any size.
        """
        augmentation = RandomCrop if "crop_area" in values else AffineAugmentation
        decay = decay_after_warmup(values["schedule"], values.get("epochs", 1), values.get("warmup_epochs", 0))
        return cls(_create(augmentation, values), _create(Mixing, values), decay)


def _create(cls: type, values: Mapping) -> object | None:
    """Create a dataclass from the `values` named like its fields; None if it equals the default, which does nothing."""
    created = cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})
    return None if created == cls() else created
