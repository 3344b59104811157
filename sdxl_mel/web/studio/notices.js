/** Sentences that appear at the edge of the page and go by themselves. */

import { element } from "../elements.js";
import { icon } from "../icons.js";

const SHOWN_MS = 6000;

/** Say something, `more` are buttons beside it; an error stays until it is closed. */
export function say(text, kind = "note", ...more) {
  const close = element("button", {
    type: "button",
    className: "mel-button",
    "aria-label": "Close",
    innerHTML: icon("close"),
  });
  const notice = element("div", { className: `notice ${kind}` }, element("p", { textContent: text }), ...more, close);
  close.addEventListener("click", () => notice.remove());
  document.querySelector("#notices").append(notice);
  if (kind !== "error") setTimeout(() => notice.remove(), SHOWN_MS);
}

/** Do something that the server may refuse; its sentence is shown. Returns what it returns, null where it failed. */
export async function attempt(act, button) {
  button?.setAttribute("aria-busy", "true");
  try {
    return await act();
  } catch (error) {
    say(error.message, "error");
    return null;
  } finally {
    button?.removeAttribute("aria-busy");
  }
}

/** Copy a text, and say so. Without https a browser does not copy: the text is shown. */
export async function copied(text) {
  if (!navigator.clipboard) return say(text, "error");
  await attempt(async () => {
    await navigator.clipboard.writeText(text);
    say("Copied.");
  });
}
