/** What a browser must have for this page. */

const NEEDED = {
  "module workers": () => typeof Worker === "function" && typeof OffscreenCanvas === "function",
  "compression of files": () => typeof CompressionStream === "function",
  "checks of files": () => typeof crypto?.subtle === "object",
  menus: () => "popover" in HTMLElement.prototype,
};

/** The sentence that says what this browser lacks, or null where it has everything. */
export function lacking() {
  if (typeof WebAssembly !== "object") {
    return "This browser does not run WebAssembly, with which the model computes: switch it on, or open the page in a current Firefox, Chrome or Safari.";
  }
  if (!isSecureContext) {
    return "This page was sent without encryption, so that the browser withholds what it needs: open it by https, or from this computer.";
  }
  const missing = Object.keys(NEEDED).filter((name) => !NEEDED[name]());
  if (!missing.length) return null;
  return `This browser is too old for this page (it lacks ${missing.join(", ")}): open it in a current Firefox, Chrome or Safari.`;
}
