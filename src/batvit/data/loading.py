"""Batches of pictures, prepared as a model expects them."""

from typing import Any

import torch
from timm.data import create_loader, resolve_data_config
from torch import Tensor, nn
from torch.utils.data import DataLoader

from batvit.data.folder import Pictures


def loader(
    pictures: Pictures, model: nn.Module, *, batch_size: int, workers: int = 0
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches for evaluation, prepared as the model expects them (timm's transforms).

    Args:
        pictures: from :func:`image_folder`; its ``transform`` is set.
        model: read for what :func:`data_config` gives.
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
    """What timm knows of a model's input: input_size (3, H, W), interpolation, mean, std, crop_pct, crop_mode.

    The size is that of the model as it is now, if it tells, else that of its pretrained configuration, as the rest is.
    """
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    settings: dict[str, Any] = resolve_data_config(
        {"input_size": (3, *size)} if size else {}, model=model
    )
    return settings


def placed(batch: Tensor, model: nn.Module) -> Tensor:
    """A batch of pictures on the device and in the type of a model's weights; as it is for a model without any."""
    weight = next(model.parameters(), batch)
    return batch.to(
        device=weight.device, dtype=weight.dtype if weight.is_floating_point() else torch.float32
    )
