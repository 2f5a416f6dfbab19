"""What training makes small."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from timm.models.deit import VisionTransformerDistilled
from torch import nn

from batvit.training import TrainConfig
from batvit.training.objective import Objective

# logits of two pictures, and what the teacher says of them
STUDENT = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
TEACHER = torch.tensor([[0.0, 3.0, 0.0], [0.0, 0.0, 0.5]])
LABELS = torch.tensor([0, 1])


class Says(nn.Module):
    """Says the same, whatever it sees."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images):
        return 1 * self.logits


def objective(teacher=None, classes=3, **fields):
    config = TrainConfig(smoothing=fields.pop("smoothing", 0.0), **fields)
    return Objective(
        config, classes=classes, teacher=teacher, model=nn.Identity(), autocast=nullcontext
    )


def loss_of(teacher=None, **fields):
    return objective(teacher, **fields)(Says(STUDENT), torch.zeros(2, 3, 4, 4), LABELS)


def of_labels():
    return -STUDENT.log_softmax(1)[[0, 1], [0, 1]].mean()


def test_without_a_teacher_it_is_the_cross_entropy():
    torch.testing.assert_close(loss_of(), of_labels())
    # a tenth is spread over all three classes
    spread = -STUDENT.log_softmax(1).mean(dim=1).mean()
    torch.testing.assert_close(loss_of(smoothing=0.1), 0.9 * of_labels() + 0.1 * spread)


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_soft_distillation_is_the_divergence_from_the_teacher(tau):
    known, said = (TEACHER / tau).softmax(1), (STUDENT / tau).softmax(1)
    divergence = tau**2 * (known * (known / said).log()).sum(dim=1).mean()
    found = loss_of(Says(TEACHER), distill="soft", distill_alpha=0.3, distill_tau=tau)
    torch.testing.assert_close(found, 0.7 * of_labels() + 0.3 * divergence)


def test_hard_distillation_takes_the_teachers_class_for_the_label():
    # it says 1 of the first picture, and 2 of the second
    of_teacher = -STUDENT.log_softmax(1)[[0, 1], [1, 2]].mean()
    torch.testing.assert_close(
        loss_of(Says(TEACHER), distill="hard", distill_alpha=1.0), of_teacher
    )
    torch.testing.assert_close(
        loss_of(Says(TEACHER), distill="hard"), (of_labels() + of_teacher) / 2
    )


def test_a_teacher_learns_nothing():
    teacher, student = Says(TEACHER), Says(STUDENT)
    objective(teacher, distill="soft")(student, torch.zeros(2, 3, 4, 4), LABELS).backward()
    assert teacher.logits.grad is None
    assert student.logits.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("alpha", "moved"), [(0.0, (True, False)), (1.0, (False, True)), (0.5, (True, True))]
)
def test_a_distilled_deit_learns_from_labels_by_one_head_and_from_the_teacher_by_the_other(
    alpha, moved
):
    torch.manual_seed(0)
    student = VisionTransformerDistilled(
        img_size=16, patch_size=8, embed_dim=8, depth=2, num_heads=2, num_classes=3
    )
    student.set_distilled_training(True)
    run = objective(Says(TEACHER), distill="soft", distill_alpha=alpha)
    run(student.train(), torch.randn(2, 3, 16, 16), LABELS).backward()
    assert (
        tuple(bool(head.weight.grad.abs().sum() > 0) for head in (student.head, student.head_dist))
        == moved
    )


def test_the_teacher_sees_what_the_student_sees():
    seen = []

    class Watches(Says):
        def forward(self, images):
            seen.append(images)
            return super().forward(images)

    run = objective(Watches(TEACHER), distill="soft", mixup=1.0, batch_size=2)
    images, targets = run.mixed(torch.randn(2, 3, 4, 4), LABELS)
    run(Watches(STUDENT), images, targets)
    assert len(seen) == 2
    assert seen[0] is seen[1]


def test_mixed_labels_are_shares_of_the_pictures():
    run = objective(mixup=1.0, batch_size=2)
    images = torch.stack((torch.zeros(3, 4, 4), torch.ones(3, 4, 4)))
    mixed, targets = run.mixed(images.clone(), LABELS)
    # the first picture was 0 and is as much 1 as the second has come into it
    share = mixed[0, 0, 0, 0]
    torch.testing.assert_close(
        targets, torch.stack((1 - share, share, share * 0, share, 1 - share, share * 0)).view(2, 3)
    )
    assert 0 < share < 1


def test_a_cut_and_pasted_picture_has_labels_by_area():
    torch.manual_seed(0)
    np.random.seed(0)
    images = torch.stack((torch.zeros(3, 8, 8), torch.ones(3, 8, 8)))
    shares = []
    for _ in range(10):
        mixed, targets = objective(cutmix=1.0, batch_size=2).mixed(images.clone(), LABELS)
        # cut, not blended
        assert set(mixed.unique().tolist()) <= {0.0, 1.0}
        torch.testing.assert_close(
            targets[0], torch.tensor([1 - mixed[0].mean(), mixed[0].mean(), 0])
        )
        shares.append(float(targets[0, 1]))
    assert len(set(shares)) > 3


def test_a_label_that_does_not_fit_is_refused():
    with pytest.raises(
        ValueError, match="label 3 does not fit a model of 3 classes; labels count from 0"
    ):
        objective().mixed(torch.zeros(2, 3, 4, 4), torch.tensor([0, 3]))
