/** Making elements of a page: text is always text, never HTML. */

/** An element with properties, attributes (`aria-…`, `data-…`, `role`), listeners (`onclick`) and children. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && !name.includes("-")) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** A remembered choice of this browser; a browser that stores nothing gives `otherwise`. */
export function remembered(name, otherwise) {
  try {
    return localStorage.getItem(`mel-${name}`) ?? otherwise;
  } catch {
    return otherwise;
  }
}

/** Remember a choice, where the browser stores anything. */
export function remember(name, value) {
  try {
    localStorage.setItem(`mel-${name}`, value);
  } catch {
    // A page opened from a file may have no storage: the choice then holds until the page is closed.
  }
}
