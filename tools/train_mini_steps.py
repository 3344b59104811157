"""Train the step adapter of the mini base: prompts, trajectories, training, and the file in half precision.

    python tools/train_mini_steps.py --work DIR

Run it from the root of the repository. It can be stopped and started again at any time; what is finished is not
repeated. DIR/step_adapter.safetensors is copied to sdxl_mel/assets/mini by hand, once `python -m bench distill` has
judged it better.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from sdxl_mel.commands import run_command  # noqa: E402
from sdxl_mel.corpus.tracks import plan_tracks  # noqa: E402
from sdxl_mel.files.atomic import write_text  # noqa: E402
from sdxl_mel.files.run import LORA_NAME, is_run  # noqa: E402
from sdxl_mel.progress import log  # noqa: E402
from sdxl_mel.seeding import numpy_generator  # noqa: E402
from tools.mini_base.captions import drawn_caption  # noqa: E402

TRACKS = 1024
PHASES = (("mini-steps.toml", 448), ("mini-steps-rolled.toml", 704))
"""The settings of each training, and the trajectories there are by then; each goes on from the one before."""


def main() -> None:
    """Run every part whose result is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for trajectories, the runs and the result")
    work = parser.parse_args().work
    prompts, trajectories, result = work / "prompts.txt", work / "trajectories", work / "step_adapter.safetensors"
    write_text(prompts, "".join(f"{caption}\n" for caption in captions()))
    before: list[str] = []
    for config, count in PHASES:
        run = work / config.removesuffix(".toml")
        if not (run / LORA_NAME).exists():
            teacher = ["--base", "mini", "--prompts", str(prompts), "--dtype", "bf16", "--batch", "16"]
            log(run_command("trajectories", [*teacher, "--count", str(count), "--out", str(trajectories)]).summary())
            words = ["--config", str(ROOT / "configs" / config), "--trajectories", str(trajectories), "--out", str(run)]
            log(run_command("train", [*words, *before, *(["--resume"] if is_run(run) else [])]).summary())
        before = ["--adapter.init", str(run / LORA_NAME)]
    result.unlink(missing_ok=True)
    log(run_command("lora", ["convert", before[1], "--dtype", "fp16", "--out", str(result)]).summary())


def captions() -> list[str]:
    """Return the captions of training tracks as the base's own training saw them, each once, and none empty."""
    plans = plan_tracks("train", TRACKS)
    drawn = (drawn_caption(list(plan.captions), numpy_generator(0, "prompts", at)) for at, plan in enumerate(plans))
    return list(dict.fromkeys(filter(None, drawn)))


if __name__ == "__main__":
    main()
