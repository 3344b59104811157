/**
 * Keeps the page for use without a network. A file with its hash in its name never changes: it is answered from the
 * cache. The page and its manifest are asked for anew, and come from the cache where nothing answers; what neither of
 * them names any more is dropped. With `?isolated` every answer carries the headers that let the page use threads.
 */

const PAGE = self.registration.scope;
const PAGES = [PAGE, new URL("index.html", PAGE).href];
const MANIFEST = new URL("manifest.json", PAGE).href;
const CACHE = `sdxl-mel ${PAGE}`; // Sites in other folders of the same host have caches of their own.
const HASHED = /[\w./-]+\.[0-9a-f]{16}\.\w+/g;
const PACKED = /\.packed\d+$/;
const arriving = new Map(); // Until what has come is written, by its address: who asks for it too waits for that.
const ISOLATED = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

self.addEventListener("install", (event) => event.waitUntil(keepPage()));
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== "GET" || !url.href.startsWith(PAGE)) return;
  const isPage = PAGES.includes(url.origin + url.pathname);
  const answer = hashed(url) ? kept(url.href) : fresh(isPage ? PAGE : url.href, event);
  event.respondWith(new URL(self.location).searchParams.has("isolated") ? answer.then(isolated) : answer);
});

/** Keep the page and the files that it names; models are kept as they are loaded. */
async function keepPage() {
  self.skipWaiting();
  const response = await fetch(PAGE, { cache: "no-cache" });
  const cache = await caches.open(CACHE);
  const named = await namesIn(response.clone());
  await cache.put(PAGE, response);
  await Promise.all([...named].map(kept));
}

/** A file that never changes; a packed one is kept unpacked, so that it is unpacked once. */
async function kept(url) {
  const cache = await caches.open(CACHE);
  await arriving.get(url);
  const known = await cache.match(url);
  if (known) return known;
  const come = await fetch(url);
  const response = come.ok && PACKED.test(url) ? unpacked(come) : come;
  if (response.ok) {
    const written = cache.put(url, response.clone()).catch(() => {}); // A full disk: it is loaded again next time.
    arriving.set(url, written.finally(() => arriving.delete(url)));
  }
  return response;
}

/** The page, the manifest or an icon as the server has it now, else as it was. */
async function fresh(url, event) {
  const cache = await caches.open(CACHE);
  const response = await fetch(url, { cache: "no-cache" }).catch(() => null);
  if (!response?.ok) return (await cache.match(url)) ?? response ?? Response.error();
  const stored = cache.put(url, response.clone()).then(() => (url === MANIFEST ? tidy(cache) : null));
  event.waitUntil(stored.catch(() => {})); // A full disk: it is there as long as the network is.
  return response;
}

/** Drop the files that neither the page nor the manifest names. */
async function tidy(cache) {
  const texts = await Promise.all([PAGE, MANIFEST].map((url) => cache.match(url)));
  if (!texts.every(Boolean)) return;
  const named = new Set((await Promise.all(texts.map(namesIn))).flatMap((names) => [...names]));
  for (const { url } of await cache.keys()) if (hashed(new URL(url)) && !named.has(url)) await cache.delete(url);
}

/** The addresses of the hashed files that a text names. */
async function namesIn(response) {
  return new Set(((await response.text()).match(HASHED) ?? []).map((name) => new URL(name, PAGE).href));
}

function hashed(url) {
  return url.pathname.match(HASHED) !== null;
}

function unpacked({ body }) {
  return new Response(body.pipeThrough(new DecompressionStream("gzip")), { headers: { Unpacked: "gzip" } });
}

function isolated(response) {
  if (response.type === "error") return response;
  const headers = new Headers([...response.headers, ...Object.entries(ISOLATED)]);
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
}
