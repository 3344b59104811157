"""Pack onnxruntime-web's files for sdxl_mel/assets/onnxruntime-web: `python tools/pack_onnxruntime_web.py PACKAGE.tgz`.

PACKAGE.tgz is what `npm pack onnxruntime-web@1.30.0` fetches.
"""

import lzma
import sys
import tarfile
from pathlib import Path

from sdxl_mel.export.runtime import FILES, FOLDER

FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 26, "pb": 0}]


def main(package: Path) -> None:
    """Write one .xz a file."""
    FOLDER.mkdir(exist_ok=True)
    with tarfile.open(package) as archive:
        for name in FILES.values():
            member = archive.extractfile(f"package/dist/{name}")
            assert member is not None
            content = member.read()
            packed = lzma.compress(content, check=lzma.CHECK_SHA256, filters=FILTERS)
            (FOLDER / f"{name}.xz").write_bytes(packed)
            print(f"{name}: {len(content):,} -> {len(packed):,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
