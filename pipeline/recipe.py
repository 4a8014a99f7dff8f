"""How a network is trained, beyond its architecture and data, as one object."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from pipeline.errors import InputError

if TYPE_CHECKING:  # Flags are parsed before anything heavy is loaded.
    from pipeline.preprocessing import AffineAugmentation, Mixing


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe's values, each under the name of its flag; unless told otherwise everything is off.

    Args:
        schedule: how the learning rate falls from epoch to epoch, "constant", "poly" or "cosine" (see
            `pipeline.utils.schedules`).
        warmup_epochs: first epochs, in which the rate rises step by step (see `pipeline.nn.optimizer`).
        nesterov: whether SGD looks ahead along its momentum (Nesterov, 1983).
        reg: L2 coefficient of every convolution and dense kernel; k is what SGD calls a weight decay of 2k.
        rotation_range, zoom_range, width_shift_range, height_shift_range, shear_range, flip, pad_crop: see
            `pipeline.preprocessing.AffineAugmentation`.
        cutout, mixup, cutmix, label_smoothing: see `pipeline.preprocessing.Mixing`.
        ema: decay of the weights' moving average (see `pipeline.nn.average`); 0 keeps none.
    """

    schedule: str = "constant"
    warmup_epochs: int = 0
    nesterov: bool = False
    reg: float = 0.0
    rotation_range: float = 0.0
    zoom_range: float = 0.0
    width_shift_range: float = 0.0
    height_shift_range: float = 0.0
    shear_range: float = 0.0
    pad_crop: int = 0
    flip: str = "none"
    cutout: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0

    def __str__(self) -> str:
        """Every value, those that are off by their names alone."""
        values = asdict(self)
        off = [name for name, value in values.items() if value in (0, "none")]
        on = [f"{name} {value}" for name, value in values.items() if name not in off]
        return f"{', '.join(on)}; off: {', '.join(off) or 'nothing'}"

    def check(self, height: int, width: int) -> None:
        """Raise `InputError` if images of `height` times `width` pixels can't be varied so."""
        smallest = min(height, width)
        for name, largest in {"pad_crop": smallest - 1, "cutout": smallest}.items():
            if getattr(self, name) > largest:
                raise InputError(
                    f"--{name} {getattr(self, name)}: expected at most {largest}, for images of {height}x{width} pixels"
                )

    def augmentation(self) -> "AffineAugmentation | None":
        """What varies each training image, or None."""
        from pipeline.preprocessing import AffineAugmentation

        aug = AffineAugmentation(
            rotation_range=self.rotation_range,
            zoom_range=self.zoom_range,
            width_shift_range=self.width_shift_range,
            height_shift_range=self.height_shift_range,
            shear_range=self.shear_range,
            flip=self.flip,
            pad_crop=self.pad_crop,
        )
        return None if aug == AffineAugmentation() else aug

    def mixing(self) -> "Mixing | None":
        """What is done to each training batch at last, or None."""
        from pipeline.preprocessing import Mixing

        mixing = Mixing(self.cutout, self.mixup, self.cutmix, self.label_smoothing)
        return None if mixing == Mixing() else mixing


NAMES = tuple(field.name for field in fields(Recipe))
"""The names of a recipe's values, which are those of their flags."""


def all_values(table: Mapping) -> dict:
    """Every value of the recipe of which `table` names those that are not off."""
    return asdict(Recipe(**table))
