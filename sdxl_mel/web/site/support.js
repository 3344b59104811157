/** What a browser must have for this page. */

const NEEDED = {
  "module workers": () => typeof Worker === "function" && typeof OffscreenCanvas === "function",
  "compression of files": () => typeof CompressionStream === "function",
  menus: () => "popover" in HTMLElement.prototype,
};

/** The sentence that says what this browser lacks, or null where it has everything. */
export function lacking() {
  if (typeof WebAssembly !== "object") {
    return (
      "This browser does not run WebAssembly, with which the model computes: switch it on, or open the page in a " +
      "current Firefox, Chrome or Safari."
    );
  }
  const missing = Object.keys(NEEDED).filter((name) => !NEEDED[name]());
  if (!missing.length) return null;
  const what = missing.join(", ");
  return `This browser is too old for this page (it lacks ${what}): open it in a current Firefox, Chrome or Safari.`;
}
