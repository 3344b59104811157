/** The few kinds of controls that the tabs are made of. */

import { element } from "../elements.js";
import { icon, iconButton } from "../icons.js";

/** A button with words. */
export function button(text, act, { kind = "", name, ...properties } = {}) {
  const made = element("button", { type: "button", className: `button ${kind}`, ...properties });
  if (name) made.innerHTML = icon(name);
  made.append(element("span", { textContent: text }));
  made.addEventListener("click", (event) => act(event, made));
  return made;
}

/** A labelled control; the hint stands under it in small letters. */
export function labelled(text, control, hint = "") {
  control.id ||= `c${crypto.getRandomValues(new Uint32Array(1))[0]}`;
  const note = hint ? element("small", { id: `${control.id}-hint`, textContent: hint }) : null;
  if (note) control.setAttribute("aria-describedby", note.id);
  return element(
    "div",
    { className: "field" },
    element("label", { htmlFor: control.id, textContent: text }),
    control,
    note,
  );
}

/** A select of [value, text] pairs. */
export function select(pairs, value, act) {
  const options = pairs.map(([each, text]) => element("option", { value: each, textContent: text }));
  const made = element("select", {}, ...options);
  if (value !== undefined) made.value = value;
  if (act) made.addEventListener("change", () => act(made.value));
  return made;
}

/** A menu that a button with an icon opens below itself; its items are links and quiet buttons. */
export function menu(name, label, ...items) {
  const panel = element("div", { className: "menu", popover: "auto" }, ...items);
  const opener = iconButton(name, label, () => {
    const box = opener.getBoundingClientRect();
    panel.style.top = `${box.bottom + 4}px`;
    panel.style.right = `${innerWidth - box.right}px`;
    panel.togglePopover();
  });
  return element("span", {}, opener, panel);
}

/** What a part of the page says while there is nothing in it. */
export function empty(title, text, ...more) {
  return element(
    "div",
    { className: "empty" },
    element("h3", { textContent: title }),
    element("p", { textContent: text }),
    ...more,
  );
}

/** A progress bar with its words. */
export function progressBar(share, words) {
  const bar = element("progress", { max: 1, value: share ?? 0, "aria-label": words });
  if (share === null) bar.removeAttribute("value");
  return element("div", { className: "progress" }, bar, element("span", { textContent: words }));
}

/** A time ago, in words. */
export function ago(iso) {
  const seconds = (Date.now() - new Date(iso).getTime()) / 1000;
  const [amount, unit] =
    seconds < 90
      ? [seconds, "second"]
      : seconds < 5400
        ? [seconds / 60, "minute"]
        : seconds < 129600
          ? [seconds / 3600, "hour"]
          : [seconds / 86400, "day"];
  return new Intl.RelativeTimeFormat("en", { numeric: "auto" }).format(-Math.round(Math.max(amount, 0)), unit);
}

/** A length of time in words, such as "2 min 5 s". */
export function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
