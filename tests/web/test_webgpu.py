"""A site with a runtime for WebGPU in Chromium, whose adapter is software: right, slow, and used if it were faster.

SDXL_MEL_ONNXRUNTIME_WEB names the folder of the npm package onnxruntime-web, unpacked. Software takes minutes and more.
"""

import base64
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Playwright

from sdxl_mel import web
from sdxl_mel.arrays import Levels
from sdxl_mel.export.runner import Exported
from sdxl_mel.stages import export
from tests.web.static import hosted

SOFTWARE = ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
PROMPT, SEED, STEPS = "mel spectrogram, soft piano", 1, 2
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
def test_webgpu_draws_what_webassembly_draws(playwright: Playwright, tmp_path: Path) -> None:
    package = os.environ.get("SDXL_MEL_ONNXRUNTIME_WEB")
    if package is None:
        pytest.skip("SDXL_MEL_ONNXRUNTIME_WEB names no npm package onnxruntime-web")
    site = tmp_path / "site"
    export.run(export.Config(base="mini", out=site, webgpu=Path(package)))
    browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=SOFTWARE)
    said = {}
    with hosted(site=site, web=web.FOLDER) as host:
        for shorter in (1.0, 1e-3):
            page = browser.new_page()
            page.goto(f"{host.address}site/manifest.json")
            words, levels = page.evaluate(DRAW, [host.address, PROMPT, SEED, STEPS, shorter])
            said[words.partition(",")[0]] = np.frombuffer(base64.b64decode(levels), np.uint8)
            page.close()
    browser.close()
    assert set(said) == {"WebAssembly", "WebGPU"}
    wanted = drawn(site).transpose(2, 0, 1).ravel().astype(int)
    for levels in said.values():
        assert np.abs(levels.astype(int) - wanted).max() <= 1


def drawn(site: Path) -> Levels:
    """Return the picture that the reference runner draws."""
    exported = Exported.open(site)
    return exported.draw(PROMPT, SEED, exported.description.drawing.model_copy(update={"steps": STEPS}))
