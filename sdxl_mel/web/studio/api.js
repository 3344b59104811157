/** Asking the server: JSON in, JSON out, and its own sentence where something is refused. */

/** What the server answers at `path`. Throws an Error with the server's sentence. */
export async function ask(path, { method = "GET", body, type = "application/json" } = {}) {
  const options = { method, headers: {} };
  if (body !== undefined) {
    options.headers["Content-Type"] = type;
    options.body = type === "application/json" ? JSON.stringify(body) : body;
  }
  let response;
  try {
    response = await fetch(`/api${path}`, options);
  } catch {
    throw new Error("The studio does not answer. Is it still running? Start it again with sdxl-mel studio.");
  }
  const content = await response.json().catch(() => null);
  if (!response.ok) throw new Error(content?.error ?? `${path}: ${response.status} ${response.statusText}`);
  return content;
}

/** Send `body` (nothing: an empty object) to `path`. */
export function post(path, body = {}) {
  return ask(path, { method: "POST", body });
}

/** A path with its query; what is undefined, null or "" is left out. */
export function query(path, values) {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}
