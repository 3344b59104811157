/**
 * WebAssembly that is put together where it runs: code is an array of bytes and of more code, its numbers lie in one
 * memory, and a routine is a function that changes them. Names are those of the instructions, or of what they do.
 */

const [I32, V128] = [0x7f, 0x7b];
const FUNCTION = 0x60;
const HEADER = [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
const [TYPES, FUNCTIONS, MEMORIES, EXPORTS, BODIES] = [1, 3, 5, 7, 10];
const [OF_FUNCTION, OF_MEMORY] = [0, 2];
const END = 0x0b;
export const PAGE_BYTES = 65536;

/** Bytes of a vector: four numbers of 32 bits, which are computed with together. */
export const VECTOR = 16;

/** A vector from an address, `offset` bytes behind it; one number from there four times; and a vector to there. */
export const load = (place, offset = 0) => [place, 0xfd, 0, 0, unsigned(offset)];
export const loadSplat = (place, offset = 0) => [place, 0xfd, 9, 0, unsigned(offset)];
export const store = (place, vector, offset = 0) => [place, vector, 0xfd, 11, 0, unsigned(offset)];

/** A number four times. */
export const splat = (number) => [0x43, [...new Uint8Array(Float32Array.of(number).buffer)], 0xfd, 0x13];

export const neg = (a) => [a, 0xfd, 0xe1, 1];
export const add = (a, b) => [a, b, 0xfd, 0xe4, 1];
export const sub = (a, b) => [a, b, 0xfd, 0xe5, 1];
export const mul = (a, b) => [a, b, 0xfd, 0xe6, 1];

/** The numbers at four `places` of two vectors, 0 to 3 in `a` and 4 to 7 in `b`. */
export const shuffle = (a, b, places) => [a, b, 0xfd, 13, places.map((at) => [0, 1, 2, 3].map((byte) => 4 * at + byte))];

/** Addresses in bytes, and what they are together. */
export const address = (number) => [0x41, signed(number)];
export const plus = (a, b) => [a, b, 0x6a];
export const minus = (a, b) => [a, b, 0x6b];

/** A function of one address, `parameter`. */
export class Routine {
  parameter = [0x20, 0];
  #types = [];
  #code = [];

  /** Do what gives no value. */
  do(...code) {
    this.#code.push(code);
  }

  /** A vector, computed once. */
  vector(value) {
    return this.#variable(V128, value);
  }

  /** A pointer, an address that can move. */
  pointer(value) {
    return this.#variable(I32, value);
  }

  move(pointer, value) {
    this.do(value, 0x21, pointer[1]);
  }

  /** Do what `body` does, and move a pointer on by `step` bytes, until it is at `end`: once at least. */
  advance(pointer, end, step, body) {
    this.do(0x03, 0x40);
    body();
    this.move(pointer, plus(pointer, address(step)));
    this.do(pointer, end, 0x49, 0x0d, 0, END);
  }

  /** The code as a module has it, with the types of its variables. */
  get body() {
    return sized([list(this.#types.map((type) => [1, type])), this.#code, END]);
  }

  #variable(type, value) {
    const variable = [0x20, unsigned(this.#types.push(type))];
    this.move(variable, value);
    return variable;
  }
}

/** A module that exports routines by their names, and their `memory` of so many bytes. */
export function assembled(routines, bytes) {
  const names = Object.keys(routines);
  const exported = names.map((name, index) => [named(name), OF_FUNCTION, index]);
  const sections = [
    [TYPES, list([[FUNCTION, list([I32]), list([])]])],
    [FUNCTIONS, list(names.map(() => 0))],
    [MEMORIES, list([[0, unsigned(Math.ceil(bytes / PAGE_BYTES))]])],
    [EXPORTS, list([...exported, [named("memory"), OF_MEMORY, 0]])],
    [BODIES, list(names.map((name) => routines[name].body))],
  ];
  const content = sections.map(([kind, section]) => [kind, sized(section)]);
  return new WebAssembly.Module(Uint8Array.from([HEADER, content].flat(Infinity)));
}

function list(entries) {
  return [unsigned(entries.length), entries];
}

function sized(content) {
  const bytes = content.flat(Infinity);
  return [unsigned(bytes.length), bytes];
}

function named(name) {
  return list(Array.from(name, (letter) => letter.charCodeAt(0)));
}

/** Whole numbers in groups of seven bits, the lowest ones first (LEB128). */
function unsigned(number) {
  return number < 128 ? [number] : [(number & 127) | 128, unsigned(number >>> 7)];
}

function signed(number) {
  return number >= -64 && number < 64 ? [number & 127] : [(number & 127) | 128, signed(number >> 7)];
}
