"""Products of matrices in onnxruntime-web's WebAssembly, anew: the same sums without detours through memory.

onnxruntime multiplies matrices, and so convolves, by one routine of its library MLAS (`SgemmKernelWasmSimd.cpp`): rows
of A by B, whose columns lie packed in panels of 16. It loads two steps of the inner sums at once, 18 vectors with the
sums, where most processors have 16 registers: the rest goes to memory and back. Here each step ends with a branch, over
which a browser's compiler moves nothing, and takes 15. Sums are made in the same order: they are the same bit by bit.
"""

from sdxl_mel.export import wasm
from sdxl_mel.export.wasm import I32, NUMBER_BYTES, V128, VECTOR_BYTES, VECTOR_NUMBERS, Function, Variable

WRITING = "f7728808b5f87253962b9f639f830459c0961fbc2cd2f8463534e97ae5a7e534"
ADDING = "9e72cc3a5fb5a445d440bf86c3de4b8bb338ee3773f763c730af6227034c8f08"
"""The SHA-256 of MLAS's routines in onnxruntime-web 1.30.0: C = f A B, and C = C + f A B."""
PARAMETERS = 9
MOST_ROWS = 2
PANEL = 16
PANEL_VECTORS = PANEL // VECTOR_NUMBERS
PANEL_BYTES = PANEL * NUMBER_BYTES


def with_products(module: bytes, *, fused: bool) -> bytes:
    """Return onnxruntime-web's WebAssembly with these products.

    `fused` multiplies and adds by one instruction, faster and rounded once, where a browser has relaxed SIMD. Raises
    FormatError for another version.
    """
    bodies = {WRITING: product_routine(adds=False, fused=fused), ADDING: product_routine(adds=True, fused=fused)}
    return wasm.replace_functions(module, bodies)


def product_routine(*, adds: bool, fused: bool) -> bytes:
    """Return the body of a function that multiplies one row or two of A by B and returns how many.

    Its parameters are MLAS's: addresses of A, B and C; how many numbers a sum has; how many rows and columns are left;
    how many numbers on the next row of A and of C lies; and the factor, a float32.
    """
    function = Function(PARAMETERS)
    rows = Variable(4)
    (factor,) = function.variables(V128, 1)
    several, one = (
        _Rows(function, count, factor, adds=adds, fused=fused).code() + wasm.number(count) for count in (MOST_ROWS, 1)
    )
    whether = wasm.at_least(rows.value, MOST_ROWS)
    return function.body(factor.set(wasm.splat(Variable(8).value)) + wasm.where(whether, wasm.give(several)) + one)


class _Rows:
    """So many rows of A by all of B."""

    a, b, c, inner, _, columns, next_a, next_c, _ = map(Variable, range(PARAMETERS))

    def __init__(self, function: Function, rows: int, factor: Variable, *, adds: bool, fused: bool) -> None:
        self.factor, self.adds, self.fused = factor, adds, fused
        (self.left,) = function.variables(I32, 1)
        self.from_a, self.to_c = function.variables(I32, rows), function.variables(I32, rows)
        self.in_a, self.in_b = function.variables(V128, rows), function.variables(V128, PANEL_VECTORS)
        self.sums = [function.variables(V128, PANEL_VECTORS) for _ in range(rows)]

    def code(self) -> bytes:
        """Go from panel to panel, as long as there are columns."""
        another = self.c.move(PANEL_BYTES) + self.columns.move(-PANEL) + wasm.again(self.columns.value, 1)
        whole = wasm.where(wasm.at_least(self.columns.value, PANEL), self._put_panel() + another)
        return wasm.loop(self._start() + self._sum() + whole + self._put_rest())

    def _start(self) -> bytes:
        begun = self.left.set(self.inner.value)
        for places, first, step in ((self.from_a, self.a, self.next_a), (self.to_c, self.c, self.next_c)):
            begun += places[0].set(first.value)
            for before, place in zip(places, places[1:]):
                begun += place.set(wasm.plus(before.value, wasm.doubled(step.value, 2)))
        return begun + b"".join(each.set(wasm.zeros()) for row in self.sums for each in row)

    def _sum(self) -> bytes:
        step = b"".join(vector.set(wasm.load_splat(place.value)) for vector, place in zip(self.in_a, self.from_a))
        for column, vector in enumerate(self.in_b):
            step += vector.set(wasm.load(self.b.value, column * VECTOR_BYTES))
            for row, number in zip(self.sums, self.in_a):
                step += row[column].set(self._added(number.value, vector.value, row[column].value))
        moves = b"".join(place.move(NUMBER_BYTES) for place in self.from_a) + self.b.move(PANEL_BYTES)
        sums = wasm.loop(step + moves + self.left.move(-1) + wasm.again(self.left.value))
        scaled = (each.set(wasm.mul(each.value, self.factor.value)) for row in self.sums for each in row)
        return wasm.where(self.left.value, sums) + b"".join(scaled)

    def _added(self, a: bytes, b: bytes, total: bytes) -> bytes:
        return wasm.mul_add(a, b, total) if self.fused else wasm.add(total, wasm.mul(a, b))

    def _put_panel(self) -> bytes:
        put = b""
        for place, row in zip(self.to_c, self.sums):
            for column, total in enumerate(row):
                offset, value = column * VECTOR_BYTES, total.value
                if self.adds:
                    value = wasm.add(wasm.load(place.value, offset), value)
                put += wasm.store(place.value, value, offset)
        return put

    def _put_rest(self) -> bytes:
        """Write the columns of the last panel, fewer than it has."""
        put = b""
        for column in range(PANEL - 1):
            vector, lane = divmod(column, VECTOR_NUMBERS)
            numbers, offset = b"", column * NUMBER_BYTES
            for place, row in zip(self.to_c, self.sums):
                value = wasm.number_in(row[vector].value, lane)
                if self.adds:
                    value = wasm.add_numbers(wasm.load_number(place.value, offset), value)
                numbers += wasm.store_number(place.value, value, offset)
            put += wasm.where(wasm.at_least(self.columns.value, column + 1), numbers)
        return put
