/** Rounding as Python and numpy do it. */

/** The nearest whole number; a half goes to the even one. */
export function roundHalfEven(number) {
  const rounded = Math.round(number);
  return rounded - number === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}
