/** The page's drawings, 20 x 20, in the colour of the text around them. */

import { element } from "./elements.js";

const PATHS = {
  play: '<path d="M6 4.2v11.6L16 10z" fill="currentColor"/>',
  pause: '<path d="M5.5 4.5h3v11h-3zM11.5 4.5h3v11h-3z" fill="currentColor"/>',
  loop: '<path d="M4 9a4 4 0 0 1 4-4h7m-2.5-2.5L15 5l-2.5 2.5M16 11a4 4 0 0 1-4 4H5m2.5 2.5L5 15l2.5-2.5"/>',
  brush: '<path d="M3.5 5.5v-2h2m3 0h3m3 0h2v2m0 3v3m0 3v2h-2m-3 0h-3m-3 0h-2v-2m0-3v-3"/><path d="M7 10h6M10 7v6"/>',
  closer: '<circle cx="9" cy="9" r="5.5"/><path d="m13 13 4 4M6.5 9h5M9 6.5v5"/>',
  farther: '<circle cx="9" cy="9" r="5.5"/><path d="m13 13 4 4M6.5 9h5"/>',
  whole: '<path d="M3 7V4h4M13 4h4v3M17 13v3h-4M7 16H3v-3"/>',
  settings: '<path d="M4 6h6m4 0h2M4 14h2m4 0h6"/><circle cx="12" cy="6" r="2"/><circle cx="8" cy="14" r="2"/>',
  star: '<path d="m10 3 2.1 4.5 4.9.6-3.6 3.4.9 4.9L10 14l-4.3 2.4.9-4.9L3 8.1l4.9-.6z"/>',
  starred: '<path d="m10 3 2.1 4.5 4.9.6-3.6 3.4.9 4.9L10 14l-4.3 2.4.9-4.9L3 8.1l4.9-.6z" fill="currentColor"/>',
  dice: '<rect x="3.5" y="3.5" width="13" height="13" rx="3"/><path d="M7 7h.01M13 7h.01M10 10h.01M7 13h.01M13 13h.01" stroke-width="2.2"/>',
  locked: '<rect x="4.5" y="9" width="11" height="7.5" rx="1.5"/><path d="M7 9V6.5a3 3 0 0 1 6 0V9"/>',
  unlocked: '<rect x="4.5" y="9" width="11" height="7.5" rx="1.5"/><path d="M7 9V6.5a3 3 0 0 1 5.8-1"/>',
  download: '<path d="M10 3v9m-3.5-3.5L10 12l3.5-3.5M4 16.5h12"/>',
  close: '<path d="m5 5 10 10M15 5 5 15"/>',
  plus: '<path d="M10 4v12M4 10h12"/>',
  more: '<path d="M5 10h.01M10 10h.01M15 10h.01" stroke-width="2.6"/>',
  copy: '<rect x="7" y="7" width="9.5" height="9.5" rx="1.5"/><path d="M13 7V5a1.5 1.5 0 0 0-1.5-1.5H5A1.5 1.5 0 0 0 3.5 5v6.5A1.5 1.5 0 0 0 5 13h2"/>',
  vary: '<path d="M3 6h3c4 0 4 8 8 8h3m-2.5-2.5L17 14l-2.5 2.5M3 14h3c1.5 0 2.4-1.1 3.1-2.5M17 6h-3c-1.5 0-2.4 1.1-3.1 2.5M14.5 3.5 17 6l-2.5 2.5"/>',
  again: '<path d="M4 10a6 6 0 1 1 1.8 4.3M4 15.5V12h3.5"/>',
  stop: '<rect x="5" y="5" width="10" height="10" rx="1.5" fill="currentColor"/>',
};

/** An icon as SVG that screen readers pass over. */
export function icon(name) {
  return (
    '<svg class="icon" viewBox="0 0 20 20" width="20" height="20" fill="none" stroke="currentColor" stroke-width="1.5" ' +
    `stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">${PATHS[name]}</svg>`
  );
}

/** A button with an icon alone; `label` is what it does. */
export function iconButton(name, label, act, properties = {}) {
  const shown = { type: "button", className: "mel-button", "aria-label": label, title: label, innerHTML: icon(name) };
  const button = element("button", { ...shown, ...properties });
  button.addEventListener("click", (event) => act(event, button));
  return button;
}
