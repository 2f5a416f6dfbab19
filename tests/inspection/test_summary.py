"""What a model costs: the numbers of the paper's logs, and the table."""

import json

import pytest
import timm
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import batvit
from batvit.module_copy import on_meta

# GMACs in the authors' training logs
LOGS = {0.7: 3.0048, 0.6: 2.5832, 0.5: 2.3444, 0.4: 2.0830, 0.3: 1.8233, 0.2: 1.6451}


def vit(**settings):
    return VisionTransformer(
        **(
            {
                "img_size": 64,
                "patch_size": 16,
                "embed_dim": 24,
                "depth": 4,
                "num_heads": 3,
                "num_classes": 5,
            }
            | settings
        )
    )


@pytest.fixture(scope="module")
def deit_small():
    return on_meta(timm.create_model("deit_small_patch16_224"))


@pytest.mark.parametrize("keep_rate", LOGS)
def test_macs_are_those_of_the_authors_logs(deit_small, keep_rate):
    found = batvit.info(batvit.patch(deit_small, mode="paper", keep_rate=keep_rate))
    assert found.macs / 1e9 == pytest.approx(LOGS[keep_rate], rel=0.005)
    assert found.dense_macs / 1e9 == pytest.approx(4.6, abs=0.05)
    assert found.param_count == 22_050_664
    # the reductions themselves are in these counts, and cost little
    assert sum(block.macs for block in found.blocks) < found.macs


def test_a_dense_model_has_a_table_too():
    found = batvit.info(vit(), name="my vit")
    assert [
        (b.block, b.tokens_in, b.attentive, b.pairs, b.clusters, b.tokens_out) for b in found.blocks
    ] == [(i, 16, None, None, None, 16) for i in range(4)]
    assert (found.macs, found.mac_ratio, found.config) == (found.dense_macs, 1, None)
    assert str(found).endswith("(+0.0 %)")
    assert "my vit at 64 x 64: " in str(found)


def test_of_a_plan_without_attentive_tokens_the_table_has_only_numbers_of_tokens():
    found = batvit.info(batvit.patch(vit(), method="dpcknn", tokens=(10,), blocks=(1,)))
    assert [(b.attentive, b.pairs, b.clusters) for b in found.blocks] == [(None, None, None)] * 4
    assert [b.tokens_out for b in found.blocks] == [16, 10, 10, 10]


def test_the_table_says_what_happens_at_every_block():
    model = batvit.patch(vit(), tokens=(10, 6), blocks=(1, 3), centres=3, pairs=2)
    found = batvit.info(model)
    assert [
        (b.tokens_in, b.attentive, b.pairs, b.clusters, b.tokens_out) for b in found.blocks
    ] == [
        (16, None, None, None, 16),
        (16, 9, 2, 3, 10),
        (10, None, None, None, 10),
        (10, 5, 2, 3, 6),
    ]
    lines = str(found).splitlines()
    assert lines[0].split("  ") == [
        "block",
        "tokens in",
        "attentive",
        "pairs",
        "clusters",
        "tokens out",
        "M MACs",
    ]
    assert lines[2].split()[:6] == ["1", "16", "9", "2", "3", "10"]
    # columns are as wide as what stands in them
    assert len({len(line) for line in lines[:-1]}) == 1
    assert lines[-1] == found.summary
    assert found.summary.startswith(
        f"VisionTransformer at 64 x 64: {found.param_count:,} parameters, "
    )


def test_the_dictionary_holds_plain_values():
    model = batvit.patch(vit(), tokens=(10,), blocks=(1,))
    fields = json.loads(json.dumps(batvit.info(model).to_dict()))
    assert set(fields) == {
        *("model", "img_size", "param_count", "prefix_tokens", "blocks"),
        *("gmacs", "dense_gmacs", "mac_ratio", "config"),
    }
    assert fields["mac_ratio"] == pytest.approx(fields["dense_gmacs"] / fields["gmacs"])
    assert fields["gmacs"] < fields["dense_gmacs"] < 1e-3
    assert fields["img_size"] == [64, 64]
    assert fields["config"]["tokens"] == [10]
    assert fields["blocks"][1]["tokens_out"] == 10


def test_another_image_size_is_counted_for_a_model_that_takes_it():
    model = batvit.patch(vit(dynamic_img_size=True), keep_rate=0.5, blocks=(1,))
    found = batvit.info(model, image_size=(32, 96))
    assert (found.img_size, found.blocks[0].tokens_in, found.blocks[1].tokens_out) == (
        (32, 96),
        12,
        6,
    )
    assert found.macs < batvit.info(model).macs


def test_prefix_tokens_are_not_in_the_counts():
    found = batvit.info(vit(reg_tokens=4))
    assert (found.prefix_tokens, found.blocks[0].tokens_in) == (5, 16)


def test_the_model_stays_patched():
    model = batvit.patch(vit(), tokens=(10,), blocks=(1,))
    batvit.info(model)
    assert batvit.config_of(model) == batvit.BATConfig.preset(tokens=(10,), blocks=(1,))


def test_what_is_not_supported_is_refused():
    with pytest.raises(
        TypeError, match=r"cannot reduce the tokens of torch\.nn\.modules\.linear\.Linear"
    ):
        batvit.info(nn.Linear(1, 1))
