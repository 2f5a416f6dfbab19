"""How different the tokens of an image are: the paper's measure, of Dong et al. 2021."""

from jaxtyping import Float
from torch import Tensor


def diversity(
    x: Float[Tensor, "batch tokens channels"], size: Float[Tensor, "batch tokens"] | None = None
) -> Float[Tensor, " batch"]:
    """Return r(X) = ||X - 1 x^T||, the Frobenius norm, with x the mean token.

    It is 0 when all tokens are alike: the residual of "Attention is not all you need" (Dong et al.
    2021). It is a sum over tokens: it falls when tokens become alike, and when they are fewer.

    Args:
        x: (B, N, C), without the prefix tokens.
        size: (B, N), how many patches each token stands for, and so how often it counts; each
            counts once when None.

    Raises:
        RuntimeError: if ``size`` is not of the batch and number of tokens of ``x``.

    Examples:
        >>> batvit.diversity(torch.ones(1, 4, 8))
        tensor([0.])
        >>> batvit.diversity(torch.tensor([[[3.0], [7.0]]]), size=torch.tensor([[1.0, 3.0]]))
        tensor([3.4641])
    """
    x = x.float()
    weight = x.new_ones(x.shape[:2]) if size is None else size.float()
    weight = weight.unsqueeze(-1)
    mean = (weight * x).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True)
    return (weight * (x - mean).square()).sum(dim=(1, 2)).sqrt()
