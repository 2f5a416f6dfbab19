"""batvit info: the numbers of the paper, and one clear line for everything it refuses."""

import pytest
import timm
from command_runs import NAME

LOGS = {0.7: 3.0048, 0.6: 2.5832, 0.5: 2.3444, 0.4: 2.0830, 0.3: 1.8233, 0.2: 1.6451}


@pytest.mark.parametrize("keep_rate", [0.7, 0.2])
def test_info_gives_the_numbers_of_the_paper(writes, keep_rate):
    out, err, fields = writes(
        "info", "deit_small_patch16_224", "--mode", "paper", "--keep-rate", keep_rate
    )
    assert fields["gmacs"] == pytest.approx(LOGS[keep_rate], rel=0.005)
    assert fields["dense_gmacs"] == pytest.approx(4.6, abs=0.05)
    assert (fields["model"], fields["param_count"], fields["img_size"]) == (
        "deit_small_patch16_224",
        22_050_664,
        [224, 224],
    )
    assert fields["mac_ratio"] == pytest.approx(fields["dense_gmacs"] / fields["gmacs"])
    assert (fields["config"]["weight"], fields["config"]["size_aware"]) == ("importance", False)
    assert "deit_small_patch16_224 at 224 x 224: 22,050,664 parameters" in out
    assert err == ""


def test_info_of_the_small_model_of_the_paper(writes):
    *_, fields = writes("info", NAME, "--mode", "paper", "--keep-rate", "0.7")
    assert fields["gmacs"] == pytest.approx(0.81, rel=0.01)
    *_, fields = writes("info", NAME, "--mode", "paper", "--keep-rate", "0.64")
    assert fields["gmacs"] / fields["dense_gmacs"] <= 0.6


def test_info_at_another_size_of_image_and_head(writes):
    out, _, fields = writes("info", NAME, "--img-size", 64, 96, "--num-classes", 7)
    assert fields["img_size"] == [64, 96]
    assert fields["blocks"][0]["tokens_in"] == 24
    assert fields["param_count"] == sum(
        p.numel() for p in timm.create_model(NAME, img_size=(64, 96), num_classes=7).parameters()
    )
    assert out.splitlines()[-1].startswith(f"{NAME} at 64 x 96: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["deit_tny"], "unknown model 'deit_tny'; did you mean deit_tiny"),
        (
            ["swin_tiny_patch4_window7_224"],
            "cannot reduce the tokens of timm.models.swin_transformer.SwinTransformer: no adapter",
        ),
        (
            ["swinv2_cr_tiny_224"],
            "cannot reduce the tokens of timm.models.swin_transformer_v2_cr.SwinTransformerV2Cr",
        ),
        (
            [NAME, "--keep-rate", "1.5"],
            "--keep-rate must lie in (0, 1], got 1.5; 1 keeps everything",
        ),
        ([NAME, "--keep-rate", "0.0"], "--keep-rate must lie in (0, 1], got 0.0"),
        ([NAME, "--keep-rate", "nan"], "--keep-rate must lie in (0, 1], got nan"),
        (
            [NAME, "--keep-rate", "much"],
            "--keep-rate: expected a number, or several with commas, got 'much'; see batvit info",
        ),
        (
            [NAME, "--keep-rate", "0.5", "--tokens", "9,5,3"],
            "give keep_rate or tokens, not both; got 0.5 and (9, 5, 3)",
        ),
        (
            [NAME, "--blocks", "3,6,40"],
            "blocks must lie in 0 .. 11 for a model of 12 blocks, got 40",
        ),
        ([NAME, "--blocks", "6,3"], "blocks must rise and not repeat, got (6, 3); sort them"),
        ([NAME, "--tokens", "500,50,5"], "500 tokens cannot go on where 196 come in; lower tokens"),
        ([NAME, "--tokens", "9,5,0"], "tokens must be 1 or more, got 0"),
        ([NAME, "--centres", "900"], "900 centres do not fit into"),
        (
            [NAME, "--pairs", "0.9"],
            "pairs as a share must lie in 0.0 .. 0.5, got 0.9; a count is an int",
        ),
        ([NAME, "--neighbours", "0"], "neighbours must be 1 or more, got 0"),
        (
            [NAME, "--mode", "fast"],
            "--mode: invalid choice: 'fast' (choose from 'paper', 'training-free', 'gradual'); see",
        ),
        ([NAME, "--method", "best"], "method must be one of bat, topk, evit, "),
        ([NAME, "--img-size", "0"], "--img-size: expected an integer of 1 or more, got '0'"),
        ([NAME, "--img-size", "64.5"], "--img-size: expected an integer of 1 or more, got '64.5'"),
        ([NAME, "--img-size", "64", "64", "3"], "--img-size takes one or two numbers, got 64 64 3"),
        (
            [NAME, "--img-size", "65"],
            "65 x 65 pixels cannot be cut into the 16 x 16 patches of deit_tiny_patch16_224; ",
        ),
        (
            [NAME, "--num-classes", "-1"],
            "--num-classes: expected an integer of 0 or more, got '-1'",
        ),
        ([NAME, "--checkpoint", "/nowhere/x.safetensors"], "/nowhere/x.safetensors: no such file"),
        ([NAME, "--config", "/nowhere/x.json"], "/nowhere/x.json: no such file"),
        (
            [NAME, "--config", "/nowhere/x.json", "--mode", "paper"],
            "give --config /nowhere/x.json or --mode paper, not both",
        ),
    ],
)
def test_info_refuses(refuses, tmp_path, arguments, said):
    assert said in refuses("info", *arguments, "--json", tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--keep-rate", "0"], "--keep-rate must lie in (0, 1], got 0;"),
        (["--blocks", "3.5"], "blocks must hold integers, got 3.5 (float)"),
        (["--tokens", "9.5,5,3"], "tokens must hold integers, got 9.5 (float)"),
        (["--neighbours", "0.5"], "neighbours must hold integers, got 0.5 (float)"),
        (["--centres", "0.1,0.2"], "centres must be a number, got (0.1, 0.2) (tuple)"),
    ],
)
def test_numbers_of_the_wrong_type_are_refused(refuses, arguments, said):
    assert said in refuses("info", NAME, *arguments)


@pytest.mark.unchecked
def test_an_integer_is_a_keep_rate_too(writes):
    assert writes("info", NAME, "--keep-rate", "1")[2]["mac_ratio"] == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not a JSON file ("),
        ("[1]", "a BATConfig is a JSON object, found list"),
        ('{"keep": 0.5}', "unknown field 'keep' in a BATConfig; the fields are keep_rate, tokens"),
        ('{"keep_rate": 7.5}', "keep_rate must lie in (0, 1], got 7.5"),
    ],
)
def test_a_bad_configuration_file_is_named(refuses, tmp_path, content, said):
    path = tmp_path / "bat.json"
    path.write_text(content)
    assert refuses("info", NAME, "--config", path).startswith(f"batvit info: {path}: {said}")
