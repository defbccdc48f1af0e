"""Preprocesses frames inside the graph: uint8 of any size to the model's normalised input."""

import torch
from timesformer_runtime.input.preprocess import Preprocessing
from torch import Tensor, nn
from torch.nn import functional

from timesformer_exporter.errors import InvalidOptionError

_BILINEAR = 2


class FramesInput(nn.Module):
    """Makes pixel_values float32 [B, T, 3, h, w] of RGB frames uint8 [B, T, H, W, 3].

    Its arithmetic is that of the runtime's preprocessing, and of Pillow: antialiased bilinear
    resize on uint8, centre crop with zero padding, rescale, normalise.

    Raises:
        InvalidOptionError: The preprocessing has a step that has no counterpart in ONNX.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        if preprocessing.do_resize and preprocessing.resample != _BILINEAR:
            raise InvalidOptionError(
                f"the preprocessing resizes with resample={preprocessing.resample}, but only "
                f"{_BILINEAR} (bilinear) can be put into the graph; use `input=pixel_values`"
            )
        self.preprocessing = preprocessing
        if preprocessing.num_channels != 3:
            raise InvalidOptionError(
                f"`input=frames` takes RGB, but the model has {preprocessing.num_channels} "
                "channel(s); "
                "use `input=pixel_values`"
            )

    def forward(self, frames: Tensor) -> Tensor:
        """Computes pixel_values float32 [B, T, 3, h, w] of frames uint8 [B, T, H, W, 3]."""
        scale, shift = (factor.float().view(-1, 1, 1) for factor in self.scale_and_shift())
        return self.pixels(frames).to(torch.float32) * scale + shift

    def pixels(self, frames: Tensor) -> Tensor:
        """Resizes and crops frames uint8 [B, T, H, W, 3] to uint8 [B, T, 3, h, w]."""
        batch, count = frames.shape[:2]
        images = frames.flatten(0, 1).permute(0, 3, 1, 2)
        if self.preprocessing.do_resize:
            images = self._resize(images)
        if self.preprocessing.do_center_crop:
            images = self._center_crop(images)
        return torch.unflatten(images, 0, (batch, count))

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Rescaling and normalisation as ``pixel * scale + shift``: float64 [3] each."""
        factor = self.preprocessing.rescale_factor if self.preprocessing.do_rescale else 1.0
        mean, std = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
        if self.preprocessing.do_normalize:
            mean = torch.tensor(self.preprocessing.image_mean, dtype=torch.float64)
            std = torch.tensor(self.preprocessing.image_std, dtype=torch.float64)
        offset = 1.0 if self.preprocessing.offset else 0.0
        return factor / std, -(offset + mean) / std

    def _resize(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        size = self.preprocessing.size
        if isinstance(size, int):
            short = torch.sym_min(height, width)  # type: ignore[no-untyped-call]
            size = (height * size // short, width * size // short)
        return _interpolate(_interpolate(images, (_first_height(height, width, size), width)), size)

    def _center_crop(self, images: Tensor) -> Tensor:
        """Crops at floor((size - crop) / 2), which is negative where zeros are padded."""
        size = self.preprocessing.size if self.preprocessing.do_resize else 1
        shortest = (size, size) if isinstance(size, int) else size
        height, width = self.preprocessing.crop_size
        # No frame is smaller than ``shortest`` here, so static padding is enough for any frame.
        pad_y = max(0, (height - shortest[0] + 1) // 2)
        pad_x = max(0, (width - shortest[1] + 1) // 2)
        if pad_y or pad_x:
            images = functional.pad(images, (pad_x, pad_x, pad_y, pad_y))
        top = (images.shape[-2] - height) // 2
        left = (images.shape[-1] - width) // 2
        images = images[..., top : top + height, left : left + width]
        return images.reshape(-1, 3, height, width)  # tells the tracer that the size is static


def _first_height(height: int, width: int, size: tuple[int, int]) -> int:
    """The height of the first of two resizes, which keeps the frames' width.

    Pillow resizes the height before the width where the height loses more than twice as many pixels
    as the width. The first resize then goes to the final height. Otherwise it keeps the frames'
    height, and the second one resizes both sides at once. Sizes are not known when the graph is
    traced, so this is arithmetic and not a branch.
    """
    lost_height, lost_width = height - size[0], width - size[1]
    above = torch.sym_min(lost_height, lost_height - 2 * lost_width)  # type: ignore[no-untyped-call]
    vertical_first: int = torch.sym_max(0, torch.sym_min(1, above))  # type: ignore[no-untyped-call]
    return height - vertical_first * lost_height


def _interpolate(images: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(images, size=size, mode="bilinear", antialias=True)
