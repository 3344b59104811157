/** Files that a page carries in itself, as gzip in base64: all that a page opened from a disk can read. */

/** What the page carries: {manifest, worker, read}, as the engine wants them, or null where it is one file of many. */
export async function embedded() {
  if (!holder("manifest.json")) return null;
  const source = new Blob([holder("worker.js").textContent], { type: "text/javascript" });
  return {
    manifest: JSON.parse(new TextDecoder().decode(await bytesIn("manifest.json"))),
    worker: URL.createObjectURL(source),
    read: bytesIn,
  };
}

function holder(path) {
  return document.querySelector(`script[data-path="${CSS.escape(path)}"]`);
}

/** The bytes of a carried file. Throws an Error with one sentence where the page is not whole. */
async function bytesIn(path) {
  const text = holder(path)?.textContent;
  if (text === undefined) throw new Error(`${path} is missing in this page: copy the whole file again.`);
  const unpacked = new Blob([bytesOfBase64(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

function bytesOfBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
