"""Nothing is lost: killed, asked to stop, out of room; and what goes on is the same run."""

import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.models import VisionTransformer
from torch.utils.data import DataLoader, Subset

import batvit
from batvit.backbones.patch import during_training
from batvit.cli import main
from batvit.data.digits import digits
from batvit.storage.drafts import SUFFIX
from batvit.storage.weights import save_weights
from batvit.training import TrainConfig, fit
from batvit.training.checkpoints import CheckpointError, written
from batvit.training.stochastic_depth import SplitDropPath

GREY = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
CONFIG = TrainConfig(
    epochs=3,
    batch_size=16,
    lr=3e-3,
    min_lr=0.0,
    mixup=0.8,
    drop_path=0.1,
    ema=0.9,
    log_every=1,
    save_every=2,
)
WARM = dataclasses.replace(CONFIG, distill="soft", keep_warmup_epochs=2, keep_warmup_steps=2)
REDUCTION = batvit.BATConfig.preset("paper", keep_rate=0.5)


def vit():
    torch.manual_seed(0)
    sizes = {
        "img_size": 16,
        "patch_size": 4,
        "embed_dim": 16,
        "depth": 4,
        "num_heads": 2,
        "num_classes": 10,
    }
    return batvit.patch(
        VisionTransformer(**sizes, drop_path_rate=0.1, weight_init="jax"), REDUCTION
    )


@pytest.fixture(scope="module")
def data():
    train, val = digits((16, 16), **GREY)
    return Subset(train, range(96)), DataLoader(Subset(val, range(40)), 20)


def losses(folder):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["update"], line.get("loss", line.get("train_loss"))) for line in lines]


def weights(folder):
    return load_file(folder / "last.safetensors")


class Interrupted(BaseException):
    """As if the power went."""


def stop_at(update):
    def progress(step):
        if step.update == update:
            raise Interrupted

    return progress


@pytest.fixture(scope="module")
def never_stopped(data, tmp_path_factory):
    """A run in one go, and its folder."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, fit(vit(), *data, WARM, output=folder, reduce=during_training(REDUCTION))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The same for runs of CONFIG, and of CONFIG without checkpoints within an epoch."""
    runs = {}
    for save_every in (0, CONFIG.save_every):
        folder = tmp_path_factory.mktemp("plain") / "run"
        runs[save_every] = (
            folder,
            fit(vit(), *data, dataclasses.replace(CONFIG, save_every=save_every), output=folder),
        )
    return runs


@pytest.mark.parametrize("update", [1, 5, 8, 12, 17])
def test_a_resumed_run_is_the_uninterrupted_one(data, tmp_path, never_stopped, update):
    folder, whole = never_stopped
    with pytest.raises(Interrupted):
        fit(
            vit(),
            *data,
            WARM,
            output=tmp_path / "run",
            reduce=during_training(REDUCTION),
            progress=stop_at(update),
        )
    again = fit(
        model := vit(),
        *data,
        WARM,
        output=tmp_path / "run",
        resume=True,
        reduce=during_training(REDUCTION),
    )
    assert [(e.train_loss, e.eval_loss, e.top1, e.lr) for e in again] == [
        (e.train_loss, e.eval_loss, e.top1, e.lr) for e in whole
    ]
    assert losses(tmp_path / "run") == losses(folder)
    assert (tmp_path / "run" / "summary.csv").read_text() == (folder / "summary.csv").read_text()
    one, other = weights(folder), weights(tmp_path / "run")
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert all(torch.equal(one[key], value) for key, value in model.state_dict().items())


def test_the_last_checkpoints_and_the_best_are_kept(data, tmp_path):
    found = fit(vit(), *data, dataclasses.replace(CONFIG, epochs=4, keep=2), output=tmp_path)
    best = 6 * max(found, key=lambda epoch: epoch.top1).epoch
    kept = sorted(
        int(path.name.removeprefix("update-")) for path in (tmp_path / "checkpoints").iterdir()
    )
    assert kept == sorted({best, 22, 24})


def test_what_a_killed_process_began_to_write_is_swept_away(data, tmp_path):
    with pytest.raises(Interrupted):
        fit(vit(), *data, CONFIG, output=tmp_path, progress=stop_at(5))
    (tmp_path / "checkpoints" / ".update-00000005").mkdir()
    for name in ("last.safetensors", "best.safetensors", "best.batvit.json"):
        (tmp_path / f".{name}.01234567{SUFFIX}").write_text("half of it")
    fit(vit(), *data, CONFIG, output=tmp_path, resume=True)
    assert not list((tmp_path / "checkpoints").glob(".*"))
    assert [path.name for path in tmp_path.glob(".*")] == [".lock"]


@pytest.mark.parametrize("epoch", [1, 3])
def test_an_epoch_is_kept_though_its_evaluation_fails(data, tmp_path, whole, epoch):
    class Failing:
        passes = 0

        def __iter__(self):
            self.passes += 1
            if self.passes == epoch:
                raise Interrupted
            return iter(data[1])

    # nothing is saved within an epoch
    config = dataclasses.replace(CONFIG, save_every=0)
    folder, found = whole[0]
    with pytest.raises(Interrupted):
        fit(vit(), data[0], Failing(), config, output=tmp_path / "run")
    steps = []
    again = fit(vit(), *data, config, output=tmp_path / "run", resume=True, progress=steps.append)
    assert [step.update for step in steps] == list(range(6 * epoch + 1, 19))
    assert [(e.train_loss, e.eval_loss, e.lr) for e in again] == [
        (e.train_loss, e.eval_loss, e.lr) for e in found
    ]
    assert losses(tmp_path / "run") == losses(folder)
    one, other = weights(folder), weights(tmp_path / "run")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_an_epoch_that_was_told_but_not_saved_is_told_once(data, tmp_path, whole):
    def killed(epoch):
        if epoch.epoch == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        fit(vit(), *data, CONFIG, output=tmp_path / "run", on_epoch=killed)
    fit(vit(), *data, CONFIG, output=tmp_path / "run", resume=True)
    assert losses(tmp_path / "run") == losses(whole[CONFIG.save_every][0])


def test_checkpoints_of_another_run_are_not_gone_on_with(data, tmp_path):
    fit(vit(), *data, dataclasses.replace(CONFIG, epochs=1), output=tmp_path)
    for path in tmp_path.glob("*.*"):
        path.unlink()
    with pytest.raises(FileExistsError, match=r"already holds a run \(checkpoints\)"):
        fit(vit(), *data, CONFIG, output=tmp_path)


def test_a_run_without_a_checkpoint_begins_anew(data, tmp_path):
    with pytest.raises(Interrupted):
        fit(vit(), *data, CONFIG, output=tmp_path, progress=stop_at(1))
    assert [update for update, _ in losses(tmp_path)] == [1]
    fit(vit(), *data, CONFIG, output=tmp_path, resume=True)
    # eighteen updates, and a line for each of three epochs
    assert [update for update, _ in losses(tmp_path)] == sorted([*range(1, 19), 6, 12, 18])


def test_a_finished_run_stays_as_it_is(data, tmp_path, whole):
    folder, found = whole[CONFIG.save_every]
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "log.jsonl").read_text()
    assert all(
        batvit.BATConfig.beside(tmp_path / f"{name}.safetensors") == REDUCTION
        for name in ("last", "best")
    )
    assert fit(vit(), *data, CONFIG, output=tmp_path, resume=True) == found
    assert (tmp_path / "log.jsonl").read_text() == before


def test_a_run_cannot_go_on_as_another(data, tmp_path):
    metadata = {"model": "vit", "config": REDUCTION.to_dict(), "class_names": ("a", "b")}
    fit(vit(), *data, dataclasses.replace(CONFIG, epochs=1), output=tmp_path, metadata=metadata)
    before = (tmp_path / "run.json").read_text()
    cases = [
        (
            dataclasses.replace(CONFIG, epochs=1, lr=1e-3),
            metadata,
            "train.lr = 0.003, and cannot go on with 0.001",
        ),
        (CONFIG, metadata, "train.epochs = 1, and cannot go on with 3"),
        (
            dataclasses.replace(CONFIG, epochs=1),
            metadata | {"model": "deit"},
            "model = vit, and cannot go on with deit",
        ),
        (
            dataclasses.replace(CONFIG, epochs=1),
            metadata | {"config": REDUCTION.with_fields(keep_rate=0.6).to_dict()},
            r"config.keep_rate = .*, and cannot go on with 0.6; give what it was begun with",
        ),
        (
            dataclasses.replace(CONFIG, epochs=1),
            metadata | {"class_names": ("b", "a")},
            r"class_names\[0\] = a, and cannot go on with b",
        ),
        # reduced before, dense now
        (
            dataclasses.replace(CONFIG, epochs=1),
            metadata | {"config": None},
            r"config\.\w+ = .*, and cannot go on with None",
        ),
    ]
    for config, told, message in cases:
        with pytest.raises(ValueError, match=message):
            fit(model := vit(), *data, config, output=tmp_path, resume=True, metadata=told)
        # the model is as it came
        assert not any(isinstance(module, SplitDropPath) for module in model.modules())
    with pytest.raises(ValueError, match=r"pictures = 96, and cannot go on with 64"):
        fit(
            vit(),
            Subset(data[0], range(64)),
            data[1],
            dataclasses.replace(CONFIG, epochs=1),
            output=tmp_path,
            resume=True,
            metadata=metadata,
        )
    # what nobody told about is seen
    other = batvit.patch(vit(), REDUCTION.with_fields(keep_rate=0.6))
    once = dataclasses.replace(CONFIG, epochs=1)
    named = {name: value for name, value in metadata.items() if name != "config"}
    with pytest.raises(ValueError, match=r"config.keep_rate = .*, and cannot go on with 0.6"):
        fit(
            other,
            *data,
            once,
            output=tmp_path,
            resume=True,
            metadata=named,
        )
    wide = VisionTransformer(
        img_size=16,
        patch_size=4,
        embed_dim=24,
        depth=4,
        num_heads=2,
        num_classes=10,
        drop_path_rate=0.1,
    )
    with pytest.raises(
        ValueError,
        match=r"param_count = \d+, and cannot go on with \d+; give what it was begun with",
    ):
        fit(
            batvit.patch(wide, REDUCTION),
            *data,
            once,
            output=tmp_path,
            resume=True,
            metadata=metadata,
        )
    assert (tmp_path / "run.json").read_text() == before
    # what only changes how fast it goes may change
    free = dataclasses.replace(CONFIG, epochs=1, workers=1, grad_accum_steps=2, log_every=7, keep=1)
    assert len(fit(vit(), *data, free, output=tmp_path, resume=True, metadata=metadata)) == 1
    # an earlier version may not have known of a field
    told = json.loads(before)
    del told["train"]["distill_tau"], told["config"]["importance_power"], told["param_count"]
    (tmp_path / "run.json").write_text(json.dumps(told))
    assert len(fit(vit(), *data, free, output=tmp_path, resume=True, metadata=metadata)) == 1
    with pytest.raises(ValueError, match=r"train.distill_tau = 1.0, and cannot go on with 0.5"):
        fit(
            vit(),
            *data,
            dataclasses.replace(free, distill_tau=0.5),
            output=tmp_path,
            resume=True,
            metadata=metadata,
        )
    # what a caller tells under the same name is the caller's
    mine = metadata | {"config": {"mine": 1}}
    fit(vit(), *data, free, output=tmp_path / "mine", metadata=mine)
    assert len(fit(vit(), *data, free, output=tmp_path / "mine", resume=True, metadata=mine)) == 1
    other = batvit.patch(vit(), REDUCTION.with_fields(importance_power=0.25))
    with pytest.raises(
        ValueError, match=r"config.importance_power = 0.0, and cannot go on with 0.25"
    ):
        fit(other, *data, free, output=tmp_path, resume=True, metadata=named)


def test_two_runs_cannot_write_into_one_folder(data, tmp_path):
    said = []

    def meanwhile(step):
        if step.update == 2:
            with pytest.raises(
                FileExistsError,
                match="another run is writing into it; wait for it, or name another folder",
            ) as error:
                fit(other := vit(), *data, CONFIG, output=tmp_path, resume=True)
            assert not any(isinstance(module, SplitDropPath) for module in other.modules())
            said.append(error)
            raise Interrupted

    with pytest.raises(Interrupted):
        fit(vit(), *data, CONFIG, output=tmp_path, progress=meanwhile)
    assert said
    # it is free again
    assert len(fit(vit(), *data, CONFIG, output=tmp_path, resume=True)) == 3


def test_a_spoiled_checkpoint_is_refused_by_name(data, tmp_path):
    fit(vit(), *data, dataclasses.replace(CONFIG, epochs=1), output=tmp_path)
    last = tmp_path / "checkpoints" / "update-00000006"
    (last / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(
        ValueError,
        match=r"update-00000006: cannot be resumed from .*; start it .* go on from the one before",
    ):
        fit(vit(), *data, dataclasses.replace(CONFIG, epochs=1), output=tmp_path, resume=True)


# in a process of its own


def arguments(folder, *more):
    common = (
        "train",
        "--model",
        "test_vit",
        "--data",
        "digits",
        "--dense",
        "--device",
        "cpu",
        "--threads",
        "1",
    )
    sizes = (
        "--img-size",
        "32",
        "--batch-size",
        "64",
        "--epochs",
        "2",
        "--lr",
        "1e-3",
        "--save-every",
        "5",
        "--log-every",
        "1",
    )
    return [
        *(*common, *sizes, "--checkpoint", str(folder / "weights.safetensors")),
        *("--output", str(folder / "run"), *more),
    ]


def command(folder, *more):
    return [sys.executable, "-m", "batvit", *arguments(folder, *more)]


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save_weights(timm.create_model("test_vit", num_classes=10), tmp_path / "weights.safetensors")
    return tmp_path


def start_and_wait(folder, update, *more, **options):
    """A training process, when it has logged an update."""
    process = subprocess.Popen(
        command(folder, *more),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        **options,
    )
    log = folder / "run" / "log.jsonl"
    while process.poll() is None and not (
        log.is_file() and f'"update": {update},' in log.read_text()
    ):
        time.sleep(0.01)
    return process


def finish(folder):
    assert main(arguments(folder, "--resume")) == 0


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    whole = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    save_weights(timm.create_model("test_vit", num_classes=10), whole / "weights.safetensors")
    assert main(arguments(whole)) == 0
    return losses(whole / "run")


def test_asked_to_stop_it_saves_and_leaves(folder, uninterrupted):
    process = start_and_wait(folder, 7)
    process.terminate()
    _, err = process.communicate()
    assert process.returncode == 143
    assert "Traceback" not in err
    assert "asked to stop (SIGTERM) after update" in err.splitlines()[-1]
    assert "go on with --resume" in err.splitlines()[-1]
    done = [
        int(path.name.removeprefix("update-"))
        for path in (folder / "run" / "checkpoints").iterdir()
    ]
    assert f"after update {max(done)};" in err
    finish(folder)
    assert losses(folder / "run") == uninterrupted


def test_it_saves_too_when_its_workers_are_asked_to_stop_with_it(folder):
    process = start_and_wait(folder, 7, "--workers", "1", start_new_session=True)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 143, err
    assert "asked to stop (SIGTERM) after update" in err.splitlines()[-1]


def no_room():
    # as a full disk: no file may grow beyond 300 kB, and the weights are larger
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


def test_killed_in_mid_epoch_and_then_without_room_it_goes_on_as_if_nothing_had_happened(
    folder, uninterrupted
):
    process = start_and_wait(folder, 8)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "run" / "last.safetensors").exists()
    before = sorted(
        path.name
        for path in (folder / "run" / "checkpoints").iterdir()
        if not path.name.startswith(".")
    )
    full = subprocess.run(
        command(folder, "--resume"), preexec_fn=no_room, capture_output=True, text=True, check=False
    )
    assert full.returncode == 2
    (said,) = [line for line in full.stderr.splitlines() if line.startswith("batvit train: ")]
    assert "cannot write" in said
    assert "make room there, then go on with --resume" in said
    assert "Traceback" not in full.stderr
    # one that was begun has gone again
    assert sorted(path.name for path in (folder / "run" / "checkpoints").iterdir()) == before
    finish(folder)
    assert losses(folder / "run") == uninterrupted


def test_a_corrupt_picture_is_named_and_the_checkpoint_stays(tmp_path, capsys):
    for part in ("train", "val"):
        for name in ("blue", "red"):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for i in range(4):
                Image.effect_noise((40, 40), 50).convert("RGB").save(
                    tmp_path / "data" / part / name / f"{i}.jpg"
                )
    torch.manual_seed(0)
    save_weights(timm.create_model("test_vit", num_classes=2), tmp_path / "weights.safetensors")
    given = [
        "train",
        "--model",
        "test_vit",
        "--checkpoint",
        str(tmp_path / "weights.safetensors"),
        "--dense",
    ]
    given += [
        "--data",
        str(tmp_path / "data"),
        "--output",
        str(tmp_path / "run"),
        "--save-every",
        "1",
    ]
    given += ["--img-size", "32", "--batch-size", "4", "--device", "cpu"]
    bad = tmp_path / "data" / "train" / "red" / "2.jpg"
    whole = bad.read_bytes()
    # its header is fine, which is all that is looked at before
    bad.write_bytes(whole[: len(whole) // 2])
    for workers in ("0", "1"):
        assert main([*given, "--epochs", "2", "--workers", workers, "--resume"]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"batvit train: {bad}: cannot be read as a picture")
        assert "skip such files (--skip-unreadable)" in said
    bad.write_bytes(whole)
    assert main([*given, "--epochs", "2", "--resume"]) == 0


def test_an_error_in_writing_is_told_whatever_it_is(tmp_path):
    with (
        pytest.raises(CheckpointError, match=r"cannot write .*x \(no luck\); make room"),
        written(tmp_path / "x"),
    ):
        raise RuntimeError("no luck\nand more")
    assert not list(tmp_path.iterdir())
