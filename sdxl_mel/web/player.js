/** <mel-player>: a spectrogram picture that plays. Its picture is the instrument: seek, loop, zoom, compare, mark. */

import { hzAt } from "./axes.js";
import { COLOUR_MAPS, chosenColours } from "./colours.js";
import { Display } from "./display.js";
import { element, remember, remembered } from "./elements.js";
import { gestures } from "./gestures.js";
import { icon } from "./icons.js";
import { actOfKey } from "./keys.js";
import { buildParts } from "./parts.js";
import { Regions } from "./regions.js";
import { picturesOf, sourcesOfChildren, transportOf } from "./sources.js";
import { isZoomed, panHeight, panTime, whole, zoomHeight, zoomTime } from "./view.js";

const COLOURS_CHANGED = "mel-colours";

/**
 * Sources are pairs of a picture and a sound: children <img> and <audio> in HTML, or the property `sources`, a list of
 * {picture: url, sound: url or null, name}. Attributes: `label`; `spec`, the JSON of a picture that carries none;
 * `seconds`, the length of a picture that was made smaller; `marks`, a JSON list of [start, end] in seconds; `brush`,
 * present where regions can be marked. Events: `regions` (detail: list of {start, end, low, high} in s and Hz),
 * `switch` (detail: the number of the source), `seek`, `loop`.
 */
export class MelPlayer extends HTMLElement {
  static observedAttributes = ["label", "spec", "seconds", "marks", "brush"];
  #sources = [];
  #pictures = [];
  #selected = 0;
  #transport = null;
  #loading = null;
  #view = whole(1);
  #seconds = 1;
  #loop = null;
  #restingTime = 0;
  #frame = 0;
  #channel = "mid";
  #parts = null;
  #display = null;
  #regions = null;
  #watchers = [];
  #reading = 0;

  connectedCallback() {
    if (!this.#parts) {
      if (!this.#sources.length) this.#sources = sourcesOfChildren(this);
      this.#build();
    }
    this.#watch();
    if (this.#sources.length && !this.#pictures.length) this.#readWhenSeen();
  }

  disconnectedCallback() {
    this.pause();
    this.#watchers.forEach((stop) => stop());
    this.#watchers = [];
  }

  attributeChangedCallback() {
    if (this.#parts) this.#label();
  }

  /** What is shown and heard: a list of {picture, sound, name}. */
  get sources() {
    return this.#sources;
  }

  set sources(sources) {
    const playing = this.playing;
    this.pause();
    const kept = this.time;
    this.#sources = sources;
    this.#selected = Math.min(this.#selected, Math.max(sources.length - 1, 0));
    [this.#transport, this.#loading, this.#restingTime] = [null, null, kept];
    if (!this.#parts) return;
    this.#label();
    this.#read();
    if (playing) this.play();
  }

  /** Regions that are marked: a list of {start, end, low, high} in seconds and hertz. */
  get regions() {
    return this.#regions?.list ?? [];
  }

  set regions(list) {
    this.#regions.list = list;
    this.#draw();
  }

  get playing() {
    return this.#transport?.playing ?? false;
  }

  /** The place in seconds that is heard, or where playing would start. */
  get time() {
    return this.#transport?.time ?? this.#restingTime;
  }

  set time(seconds) {
    this.seek(seconds);
  }

  /** The length in seconds. */
  get seconds() {
    return this.#seconds;
  }

  /** The part in sight: {start, end} in seconds, {low, high} in heights 0..1. */
  get view() {
    return this.#view;
  }

  set view(view) {
    this.#view = { ...this.#view, ...view };
    this.#draw();
  }

  /** The number of the source that is seen and heard. */
  get selected() {
    return this.#selected;
  }

  /** The range {start, end} in seconds that repeats, or null. */
  get loop() {
    return this.#loop;
  }

  set loop(range) {
    this.#loop = range && range.end - range.start > 0.005 ? range : null;
    if (this.#transport) this.#transport.loop = this.#loop;
    this.#parts.loop.setAttribute("aria-pressed", String(this.#loop !== null));
    this.dispatchEvent(new CustomEvent("loop", { detail: this.#loop, bubbles: true }));
    this.#draw();
  }

  /** Play from where it rests. */
  async play() {
    await this.#whenDecoded((transport) => transport.play());
  }

  /** Go on with what a BlockStream of this sound plays, without a gap. */
  async follow(stream) {
    await this.#whenDecoded((transport) => stream.playing && transport.follow(stream));
  }

  pause() {
    this.#transport?.pause();
  }

  toggle() {
    return this.playing ? this.pause() : this.play();
  }

  /** Go to a place in seconds. */
  seek(seconds) {
    this.#restingTime = Math.min(Math.max(seconds, 0), this.#seconds);
    this.#transport?.seek(this.#restingTime);
    this.#keepInSight(this.#restingTime);
    this.dispatchEvent(new CustomEvent("seek", { detail: this.#restingTime, bubbles: true }));
    this.#draw();
  }

  /** Show and hear another source at the same place. */
  select(number) {
    if (number === this.#selected || number >= this.#sources.length) return;
    this.#selected = number;
    this.#transport?.select(number);
    if (this.#parts) this.#label();
    this.#draw();
    this.dispatchEvent(new CustomEvent("switch", { detail: number, bubbles: true }));
  }

  /** Mark a region {start, end, low, high} in seconds and hertz. */
  mark(region) {
    this.#regions.add(region);
    this.#draw();
  }

  /** The place that is heard at a time of the AudioContext, in seconds. */
  timeAt(contextTime) {
    return this.#transport.timeAt(contextTime);
  }

  get transport() {
    return this.#transport;
  }

  // --- reading ---

  #readWhenSeen() {
    const observer = new IntersectionObserver(
      (entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        observer.disconnect();
        this.#read();
      },
      { rootMargin: "300px" },
    );
    observer.observe(this);
    this.#watchers.push(() => observer.disconnect());
  }

  async #read() {
    const reading = ++this.#reading;
    const spec = this.hasAttribute("spec") ? JSON.parse(this.getAttribute("spec")) : null;
    const seconds = this.hasAttribute("seconds") ? Number(this.getAttribute("seconds")) : null;
    try {
      const pictures = await picturesOf(this.#sources, spec, seconds);
      if (reading !== this.#reading) return;
      this.#pictures = pictures;
      this.#setSeconds(Math.max(...pictures.map((picture) => picture?.seconds ?? 0)) || this.#seconds);
      this.removeAttribute("data-failed");
      this.dataset.ready = "";
    } catch (error) {
      if (reading === this.#reading) this.#say(`This picture cannot be shown: ${error.message}`);
    }
    this.#label();
    this.#draw();
  }

  #setSeconds(seconds) {
    const zoomed = isZoomed(this.#view, this.#seconds) && Math.abs(seconds - this.#seconds) < 1e-6;
    if (!zoomed) this.#view = { ...this.#view, start: 0, end: seconds };
    this.#seconds = seconds;
  }

  async #whenDecoded(act) {
    try {
      const transport = await (this.#loading ??= this.#decode());
      if (transport) await act(transport);
    } catch (error) {
      this.#loading = null;
      this.#say(`This sound cannot be played: ${error.message}`);
    }
  }

  async #decode() {
    const sources = this.#sources;
    this.#parts.play.setAttribute("aria-busy", "true");
    try {
      const transport = await transportOf(sources);
      if (!transport || sources !== this.#sources) return null; // Others were set meanwhile.
      transport.loop = this.#loop;
      transport.select(this.#selected);
      transport.seek(this.#restingTime);
      transport.addEventListener("change", () => this.#changed());
      this.#transport = transport;
      return transport;
    } finally {
      this.#parts.play.removeAttribute("aria-busy");
    }
  }

  #changed() {
    this.#restingTime = this.time;
    this.#parts.play.innerHTML = icon(this.playing ? "pause" : "play");
    this.#parts.play.setAttribute("aria-label", this.playing ? "Pause" : "Play");
    this.toggleAttribute("data-playing", this.playing);
    this.#draw();
  }

  #say(text) {
    this.dataset.failed = "";
    this.#parts.message.textContent = text;
  }

  // --- building ---

  #build() {
    const parts = buildParts({
      toggle: () => this.toggle(),
      toggleLoop: () => this.#toggleLoop(),
      toggleBrush: () => this.#toggleBrush(),
      zoom: (factor) => this.#zoom(factor),
      showAll: () => this.#setView(whole(this.#seconds)),
      colours: chosenColours,
      channel: () => this.#channel,
      channels: () => this.#picture()?.channels ?? [],
      setColours: (name) => this.#setColours(name),
      setChannel: (name) => this.#setChannel(name),
    });
    this.#parts = parts;
    const display = new Display(this, parts, {
      picture: () => this.#picture(),
      channel: () => this.#channel,
      view: () => this.#view,
      seconds: () => this.#seconds,
      several: () => this.#sources.length > 1,
    });
    this.#display = display;
    this.#regions = new Regions(parts.plot, {
      boxOf: (region) => display.boxOf(region),
      at: (x, y) => display.placeOf(x, y),
      changed: (list) => this.dispatchEvent(new CustomEvent("regions", { detail: list, bubbles: true })),
      seconds: () => this.#seconds,
    });
    this.replaceChildren(parts.stage, parts.overview, parts.bar);
    this.setAttribute("role", "group");
    this.#channel = remembered("channel", "mid");
    gestures(parts.surface, {
      point: (x, y) => display.point(x, y),
      leave: () => display.point(null),
      click: (x, y) => this.seek(display.placeOf(x, y).time),
      drag: (from, to, done) => this.#drag(from, to, done),
      pan: (dx, dy, width, height) => this.#pan(dx / width, dy / height),
      zoomTime: (factor, x) => this.#setView(zoomTime(this.#view, factor, display.placeOf(x, 0).time, this.#seconds)),
      zoomHeight: (factor, y) => this.#setView(zoomHeight(this.#view, factor, display.placeOf(0, y).height)),
      pansByTouch: () => isZoomed(this.#view, this.#seconds) && !this.#brushes(),
    });
    parts.surface.addEventListener("keydown", (event) => this.#key(event));
    this.#overviewGestures(parts.overview);
    this.#label();
  }

  #watch() {
    const redraw = () => this.#draw();
    const size = new ResizeObserver(redraw);
    size.observe(this.#parts.plot.parentElement);
    const theme = matchMedia("(prefers-color-scheme: dark)");
    theme.addEventListener("change", redraw);
    document.addEventListener(COLOURS_CHANGED, redraw);
    this.#watchers.push(
      () => size.disconnect(),
      () => theme.removeEventListener("change", redraw),
      () => document.removeEventListener(COLOURS_CHANGED, redraw),
    );
  }

  #label() {
    const { surface, names, play, brush } = this.#parts;
    const label = this.getAttribute("label") || this.#sources[0]?.name || "Spectrogram";
    this.setAttribute("aria-label", label);
    surface.setAttribute("aria-label", `${label}: place in the sound`);
    play.disabled = !this.#sources.some((source) => source.sound);
    brush.hidden = !this.hasAttribute("brush");
    names.hidden = this.#sources.length < 2;
    const choice = ({ name }, number) =>
      element("button", {
        type: "button",
        textContent: name || String.fromCharCode(65 + number),
        "aria-pressed": String(number === this.#selected),
        onclick: () => this.select(number),
      });
    const written = [...names.children].map((each) => each.textContent);
    const wanted = this.#sources.map(choice);
    if (wanted.some((each, number) => each.textContent !== written[number]) || wanted.length !== written.length) {
      names.replaceChildren(...wanted);
    }
    [...names.children].forEach((each, number) => each.setAttribute("aria-pressed", String(number === this.#selected)));
  }

  // --- acting ---

  #setView(view) {
    this.#view = view;
    this.#draw();
  }

  #zoom(factor) {
    const centre = (this.#view.start + this.#view.end) / 2;
    const about = this.time >= this.#view.start && this.time <= this.#view.end ? this.time : centre;
    this.#setView(zoomTime(this.#view, factor, about, this.#seconds));
  }

  #zoomHeight(factor) {
    this.#setView(zoomHeight(this.#view, factor, (this.#view.low + this.#view.high) / 2));
  }

  #pan(right, up) {
    const { start, end, low, high } = this.#view;
    this.#setView(panHeight(panTime(this.#view, right * (end - start), this.#seconds), up * (high - low)));
  }

  /** Turn the page where a place lies outside the view. */
  #keepInSight(time) {
    const { start, end } = this.#view;
    if (time < start || time > end) this.#view = panTime(this.#view, time - start - 0.1 * (end - start), this.#seconds);
  }

  #toggleLoop() {
    this.loop = this.#loop ? null : { start: this.#view.start, end: this.#view.end };
  }

  #brushes() {
    return this.#parts.brush.getAttribute("aria-pressed") === "true";
  }

  #toggleBrush() {
    this.#parts.brush.setAttribute("aria-pressed", String(!this.#brushes()));
    this.toggleAttribute("data-brush", this.#brushes());
  }

  #drag(from, to, done) {
    const [one, other] = [this.#display.placeOf(from.x, from.y), this.#display.placeOf(to.x, to.y)];
    const [start, end] = [one.time, other.time].sort((a, b) => a - b);
    const [low, high] = [one.hz, other.hz].sort((a, b) => a - b);
    if (!this.#brushes()) {
      this.#display.showDraft(null);
      if (done) {
        this.loop = { start, end };
        this.seek(start);
      } else this.#display.showLoop({ start, end });
      return;
    }
    this.#display.showDraft(done ? null : { start, end, low, high });
    if (done && end > start && high > low) this.mark({ start, end, low, high });
  }

  #markByKey() {
    if (!this.hasAttribute("brush")) return;
    const { start, end } = this.#loop ?? this.#view;
    this.mark({ start, end, ...this.#range() });
  }

  /** The frequencies in sight, in hertz. */
  #range() {
    const spec = this.#picture()?.spec;
    return spec ? { low: hzAt(this.#view.low, spec), high: hzAt(this.#view.high, spec) } : { low: 0, high: 1 };
  }

  #key(event) {
    const act = actOfKey(event, {
      toggle: () => this.toggle(),
      seek: (to) => this.seek(to),
      seekBy: (seconds) => this.seek(this.time + seconds),
      end: () => this.#seconds,
      next: () => this.select((this.#selected + 1) % Math.max(this.#sources.length, 1)),
      loopFromHere: () =>
        (this.loop = { start: this.time, end: this.#loop?.end > this.time ? this.#loop.end : this.#seconds }),
      loopToHere: () => (this.loop = { start: this.#loop?.start < this.time ? this.#loop.start : 0, end: this.time }),
      toggleLoop: () => this.#toggleLoop(),
      zoom: (factor) => this.#zoom(factor),
      zoomHeight: (factor) => this.#zoomHeight(factor),
      pan: (right, up) => this.#pan(right, up),
      showAll: () => this.#setView(whole(this.#seconds)),
      nextColours: () => this.#nextColours(),
      nextChannel: () => this.#nextChannel(),
      brush: () => this.hasAttribute("brush") && this.#toggleBrush(),
      mark: () => this.#markByKey(),
    });
    if (!act) return;
    event.preventDefault();
    act();
  }

  #setColours(name) {
    document.documentElement.dataset.melColours = name;
    remember("colours", name);
    document.dispatchEvent(new Event(COLOURS_CHANGED));
  }

  #nextColours() {
    this.#setColours(COLOUR_MAPS[(COLOUR_MAPS.indexOf(chosenColours()) + 1) % COLOUR_MAPS.length]);
  }

  #setChannel(name) {
    this.#channel = name;
    remember("channel", name);
    this.#draw();
  }

  #nextChannel() {
    const names = this.#picture()?.channels ?? [];
    if (names.length > 1) this.#setChannel(names[(names.indexOf(this.#channel) + 1) % names.length]);
  }

  #overviewGestures(overview) {
    const centre = (event) => {
      const box = overview.getBoundingClientRect();
      const time = ((event.clientX - box.left) / box.width) * this.#seconds;
      this.#setView(panTime(this.#view, time - (this.#view.start + this.#view.end) / 2, this.#seconds));
    };
    overview.addEventListener("pointerdown", (event) => {
      overview.setPointerCapture(event.pointerId);
      centre(event);
    });
    overview.addEventListener("pointermove", (event) => overview.hasPointerCapture(event.pointerId) && centre(event));
  }

  // --- drawing ---

  #picture() {
    return this.#pictures[this.#selected] ?? null;
  }

  #draw() {
    if (!this.#frame && this.#parts) this.#frame = requestAnimationFrame(() => this.#drawNow());
  }

  #drawNow() {
    this.#frame = 0;
    if (!this.isConnected) return;
    const time = this.time;
    if (this.playing) this.#keepInSight(time);
    this.#display.drawPicture();
    this.#display.drawCursor(time);
    this.#display.showLoop(this.#loop);
    this.#regions.draw();
    if (this.playing) this.#frame = requestAnimationFrame(() => this.#drawNow());
  }
}

customElements.define("mel-player", MelPlayer);
