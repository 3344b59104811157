/** The panel of a player: its colours and channel to choose from, and what its keys and gestures are. */

import { COLOUR_MAPS, gradient } from "./colours.js";
import { element } from "./elements.js";
import { iconButton } from "./icons.js";
import { KEYS } from "./keys.js";
import { CHANNELS } from "./picture.js";

const GESTURES =
  "Click: seek. Drag: loop. Ctrl and wheel: zoom in time; with Alt in frequency. Shift and wheel: pan in time.";

let panels = 0;

/** The button that opens the panel, and the panel; `on` gives and sets the player's colours and channel. */
export function settingsPanel(on) {
  const number = ++panels;
  const choice = (name, value, act, ...content) =>
    element(
      "label",
      { className: "mel-choice" },
      element("input", { type: "radio", name: `mel-${name}-${number}`, value, onchange: () => act(value) }),
      ...content,
    );
  const maps = COLOUR_MAPS.map((name) => {
    const swatch = element("span", { className: "mel-swatch" });
    swatch.style.background = gradient(name);
    return choice("colours", name, on.setColours, swatch, name);
  });
  const channels = group(
    "Channel",
    CHANNELS.map((name) => choice("channel", name, on.setChannel, name)),
  );
  const keys = KEYS.map(([key, what]) =>
    element("div", {}, element("dt", {}, element("kbd", { textContent: key })), element("dd", { textContent: what })),
  );
  const panel = element(
    "div",
    { className: "mel-panel", popover: "auto" },
    group("Colours", maps),
    channels,
    element("h3", { textContent: "Keys, on the picture" }),
    element("dl", { className: "mel-keys" }, ...keys),
    element("p", { textContent: GESTURES }),
  );
  panel.addEventListener("toggle", () => {
    for (const input of panel.querySelectorAll("input")) {
      input.checked = [on.colours(), on.channel()].includes(input.value);
    }
    channels.hidden = on.channels().length < 2;
  });
  const opener = iconButton("settings", "Colours, channel and keys", () => beside(panel, opener));
  opener.popoverTargetElement = panel;
  return [opener, panel];
}

function group(legend, choices) {
  return element("fieldset", {}, element("legend", { textContent: legend }), ...choices);
}

/** Put a panel above or below its opener, where there is more room. */
function beside(panel, opener) {
  const box = opener.getBoundingClientRect();
  const below = innerHeight - box.bottom > box.top;
  Object.assign(panel.style, {
    right: `${Math.max(8, innerWidth - box.right)}px`,
    top: below ? `${box.bottom + 6}px` : "auto",
    bottom: below ? "auto" : `${innerHeight - box.top + 6}px`,
    maxHeight: `${(below ? innerHeight - box.bottom : box.top) - 16}px`,
  });
}
