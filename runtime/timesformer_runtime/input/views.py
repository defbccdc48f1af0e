"""Options for the views of a video: its clips, their crops, and the way pixels are prepared."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

from timesformer_runtime.errors import InvalidOptionError
from timesformer_runtime.input.option_values import CHANNEL_ORDERS, CROP_COUNTS, PROTOCOLS, RESIZES
from timesformer_runtime.input.sampling import Sampling


@dataclasses.dataclass(frozen=True)
class Views:
    """The views of a video: its clips times the crops of their frames.

    A model runs on each view alone, and the answers are averaged.

    Attributes:
        sampling: Chooses the frames of each clip.
        crops: 1 for the middle of the frames; 3 for the start, the middle and the end of their
            longer side, which together show nearly all of it.
        protocol: How pixels become the input and how views are combined: ``huggingface`` as in
            transformers, or ``facebook`` as in the authors' own test, which resizes without
            antialiasing and sums the logits of the views. ``Views.facebook()`` makes the options of
            that whole test.
        channel_order: ``bgr`` for models that were trained on frames as OpenCV reads them; the
            model's mean and standard deviation are then of blue, green and red.
        resize: ``exact`` equals Pillow; ``fast`` lets FFmpeg resize files while it decodes them
            (arrays of frames are always resized exactly).
        square_pixels: True to correct the width of frames whose pixels are not square; training
            pipelines do not correct it.

    Raises:
        InvalidOptionError: A value is not allowed, or does not go together with another.
    """

    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    crops: int = 1
    protocol: str = "huggingface"
    channel_order: str = "rgb"
    resize: str = "exact"
    square_pixels: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.sampling, Sampling):
            raise InvalidOptionError(
                f"`sampling` is {self.sampling!r}; give a Sampling, such as Sampling('center')"
            )
        for name, allowed in (
            ("crops", CROP_COUNTS),
            ("protocol", PROTOCOLS),
            ("channel_order", CHANNEL_ORDERS),
            ("resize", RESIZES),
            ("square_pixels", (False, True)),
        ):
            value = getattr(self, name)
            if type(value) is not type(allowed[0]) or value not in allowed:
                choices = " or ".join(str(choice) for choice in allowed)
                raise InvalidOptionError(f"`{name}` is {value!r}; it must be {choices}")
        if self.protocol == "facebook" and self.resize == "fast":
            raise InvalidOptionError(
                "`protocol=facebook` has a resize of its own; leave out `resize=fast`"
            )

    @classmethod
    def facebook(cls, sampling: Sampling | None = None, crops: int = 3, **options: Any) -> Self:
        """Makes the authors' test on Kinetics: one clip from the start, 3 crops, summed logits.

        Their test on Something-Something v2 is the same with ``Sampling("segments")`` and
        ``channel_order="bgr"``.

        Args:
            sampling: The choice of frames; by default that of the Kinetics test.
            crops: Number of crops. With 1, as in the authors' test of a single crop, the middle is
                cut from a larger frame.
            options: Other fields of the class.

        Raises:
            InvalidOptionError: As for the class.
        """
        sampling = Sampling("facebook") if sampling is None else sampling
        return cls(sampling, crops, protocol="facebook", **options)

    @property
    def count(self) -> int:
        """Number of times that the model runs on a video."""
        return self.sampling.clips * self.crops

    def describe(self) -> str:
        """Describes the views in words; leaves out options with default values."""
        rate = "" if self.sampling.rate is None else f" at rate {self.sampling.rate}"
        words = {
            f"{self.sampling.method} frames{rate}": True,
            f"short {self.sampling.short}": self.sampling.short != "repeat_last",
            f"{self.count} views (clips {self.sampling.clips}, crops {self.crops})": self.count > 1,
            f"protocol {self.protocol}": self.protocol != "huggingface",
            self.channel_order: self.channel_order != "rgb",
            f"{self.resize} resize": self.resize != "exact",
            "square pixels": self.square_pixels,
        }
        return ", ".join(word for word, is_said in words.items() if is_said)

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON types."""
        return dataclasses.asdict(self)
