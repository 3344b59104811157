/** The service worker of the page: it keeps the page for use without a network and lets it use threads. */

const CLAIM_MS = 15_000; // A browser that has just started takes seconds to install a service worker.

/** Whether a page like this one can be kept: not one that was opened from a file. */
export function canBeKept() {
  return location.protocol.startsWith("http") && Boolean(navigator.serviceWorker);
}

/**
 * Let the service worker answer what the page asks for from now on, so that all of it is kept; `threads` asks for
 * cross-origin isolation, which holds from the next time on that the page is loaded. Returns whether it is kept.
 */
export async function keepPage(threads) {
  if (!canBeKept()) return false;
  const { serviceWorker } = navigator;
  const script = new URL(threads ? "sw.js?isolated" : "sw.js", document.baseURI).href;
  const answers = () => serviceWorker.controller?.scriptURL === script;
  try {
    const registered = serviceWorker.register(script); // It looks for a new one also where one answers already.
    if (answers()) {
      registered.catch(() => {});
      return true;
    }
    await registered;
    return await new Promise((resolve) => {
      serviceWorker.addEventListener("controllerchange", () => answers() && resolve(true));
      setTimeout(() => resolve(answers()), CLAIM_MS);
    });
  } catch {
    return false; // A private window, or a host that does not serve over HTTPS: the page works while it is online.
  }
}

/** Drop a file that turned out to be damaged, with all its parts, so that it is asked for again. */
export async function forget(path) {
  const stem = new URL(path.slice(0, path.lastIndexOf(".") + 1), document.baseURI).href;
  for (const name of (await globalThis.caches?.keys()) ?? []) {
    const cache = await caches.open(name);
    for (const request of await cache.keys()) if (request.url.startsWith(stem)) await cache.delete(request);
  }
}
