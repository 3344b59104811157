"""What fixed commands on `mini` write, as SHA-256 hashes: run before and after a change that should alter nothing.

python tools/behaviour.py record --out before.json      # in the old tree
python tools/behaviour.py record --out after.json       # in the new one
python tools/behaviour.py compare before.json after.json
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

COMMANDS = {
    "encode": "encode {fixtures}/band.flac --preset mini --out encoded.png",
    "invert": "invert encoded.png --out inverted.wav --method fast",
    "prepare": "prepare --source demo --preset mini --tracks 12 --seed 1 --base mini --out dataset",
    "vae-audit": "vae-audit --base mini --dataset dataset --clips 2 --sounds 1 --method fast --out audit",
    "cache": "cache --dataset dataset --base mini --out cache",
    "train": "train --base mini --cache cache --steps 20 --batch 4 --save-every 10 --optimizer.rate 1e-3 "
    "--regularization.share 0 --validation.every 10 --samples.every 20 --samples.count 2 --samples.steps 4 "
    "--adapter.text-encoders text_encoder text_encoder_2 --out run",
    "convert": "lora convert run/lora.safetensors --out diffusers.safetensors --to diffusers",
    "fuse": "fuse --base mini --lora run/lora.safetensors --out fused",
    "fuse-file": "fuse --base mini --lora run/lora.safetensors:0.5 --out fused.safetensors",
    "generate": "generate --base mini --prompt 'flute and piano' --num 2 --steps 6 --out tiles",
    "generate-lora": "generate --base mini --lora run/lora.safetensors --prompt 'banjo' --steps 6 --out lora-tiles",
    "generate-fused": "generate --base fused --prompt 'banjo' --steps 6 --method fast --num 4 --out fused-tiles",
    "generate-init": "generate --base mini --prompt 'violin' --init tiles/0001.wav --strength 0.5 --steps 6 "
    "--out varied",
    "long": "generate --base mini --prompt 'harp' --seconds 10 --steps 4 --out long",
    "long-extend": "generate --base mini --prompt 'harp' --seconds 10 --steps 4 --mode extend --out extended",
    "loop": "generate --base mini --prompt 'harp' --loop --steps 4 --out loop",
    "stitch": "stitch tiles --out stitched.png --wav stitched.wav",
    "cut": "cut stitched.png --overlap 25% --out cut",
    "evaluate": "evaluate --generated fused-tiles --reference dataset --embedder musicnn-msd --instruments "
    "--inversion fast --out scores",
}
SUFFIXES = {".png", ".wav", ".safetensors", ".json", ".jsonl", ".csv", ".toml"}
"""Reports (.html), curves (.svg) and tracker files show times; what they are made of is compared here."""
CLOCKED = {"metrics.jsonl", "run.json"}
"""Files that hold measured seconds."""


def record(out: Path) -> None:
    """Run every command in an empty folder and write {command: {file: hash}}."""
    fixtures = Path(__file__).parents[1] / "tests/fixtures"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "2"}
    found: dict[str, dict[str, str]] = {}
    seen: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, words in COMMANDS.items():
            line = f"{sys.executable} -m sdxl_mel {words.format(fixtures=fixtures)}"
            code = subprocess.run(line, shell=True, cwd=folder, env=environment, check=False).returncode
            now = hashes(Path(folder))
            found[name] = {file: digest for file, digest in now.items() if seen.get(file) != digest}
            found[name]["exit code"] = str(code)
            seen = now
    out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that holds no clock."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.name not in CLOCKED)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def compare(before: Path, after: Path) -> int:
    """Print every file that differs, by command; returns 1 if any does."""
    one, two = (json.loads(path.read_text(encoding="utf-8")) for path in (before, after))
    differing = 0
    for command in {**one, **two}:
        old, new = one.get(command, {}), two.get(command, {})
        for file in sorted({*old, *new}):
            if old.get(file) != new.get(file):
                differing += 1
                kind = "only before" if file not in new else "only after" if file not in old else "differs"
                print(f"{command}: {file}: {kind}")
    print(f"{sum(map(len, one.values()))} entries before, {differing} differ")
    return int(differing > 0)


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("record").add_argument("--out", type=Path, required=True)
    pair = commands.add_parser("compare")
    pair.add_argument("before", type=Path)
    pair.add_argument("after", type=Path)
    given = parser.parse_args()
    if given.command == "record":
        record(given.out)
        return 0
    return compare(given.before, given.after)


if __name__ == "__main__":
    sys.exit(main())
