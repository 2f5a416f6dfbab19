"""What models made of pictures: kept, taken up, and never mixed up."""

import pytest
import torch
from torch import nn

from batvit.outcomes import KINDS, Outcomes


class Says(nn.Module):
    """The same logits for every picture, but for the first channel's mean."""

    def __init__(self, logits, fails_at=None):
        super().__init__()
        self.logits, self.fails_at, self.calls = nn.Parameter(torch.tensor(logits)), fails_at, 0

    def forward(self, images):
        self.calls += 1
        if self.calls == self.fails_at:
            raise RuntimeError("no kernel")
        return self.logits * images.mean(dim=(1, 2, 3)).unsqueeze(1)


def batches(counts=(2, 2, 1)):
    draw = torch.Generator().manual_seed(0)
    return [(torch.rand(n, 3, 2, 2, generator=draw), torch.randint(0, 3, (n,), generator=draw)) for n in counts]


def watched(outcomes, models, data, dense=None):
    return list(outcomes.watch(dense or Says([3.0, 1.0, 0.0]), models, data))


def test_every_kind_by_hand(tmp_path):
    outcomes = Outcomes.load(tmp_path / "o", ["other"], 5)
    data = batches()
    assert watched(outcomes, {"other": Says([0.0, 1.0, 3.0])}, data) == [2, 4, 5]
    labels, scale = torch.cat([y for _, y in data]), torch.cat([x.mean(dim=(1, 2, 3)) for x, _ in data]).unsqueeze(1)
    dense, other = outcomes.of("dense"), outcomes.of("other")
    assert torch.equal(dense["top1"], (labels == 0).float())
    assert torch.equal(other["top1"], (labels == 2).float())
    # of three classes all are among the first five
    assert dense["top5"].tolist() == other["top5"].tolist() == [1.0] * 5
    assert dense["same"].tolist() == [1.0] * 5
    assert other["same"].tolist() == [0.0] * 5
    assert dense["kl"].abs().max() < 1e-6
    p, q = ((torch.tensor(logits) * scale).softmax(dim=1) for logits in ([3.0, 1.0, 0.0], [0.0, 1.0, 3.0]))
    torch.testing.assert_close(other["kl"], (p * (p / q).log()).sum(dim=1))


def test_a_pass_that_was_left_is_taken_up_where_it_was(tmp_path):
    path, data = tmp_path / "o", batches()
    whole = Outcomes.load(path, ["other"], 5)
    watched(whole, {"other": Says([0.0, 1.0, 3.0])}, data)
    first = Outcomes.load(path, ["other"], 5)
    for seen in first.watch(Says([3.0, 1.0, 0.0]), {"other": Says([0.0, 1.0, 3.0])}, data):
        if seen == 4:
            break
    first.save(path)
    second, model = Outcomes.load(path, ["other"], 5), Says([0.0, 1.0, 3.0])
    assert second.seen == 4
    assert watched(second, {"other": model}, data) == [5]
    assert model.calls == 1
    assert torch.equal(second.values["other"], whole.values["other"])


def test_what_was_kept_of_other_models_is_not_taken(tmp_path):
    path = tmp_path / "o"
    kept = Outcomes.load(path, ["other"], 5)
    watched(kept, {"other": Says([0.0, 1.0, 3.0])}, batches())
    kept.save(path)
    for names, samples in ((["another"], 5), (["other"], 6)):
        fresh = Outcomes.load(path, names, samples)
        assert fresh.seen == 0
        assert {v.shape for v in fresh.values.values()} == {(len(KINDS), samples)}
        assert all(v.isnan().all() for v in fresh.values.values())


def test_a_model_that_fails_is_left_out_and_the_others_go_on(tmp_path):
    outcomes = Outcomes.load(tmp_path / "o", ["bad", "nan", "good"], 5)
    models = {"bad": Says([0.0, 1.0, 3.0], fails_at=2), "nan": Says([float("nan"), 1.0, 3.0]), "good": Says([3.0, 1.0, 0.0])}
    assert watched(outcomes, models, batches()) == [2, 4, 5]
    assert {name: str(error) for name, error in outcomes.failed.items()} == {"bad": "no kernel", "nan": "logits are not finite"}
    assert models["bad"].calls == 2
    assert outcomes.of("good")["same"].tolist() == [1.0] * 5


def test_a_file_that_is_none_is_refused_by_name(tmp_path):
    path = tmp_path / "o"
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"o: cannot be read .*; remove it"):
        Outcomes.load(path, ["other"], 5)
