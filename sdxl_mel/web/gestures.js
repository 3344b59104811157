/** What a pointer does on a surface: click, drag, pan, pinch and wheel, in pixels from the surface's corner. */

const DRAG_PIXELS = 4;

/**
 * Call `on` as pointers move: point(x, y), leave(), click(x, y), drag(from, to, done), pan(dx, dy, width, height),
 * zoomTime(factor, x), zoomHeight(factor, y); pansByTouch() says whether one finger pans and does not drag.
 */
export function gestures(surface, on) {
  const pointers = new Map();
  let dragged = false;
  let pinch = null;

  const place = (event) => {
    const box = surface.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const size = () => [surface.clientWidth, surface.clientHeight];
  const pans = (event) => event.button === 1 || (event.pointerType === "touch" && on.pansByTouch());

  surface.addEventListener("pointerdown", (event) => {
    if (event.button > 1) return;
    surface.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, { from: place(event), last: place(event), pans: pans(event) });
    dragged = pointers.size > 1;
    pinch = null;
    if (event.button === 1) event.preventDefault();
  });

  surface.addEventListener("pointermove", (event) => {
    const to = place(event);
    const pointer = pointers.get(event.pointerId);
    if (event.pointerType !== "touch") on.point(to.x, to.y);
    if (!pointer) return;
    const before = pointer.last;
    pointer.last = to;
    if (pointers.size > 1) return pinched();
    if (!dragged && Math.hypot(to.x - pointer.from.x, to.y - pointer.from.y) < DRAG_PIXELS) return;
    dragged = true;
    if (pointer.pans) on.pan(before.x - to.x, to.y - before.y, ...size());
    else on.drag(pointer.from, to, false);
  });

  surface.addEventListener("pointerup", (event) => {
    const pointer = pointers.get(event.pointerId);
    pointers.delete(event.pointerId);
    if (!pointer || pointers.size) return;
    if (!dragged) on.click(pointer.from.x, pointer.from.y);
    else if (!pointer.pans && !pinch) on.drag(pointer.from, place(event), true);
  });

  surface.addEventListener("pointercancel", (event) => pointers.delete(event.pointerId));
  surface.addEventListener("pointerleave", () => on.leave());

  surface.addEventListener(
    "wheel",
    (event) => {
      const { x, y } = place(event);
      const [width, height] = size();
      const along = event.deltaX || (event.shiftKey ? event.deltaY : 0);
      if (event.ctrlKey || event.metaKey) on.zoomTime(1.002 ** event.deltaY, x);
      else if (event.altKey) on.zoomHeight(1.002 ** event.deltaY, y);
      else if (along && Math.abs(along) > Math.abs(event.shiftKey ? 0 : event.deltaY)) on.pan(along, 0, width, height);
      else return; // A plain wheel scrolls the page.
      event.preventDefault();
    },
    { passive: false },
  );

  function pinched() {
    const [one, other] = [...pointers.values()].map((pointer) => pointer.last);
    const now = { width: Math.abs(one.x - other.x), x: (one.x + other.x) / 2, y: (one.y + other.y) / 2 };
    if (pinch) {
      on.pan(pinch.x - now.x, now.y - pinch.y, ...size());
      if (pinch.width > 20 && now.width > 20) on.zoomTime(pinch.width / now.width, now.x);
    }
    pinch = now;
  }
}
