"""What stands in the way of people who do not see or point well: checks of WCAG 2.2 that a page can be asked."""

from playwright.sync_api import Page

CHECKS = """() => {
  const found = [];
  const seen = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
  const tell = (what, element) => found.push(`${what}: ${element.outerHTML.slice(0, 120)}`);
  const text = (ids) => (ids ?? "").split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join(" ");
  const nameOf = (element) => [element.getAttribute("aria-label"), text(element.getAttribute("aria-labelledby")),
    ...[...(element.labels ?? [])].map((label) => label.textContent), element.textContent, element.title, element.alt,
    element.querySelector("img[alt]")?.alt].find((name) => name?.trim());
  const controls =
    "a[href], button, input, select, textarea, summary, [tabindex='0'], [role=slider], iframe, svg[role=img]";
  for (const each of document.querySelectorAll(controls)) if (seen(each) && !nameOf(each)) tell("no name", each);
  for (const each of document.querySelectorAll("img:not([alt])")) tell("no alt", each);
  for (const each of document.querySelectorAll("[role=slider]")) {
    if (seen(each) && !each.hasAttribute("aria-valuenow")) tell("a slider without a value", each);
  }
  const ids = [...document.querySelectorAll("[id]")].map((each) => each.id);
  for (const id of new Set(ids.filter((id, index) => ids.indexOf(id) !== index))) found.push(`id ${id} twice`);
  for (const name of ["aria-describedby", "aria-labelledby", "for"]) {
    for (const each of document.querySelectorAll(`[${name}]`)) {
      if (!document.getElementById(each.getAttribute(name).split(" ")[0])) tell(`${name} leads nowhere`, each);
    }
  }
  const levels = [...document.querySelectorAll("h1, h2, h3, h4")].filter(seen).map((each) => Number(each.tagName[1]));
  if (levels.filter((level) => level === 1).length !== 1) found.push(`headings of level 1: ${levels}`);
  if (!document.documentElement.lang) found.push("no language");
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth + 1) found.push(`scrolls sideways: ${wide}`);
  for (const each of document.querySelectorAll("button, a[href], input, select")) {
    const { width, height } = each.getBoundingClientRect();
    if (seen(each) && width && Math.min(width, height) < 12) tell(`too small to hit: ${width} x ${height}`, each);
  }
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    const over = (below, [r, g, b, a]) => [r, g, b].map((value, k) => (value * a + below[k] * (255 - a)) / 255);
    return layers.reverse().reduce(over, [255, 255, 255]);
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    const apart = ".mel-plot, .skip, :disabled, noscript, script, option";
    if (!node.textContent.trim() || !seen(element) || element.closest(apart)) continue;
    const both = [rgba(getComputedStyle(element).color), behind(element)].map(luminance);
    const [one, other] = both.sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < 4.5) tell(`contrast ${ratio.toFixed(2)}`, element);
  }
  return found;
}"""


def problems(page: Page) -> list[str]:
    """Return what is wrong: controls without names, dangling references, small targets, contrast under 4.5 : 1."""
    found: list[str] = page.evaluate(CHECKS)
    return found
