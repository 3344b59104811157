/** The keys of a player: what they are called, and what they do. */

const NUDGE_SECONDS = 1;
const FINE_SECONDS = 0.05;

/** The keys and what they do, in words. */
export const KEYS = [
  ["Space", "play or pause"],
  ["← →", "seek 1 s; with Shift 0.05 s"],
  ["Home End", "to the start, to the end"],
  ["X", "the other sound, at the same place"],
  ["[ ]", "loop from here, loop to here"],
  ["L", "loop what is in sight, or stop looping"],
  ["+ −", "zoom in time; with Shift in frequency"],
  ["Page Up Page Down", "pan in time"],
  ["↑ ↓", "pan in frequency"],
  ["0", "show everything"],
  ["C", "next colours"],
  ["V", "next channel"],
  ["B", "brush: drag to mark a region"],
  ["N", "mark what loops, or what is in sight"],
];

/** What a pressed key does with what a player can do, `on`; undefined for a key that does nothing. */
export function actOfKey(event, on) {
  if (event.ctrlKey || event.metaKey || event.altKey) return undefined;
  const nudge = event.shiftKey ? FINE_SECONDS : NUDGE_SECONDS;
  const zoom = event.shiftKey ? on.zoomHeight : on.zoom;
  return {
    " ": on.toggle,
    ArrowLeft: () => on.seekBy(-nudge),
    ArrowRight: () => on.seekBy(nudge),
    Home: () => on.seek(0),
    End: () => on.seek(on.end()),
    x: on.next,
    "[": on.loopFromHere,
    "]": on.loopToHere,
    l: on.toggleLoop,
    "+": () => zoom(0.5),
    "=": () => zoom(0.5),
    "*": () => zoom(0.5),
    "-": () => zoom(2),
    _: () => zoom(2),
    PageUp: () => on.pan(-0.5, 0),
    PageDown: () => on.pan(0.5, 0),
    ArrowUp: () => on.pan(0, 0.1),
    ArrowDown: () => on.pan(0, -0.1),
    0: on.showAll,
    c: on.nextColours,
    v: on.nextChannel,
    b: on.brush,
    n: on.mark,
  }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
}
