"""batvit draw: pictures that open, and one clear line for everything it refuses."""

import pytest
import timm
from command_runs import NAME, SMALL, noise
from PIL import Image
from safetensors.torch import load_file, save_file


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_draw_writes_pictures_that_open(writes, weights, tmp_path, precision):
    noise().save(tmp_path / "x.jpg")
    # rich would take what is in brackets for a colour
    strip, curves = tmp_path / "groups[red].png", tmp_path / "diversity.svg"
    arguments = (
        tmp_path / "x.jpg",
        "-o",
        strip,
        "--diversity",
        curves,
        "--checkpoint",
        weights,
        "--precision",
        precision,
    )
    out, err, fields = writes("draw", NAME, *SMALL, *arguments)
    with Image.open(strip) as picture:
        picture.load()
        assert picture.width > 4 * 336
    assert b"<svg" in curves.read_bytes()
    assert out.endswith(f"wrote {strip}\nwrote {curves}\n")
    assert (fields["grid"], fields["picture"], fields["model"]) == (
        [4, 4],
        str(tmp_path / "x.jpg"),
        NAME,
    )
    assert [site["block"] for site in fields["sites"]] == [3, 6, 9]
    for site in fields["sites"]:
        assert sorted(set(site["groups"])) == list(range(site["tokens_out"]))
    assert {name: len(values) for name, values in fields["diversity"].items()} == {
        "dense": 12,
        "reduced": 12,
    }
    assert err == ""


def test_draw_refuses_before_any_work(refuses, tmp_path, monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: pytest.fail("a model was created"))
    monkeypatch.chdir(tmp_path)
    noise().save("x.png")
    (tmp_path / "text.jpg").write_text("hello")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for arguments, said in (
        (
            ["x.png", "-o", "groups.xyz"],
            "--output groups.xyz: the suffix must be one of .png, .jpg, .jpeg, .webp",
        ),
        (["x.png", "-o", "groups"], "--output groups: the suffix must be one of .png"),
        (
            ["x.png", "--diversity", "d.jpg"],
            "--diversity d.jpg: the suffix must be one of .png, .svg, .pdf",
        ),
        (
            ["x.png", "-o", "nowhere/g.png"],
            "cannot write nowhere/g.png: the folder nowhere does not exist; create it first",
        ),
        (
            ["x.png", "-o", "a.png", "--diversity", "./a.png"],
            "a.png would overwrite what is read or written beside it; name",
        ),
        (["x.png", "-o", "x.png"], "x.png would overwrite what is read"),
        (["none.png"], "none.png: cannot be read as a picture (No such file or directory)"),
        (["text.jpg"], "text.jpg: cannot be read as a picture (it is none of BMP"),
        (["."], ".: cannot be read as a picture (Is a directory)"),
    ):
        assert said in refuses("draw", NAME, *arguments)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_draw_needs_weights(refuses, tmp_path):
    noise().save(tmp_path / "x.jpg")
    assert "give --checkpoint FILE" in refuses(
        "draw", NAME, tmp_path / "x.jpg", "-o", tmp_path / "groups.png"
    )
    assert not (tmp_path / "groups.png").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_not_drawn(refuses, weights, tmp_path, value):
    noise().save(tmp_path / "x.jpg")
    state = load_file(weights)
    state["blocks.2.mlp.fc1.weight"][0, 0] = value
    save_file(state, tmp_path / "broken.safetensors")
    arguments = ("--checkpoint", tmp_path / "broken.safetensors", "-o", tmp_path / "groups.png")
    said = refuses("draw", NAME, *SMALL, tmp_path / "x.jpg", *arguments)
    assert "the reduced model: logits are not finite; run it in fp32 or bf16, or check" in said
    assert not (tmp_path / "groups.png").exists()
