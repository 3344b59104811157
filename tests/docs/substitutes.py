"""What stands for what when the shown commands are executed: mini for SDXL, a few steps for thousands."""

from tests.docs.commands import Command

WORDS = {
    "stabilityai/stable-diffusion-xl-base-1.0": "mini",
    "models/sdxl": "mini",
    "configs/sdxl-24gb.toml": "tiny.toml",
    "configs/mini.toml": "tiny.toml",
    "laion/larger_clap_music": "clap",
}
"""A word for a word: the base, the settings of a card, a CLAP from the hub."""

VALUES = {
    "--preset": "mini",
    "--steps": "2",
    "--save-every": "1",
    "--num": "2",
    "--count": "2",
    "--seconds": "6",
}
"""Another value for a flag wherever it is shown."""

ADDED = {
    "prepare": ("--jobs", "1"),
    "encode": ("--preset", "mini"),
    "roundtrip": ("--seconds", "1"),
    "generate": ("--steps", "2", "--method", "fast"),
    "edit": ("--steps", "2", "--method", "fast"),
    "vary": ("--steps", "2"),
    "stitch": ("--method", "fast"),
    "invert": ("--method", "fast"),
    "vae-audit": ("--method", "fast"),
    "evaluate": ("--inversion", "fast", "--cache", "embedded"),
    "convert-clap": ("--tokenizer", "words"),
}
"""Flags a stage is told besides: one process, less sound, few steps, one cache of embeddings, and a folder for
what would come from the hub."""

QUICKER = {
    "width=256": "width=256, num_inference_steps=1",
    '"steps": 2': '"steps": 2, "validation": {"every": 0}',
}
"""Another text for a text of the shown Python."""

DISTILLED = "is for SDXL's widths; tests/training/test_distillation.py executes the task on a small model"
AUDITED = "turns dozens of clips into sound; tests/stages/test_vae_audit.py executes it on a small model"
NOT_RUN = {
    "make demo": "takes a quarter of an hour and is the job of `make demo` itself",
    "sdxl-mel demo": "the same",
    "make test": "is what runs this",
    "make studio": "serves until Ctrl-C; tests/studio serves",
    "sdxl-mel studio --open": "the same",
    "sdxl-mel studio --root my-project --open": "the same",
    "sdxl-mel export --base mini --lora runs/mine/lora.safetensors --out site": "takes a minute; tests/export exports",
    "npm pack onnxruntime-web@1.30.0": "asks npm",
    "tar xzf onnxruntime-web-1.30.0.tgz": "unpacks what npm gave",
    "make site": "exports mini, as tests/export does",
    "python examples/codec.py song.flac --out codec": "tests/examples executes it",
    "python examples/train_and_generate.py --out small-lora": "tests/examples executes it with fewer steps",
    "python examples/long_piece.py --out long-piece": "tests/examples executes it with fewer steps",
    "sdxl-mel train --task small-decoder --base models/sdxl --cache data/my-music-cache --out runs/decoder": DISTILLED,
    "sdxl-mel train --task refiner --base models/sdxl --dataset data/my-music --cache data/my-music-cache "
    "--out runs/refiner": "takes minutes; tests/training/test_refiner_task.py executes the task on a small model",
    "cp -r runs/refiner/refiner models/sdxl/": "copies what is not trained here",
    "sdxl-mel generate --base models/sdxl --lora runs/my-music/lora.safetensors --prompt slow piano --refine "
    "--out refined": "needs that refiner; tests/stages/test_refine.py draws with one",
    "sdxl-mel train --task text-encoder --base models/sdxl --cache data/my-music-cache --out runs/words": DISTILLED,
    "accelerate launch train_lora.py --task student --config configs/students/sdxl-330m.toml --base models/sdxl "
    "--cache data/my-music-cache --out runs/student": DISTILLED,
    "sdxl-mel train --task decoder --config configs/decoder-24gb.toml --base models/sdxl --dataset data/my-music "
    "--cache data/my-music-cache --out runs/sound": "is for a card; tests/training/test_decoder_task.py trains one",
    "sdxl-mel vae-audit --base models/sdxl --dataset data/my-music --out runs/audit": AUDITED,
    "sdxl-mel vae-audit --base models/sdxl --vae runs/sound/vae --against models/sdxl --dataset data/my-music "
    "--embedder musicnn-msd --method fast --out runs/audit-sound": AUDITED,
}
"""Commands that are not executed here, and why."""


def executed(command: Command) -> list[str]:
    """Return the arguments with which a shown command's stage is called."""
    words = [WORDS.get(word, word) for word in command.arguments]
    for flag, value in VALUES.items():
        if flag in words:
            words[words.index(flag) + 1] = value
    added = ADDED.get(command.stage or "", ())
    return words if added and added[0] in words else [*words, *added]
