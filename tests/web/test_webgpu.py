"""A site with a runtime for WebGPU in Chromium, whose adapter is software: right, slow, and used if it were faster.

SDXL_MEL_ONNXRUNTIME_WEB names the folder of the npm package onnxruntime-web, unpacked. The picture is small: on two
busy cores software takes 14 s for a prediction of the slim SDXL, and 80 for a picture of the size of mini's.
"""

import base64
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from sdxl_mel import web
from sdxl_mel.arrays import Levels
from sdxl_mel.export.description import Chosen
from sdxl_mel.export.options import PART_BYTES
from sdxl_mel.export.runner import Exported
from sdxl_mel.export.site import export_folder
from sdxl_mel.models.base import open_base
from sdxl_mel.models.layouts import Architecture
from sdxl_mel.models.lora.file import Lora, LoraHeader, write_lora
from sdxl_mel.models.sdxl import SDXL
from tests.caches import SMALL
from tests.loras import random_lora_modules
from tests.web.static import hosted

SOFTWARE = ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
PROMPT, SEED, STEPS = "mel spectrogram, soft piano", 1, 2
SHORTER = 1e-3
"""Of what it takes, as the page is told: it then draws with WebGPU."""
DRAW = """async ([address, prompt, seed, steps, shorter]) => {
  const { open } = await import(`${address}web/site/engine.js`);
  const now = performance.now.bind(performance);
  const told = Promise.withResolvers();
  let asked = 0;
  // What WebGPU takes is asked for by the third and fourth reading of each four.
  performance.now = () => now() * (asked++ % 4 < 2 ? 1 : shorter);
  const options = { worker: `${address}web/site/worker.js`, onDevice: told.resolve };
  const engine = await open(`${address}site/manifest.json`, options);
  const words = await told.promise;
  const { levels } = await engine.draw({ prompt, seed, steps });
  engine.close();
  return [words, btoa(Array.from(levels, (level) => String.fromCharCode(level)).join(""))];
}"""


@pytest.mark.slow
def test_webgpu_draws_what_webassembly_draws(browser: Browser, slim_sdxl: Path, tmp_path: Path) -> None:
    package = os.environ.get("SDXL_MEL_ONNXRUNTIME_WEB")
    if package is None:
        pytest.skip("SDXL_MEL_ONNXRUNTIME_WEB names no npm package onnxruntime-web")
    site = tmp_path / "site"
    lora = tmp_path / "small.safetensors"
    header = LoraHeader(SMALL, "mel spectrogram", architecture=Architecture(SDXL, 1))
    write_lora(lora, Lora(random_lora_modules(open_base(str(slim_sdxl)), alpha=0.2), header))
    chosen = Chosen(str(slim_sdxl), (str(lora),), weights="fp32")
    export_folder(chosen, site, PART_BYTES, page=True, webgpu=Path(package))
    software = browser.browser_type.launch(executable_path=shutil.which("chromium"), args=SOFTWARE)
    with hosted(site=site, web=web.FOLDER) as host:
        page = software.new_page()
        page.goto(f"{host.address}site/manifest.json")
        words, levels = page.evaluate(DRAW, [host.address, PROMPT, SEED, STEPS, SHORTER])
    software.close()
    assert words.startswith("WebGPU, ")
    found = np.frombuffer(base64.b64decode(levels), np.uint8).astype(int)
    wanted = drawn(site).transpose(2, 0, 1).ravel().astype(int)
    assert np.abs(found - wanted).max() <= 1


def drawn(site: Path) -> Levels:
    """Return the picture that the reference runner draws."""
    exported = Exported.open(site)
    return exported.draw(PROMPT, SEED, exported.description.drawing.model_copy(update={"steps": STEPS}))
