"""Batches of pictures, prepared as a model expects them."""

from typing import Any

import torch
from PIL import Image
from timm.data import create_loader, create_transform, resolve_data_config
from torch import Tensor, nn
from torch.utils.data import DataLoader

from batvit.data.folder import Pictures


def loader(
    pictures: Pictures, model: nn.Module, *, batch_size: int, workers: int = 0
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return batches for evaluation, prepared by timm's transforms as the model expects them.

    Args:
        pictures: from :func:`batvit.data.folder.image_folder`; their ``transform`` is set.
        model: asked by :func:`data_config` what it expects.
        batch_size: pictures a batch; the last batch may be smaller.
        workers: processes that decode; 0 decodes in this one.
    """
    batches: DataLoader[tuple[Tensor, Tensor]] = create_loader(
        pictures,  # type: ignore[arg-type]
        batch_size=batch_size,
        is_training=False,
        use_prefetcher=False,
        num_workers=workers,
        persistent_workers=workers > 0,
        **data_config(model),
    )
    return batches


def data_config(model: nn.Module) -> dict[str, Any]:
    """Return what timm knows of a model's input.

    That is input_size (3, H, W), interpolation, mean, std, crop_pct and crop_mode. The size is that
    of the model as it is now, if it tells, else that of its pretrained configuration, from which
    the rest is taken.
    """
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    own_size = {"input_size": (3, *size)} if size else {}
    settings: dict[str, Any] = resolve_data_config(own_size, model=model)
    return settings


def prepared(picture: Image.Image, model: nn.Module) -> Tensor:
    """Return a picture as a batch of one (1, 3, H, W), prepared as :func:`loader` does."""
    image: Tensor = create_transform(**data_config(model))(picture)
    return placed(image.unsqueeze(0), model)


def placed(batch: Tensor, model: nn.Module) -> Tensor:
    """Return a batch of pictures on the device and in the type of a model's weights.

    Weights of whole numbers take float32. For a model without weights the batch stays as it is.
    """
    weight = next(model.parameters(), batch)
    dtype = weight.dtype if weight.is_floating_point() else torch.float32
    return batch.to(device=weight.device, dtype=dtype)
