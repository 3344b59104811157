/** Arrays of bytes, and numbers and text in them. */

/** Arrays of bytes, or of other numbers of one kind, one after the other. */
export function joined(parts) {
  const whole = new parts[0].constructor(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/**
 * Give back the memory of an array now, not when garbage is collected: as a message that never comes. ArrayBuffer's own
 * `transfer` gives nothing back where the browser has held the buffer too, as one that came in a message.
 */
export function release(array) {
  const { port1, port2 } = new MessageChannel();
  port1.postMessage(null, [array.buffer]);
  port1.close();
  port2.close();
}

/** The bytes of a text of Latin letters. */
export function latin(text) {
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

/** The bytes of a text in UTF-8. */
export function utf8(text) {
  return new TextEncoder().encode(text);
}

/** Whole numbers of 32 bits, `little` end first or last. */
export function numbers32(numbers, little) {
  const data = new DataView(new ArrayBuffer(4 * numbers.length));
  numbers.forEach((number, index) => data.setUint32(4 * index, number, little));
  return new Uint8Array(data.buffer);
}
