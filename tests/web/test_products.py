"""Products of matrices in WebAssembly: the sums that float32 makes of one product after the other, to the last bit."""

import base64
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from sdxl_mel.arrays import Float
from sdxl_mel.errors import FormatError
from sdxl_mel.export.products import PANEL, product_routine, with_products
from sdxl_mel.export.wasm import replace_functions, sized, unsigned
from sdxl_mel.record import sha256_bytes
from sdxl_mel.seeding import numpy_generator
from tests.web.pages import opened

A_TO_B, B_TO_C = 3, 5
"""Numbers that lie between the rows of A and of C."""
SHAPES = [*product((1, 2, 3), (1, 2, 5, 33), (1, 2, 3, 4, 7, 8, 11, 15, 16, 17, 31, 32, 50))]
"""Rows, numbers of a sum, columns."""
RUN = """async ([module, calls]) => {
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const { instance } = await WebAssembly.instantiate(bytes(module));
  const { memory, ...routines } = instance.exports;
  return calls.map(({ name, a, b, c, inner, rows, columns, nextA, nextC, factor }) => {
    const [toA, toB, toC] = [0, 1 << 16, 1 << 17];
    for (const [at, content] of [[toA, a], [toB, b], [toC, c]]) new Uint8Array(memory.buffer).set(bytes(content), at);
    for (let row = 0; row < rows; ) {
      const [fromA, from] = [toA + 4 * nextA * row, toC + 4 * nextC * row];
      row += routines[name](fromA, toB, from, inner, rows - row, columns, nextA, nextC, factor);
    }
    const found = new Uint8Array(memory.buffer, toC, bytes(c).length);
    return btoa(String.fromCharCode(...found));
  });
}"""


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    with opened(browser) as page:
        yield page


def module_of(bodies: Mapping[str, bytes]) -> bytes:
    """Return a module that exports its memory and routines of eight whole numbers and a float32, which give one."""
    listed = lambda entries: unsigned(len(entries)) + b"".join(entries)  # noqa: E731
    name = lambda text: sized(text.encode())  # noqa: E731
    exports = [name(each) + b"\0" + unsigned(number) for number, each in enumerate(bodies)]
    sections = {
        1: listed([b"\x60" + listed([b"\x7f"] * 8 + [b"\x7d"]) + listed([b"\x7f"])]),
        3: listed([b"\0"] * len(bodies)),
        5: listed([b"\0" + unsigned(4)]),
        7: listed([*exports, name("memory") + b"\x02\0"]),
        10: listed([sized(body) for body in bodies.values()]),
    }
    return b"\0asm\1\0\0\0" + b"".join(bytes([kind]) + sized(content) for kind, content in sections.items())


class Case:
    """Random matrices, and what is asked of the routine."""

    def __init__(self, rows: int, inner: int, columns: int, factor: float) -> None:
        random = numpy_generator(0, "product", rows, inner, columns)
        self.factor = np.float32(factor)
        self.a, self.b, self.c = (
            np.float32(random.normal(size=shape))
            for shape in ((rows, inner + A_TO_B), (inner, columns), (rows, columns + B_TO_C))
        )

    def asked(self, name: str) -> dict[str, Any]:
        (rows, inner), columns = (len(self.a), len(self.b)), self.b.shape[1]
        filled = np.pad(self.b, ((0, 0), (0, -columns % PANEL)))
        panels = filled.reshape(inner, -1, PANEL).transpose(1, 0, 2)
        numbers = {"inner": inner, "rows": rows, "columns": columns, "factor": float(self.factor)}
        places = {"nextA": self.a.shape[1], "nextC": self.c.shape[1]}
        arrays = {"a": self.a, "b": panels, "c": self.c}
        return {"name": name, **numbers, **places, **{key: text_of(value) for key, value in arrays.items()}}

    def wanted(self, *, adds: bool) -> Float:
        inner, columns = self.b.shape
        sums = np.zeros((len(self.a), columns), np.float32)
        for number in range(inner):
            sums += self.a[:, number, None] * self.b[number]
        result = self.c.copy()
        result[:, :columns] = self.factor * sums + (result[:, :columns] if adds else np.float32(0))
        return result


def text_of(array: Float) -> str:
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()


def found(page: Page, bodies: Mapping[str, bytes], cases: list[Case]) -> dict[str, list[Float]]:
    """Return what routines make of every case, by their names."""
    module = base64.b64encode(module_of(bodies)).decode()
    calls = [(name, case) for name in bodies for case in cases]
    texts = page.evaluate(RUN, [module, [case.asked(name) for name, case in calls]])
    results: dict[str, list[Float]] = {name: [] for name in bodies}
    for (name, case), text in zip(calls, texts):
        results[name].append(np.frombuffer(base64.b64decode(text), "<f4").reshape(case.c.shape))
    return results


def test_products_are_float32_sums_in_their_order(page: Page) -> None:
    cases = [Case(*shape, factor) for shape, factor in zip(SHAPES, [1.0, -0.7] * len(SHAPES))]
    bodies = {name: product_routine(adds=name == "adds", fused=False) for name in ("writes", "adds")}
    for name, results in found(page, bodies, cases).items():
        for case, result in zip(cases, results):
            assert np.array_equal(result, case.wanted(adds=name == "adds"))


def test_fused_products_are_rounded_less_often(page: Page) -> None:
    cases = [Case(*shape, 1.0) for shape in SHAPES]
    bodies = {name: product_routine(adds=name == "adds", fused=True) for name in ("writes", "adds")}
    for name, results in found(page, bodies, cases).items():
        for case, result in zip(cases, results):
            np.testing.assert_allclose(result, case.wanted(adds=name == "adds"), rtol=0, atol=1e-5)


def test_functions_are_found_by_what_they_are() -> None:
    first, second = b"\0\x41\0\x0b", b"\0\x41\x01\x0b"
    module = module_of({"first": first, "second": second})
    changed = replace_functions(module, {sha256_bytes(second): first})
    assert changed == module_of({"first": first, "second": first})
    assert replace_functions(module, {}) == module
    with pytest.raises(FormatError, match="it is another version"):
        with_products(module, fused=False)
