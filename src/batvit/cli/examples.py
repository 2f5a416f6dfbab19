"""The examples at the end of each command's help: the first does most for a newcomer."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("batvit demo", "batvit demo --epochs 2 --output /tmp/demo"),
    "info": (
        "batvit info deit_small_patch16_224",
        "batvit info vit_large_patch16_384 --mode gradual --keep-rate 0.5",
    ),
    "eval": (
        "batvit eval deit_small_patch16_224 --data photos/val",
        "batvit eval deit_small_patch16_224 --checkpoint my.safetensors --num-classes 20 "
        "--data photos/val --keep-rate 0.6",
        "batvit eval small.onnx --dense small_dense.onnx --data photos/val",
    ),
    "bench": (
        "batvit bench deit_small_patch16_224",
        "batvit bench deit_small_patch16_224 --batch-size 1 8 64 --compile --plot speed.png",
        "batvit bench small.onnx --dense small_dense.onnx --threads 2",
    ),
    "export": (
        "batvit export deit_small_patch16_224 --output small.onnx",
        "batvit export deit_small_patch16_224 --output small.xml --int8 --data photos/val",
        "batvit export deit_small_patch16_224 --output small_dense.onnx --dense",
    ),
    "draw": (
        "batvit draw deit_small_patch16_224 cat.jpg",
        "batvit draw deit_small_patch16_224 cat.jpg --keep-rate 0.5 --output cat_groups.png",
    ),
    "train": (
        "batvit train --recipe your_data --data photos --output run",
        "batvit train --recipe your_data --data photos --output run --resume",
        "batvit train --model deit_tiny_patch16_224 --data photos --output run --epochs 5 "
        "--lr 1e-4 --mode paper --keep-rate 0.7",
    ),
    "plot": (
        "batvit plot run",
        "batvit plot reduced=run dense=other_run --output both.svg",
    ),
    "compare": (
        "batvit compare deit_small_patch16_224 --data photos/val --output comparison",
        "batvit compare deit_small_patch16_224 --data photos/val --output comparison "
        "--plans bat,tome --targets 0.7,0.5 --samples 500 --resume",
    ),
    "tune": (
        "batvit tune deit_small_patch16_224 --data photos/train --target-macs 0.6 --output tuned",
        "batvit tune deit_small_patch16_224 --data photos/train --target-speedup 1.5 "
        "--output tuned --minutes 30",
        "batvit tune deit_small_patch16_224 --data photos/train --labels --max-drop 0.5 "
        "--output tuned",
    ),
}
