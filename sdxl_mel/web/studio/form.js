/** A form made from the JSON schema of a command's settings, so that it has no option of its own and lacks none. */

import { element } from "../elements.js";
import { iconButton } from "../icons.js";
import { labelled, select } from "./controls.js";

/**
 * The form of a schema. `leading` are the names shown first, `left` those that the tab shows itself, `values` what is
 * set already. Event `change` after every edit; `settings` are the values that differ from their defaults.
 */
export class SettingsForm extends EventTarget {
  #store;
  #readers = new Map();
  #writers = new Map();

  constructor(schema, { store, leading = [], left = [] }) {
    super();
    this.#store = store;
    const properties = flat(schema).filter(({ name, setting }) => !left.includes(name) && setting.show !== "hidden");
    const shown = leading.map((name) => properties.find((each) => each.name === name)).filter(Boolean);
    const others = properties.filter((each) => !shown.includes(each));
    this.common = element("div", { className: "fields" }, ...shown.map((each) => this.#field(each)));
    this.all = this.#everything(others);
    this.required = schema.required ?? [];
  }

  /** The settings that are not left at their defaults, groups as objects. */
  get settings() {
    const result = {};
    for (const [name, read] of this.#readers) {
      const value = read();
      if (value === undefined) continue;
      const path = name.split(".");
      const last = path.pop();
      path.reduce((group, key) => (group[key] ??= {}), result)[last] = value;
    }
    return result;
  }

  /** Show settings; those that are not given go back to their defaults. */
  set settings(values) {
    for (const [name, write] of this.#writers) {
      write(name.split(".").reduce((group, key) => group?.[key], values));
    }
  }

  #everything(properties) {
    const search = element("input", { type: "search", placeholder: "Find a setting", "aria-label": "Find a setting" });
    const groups = Map.groupBy(properties, ({ name, setting }) =>
      name.includes(".") ? name.split(".")[0] : setting.show,
    );
    const parts = [...groups].map(([group, members]) =>
      element(
        "fieldset",
        {},
        element("legend", { textContent: { common: "Common", advanced: "Advanced" }[group] ?? words(group) }),
        ...members.map((each) => this.#field(each)),
      ),
    );
    const details = element(
      "details",
      { className: "all-settings" },
      element("summary", { textContent: `All settings (${properties.length} more)` }),
      search,
      ...parts,
    );
    search.addEventListener("input", () => {
      const wanted = search.value.toLowerCase();
      for (const field of details.querySelectorAll(".field"))
        field.hidden = !field.textContent.toLowerCase().includes(wanted);
      for (const part of parts) part.hidden = [...part.querySelectorAll(".field")].every((field) => field.hidden);
    });
    return details;
  }

  #field({ name, setting }) {
    const kind = kindOf(setting);
    const { control, read, write } = this.#control(kind, setting, name);
    this.#readers.set(name, read);
    this.#writers.set(name, write);
    control.addEventListener("input", () => this.dispatchEvent(new Event("change")));
    control.dataset.setting = name;
    const label = title(name.split(".").at(-1));
    const field =
      kind.type === "boolean"
        ? ticked(label, control, setting.description)
        : labelled(label, control, setting.description);
    field.title = setting.flag ?? "";
    return field;
  }

  #control(kind, setting, name) {
    const initial = setting.default;
    if (kind.type === "boolean") {
      const control = element("input", { type: "checkbox", checked: initial === true });
      return {
        control,
        read: () => (control.checked === (initial === true) ? undefined : control.checked),
        write: (value) => (control.checked = value ?? initial ?? false),
      };
    }
    if (setting.kinds) return this.#places(kind, setting, name);
    if (kind.enum) {
      const none = kind.optional ? [["", "none"]] : [];
      const control = select(
        [...none, ...kind.enum.map((each) => [String(each), String(each)])],
        String(initial ?? ""),
      );
      const valueOf = () => kind.enum.find((each) => String(each) === control.value) ?? null;
      return {
        control,
        read: () => differing(valueOf(), initial),
        write: (value) => (control.value = String(value ?? initial ?? "")),
      };
    }
    if (kind.type === "number" || kind.type === "integer") {
      const control = element("input", {
        type: "number",
        step: kind.type === "integer" ? 1 : "any",
        inputMode: "decimal",
        placeholder: shownDefault(initial),
      });
      if (kind.minimum !== undefined) control.min = kind.minimum;
      if (kind.maximum !== undefined) control.max = kind.maximum;
      return {
        control,
        read: () => (control.value === "" ? undefined : Number(control.value)),
        write: (value) => (control.value = value ?? ""),
      };
    }
    if (kind.type === "array" || kind.type === "object") return listControl(kind, initial);
    const control = element("input", { type: "text", placeholder: shownDefault(initial) });
    return {
      control,
      read: () => (control.value.trim() === "" ? undefined : control.value.trim()),
      write: (value) => (control.value = value ?? ""),
    };
  }

  /** A choice among the artefacts that fit; several where the setting takes several. */
  #places(kind, setting, name) {
    const several = kind.type === "array";
    const box = element("div", { className: "places" });
    const add = (value) => box.insertBefore(this.#place(setting, value, several), several ? box.lastChild : null);
    if (several) box.append(iconButton("plus", `Add to ${words(name)}`, () => add("")));
    else add("");
    const values = () => [...box.querySelectorAll("select")].map((each) => each.value).filter(Boolean);
    return {
      control: box,
      read: () => (values().length ? (several ? values() : values()[0]) : undefined),
      write: (value) => {
        box.querySelectorAll(".place").forEach((each) => each.remove());
        for (const each of several ? [value ?? []].flat() : [value ?? ""]) add(each);
      },
    };
  }

  #place(setting, value, several) {
    const list = element("select", { "aria-label": words(setting.title ?? "file") });
    const fill = async () => {
      const chosen = list.value || value;
      const found = await this.#store.artefacts(...setting.kinds);
      const pairs = [
        ["", "none"],
        ...(setting.kinds.includes("base") ? [["mini", "mini (comes with the package)"]] : []),
        ...found.map((each) => [`id:${each.id}`, each.name]),
      ];
      if (chosen && !pairs.some(([each]) => each === chosen)) pairs.push([chosen, chosen]);
      list.replaceChildren(...pairs.map(([each, text]) => element("option", { value: each, textContent: text })));
      list.value = chosen;
    };
    fill();
    list.addEventListener("focus", fill);
    const place = element("div", { className: "place" }, list);
    if (several) place.append(iconButton("close", "Remove", () => place.remove()));
    return place;
  }
}

/** Names of settings that say too little beside a control; all others are read as they are. */
const TITLES = { num: "How many", ab: "Without the LoRAs, too", lora: "LoRA", vae: "VAE", clap: "CLAP" };

function title(name) {
  const text = TITLES[name] ?? words(name);
  return text[0].toUpperCase() + text.slice(1);
}

/** A name as a person reads it: "lora_scale" is "lora scale". */
export function words(name) {
  return name.replaceAll("_", " ").trim();
}

/** All settings of a schema by their dotted names, those of groups too. */
function flat(schema, prefix = "") {
  return Object.entries(schema.properties ?? {}).flatMap(([key, setting]) => {
    const name = prefix + key;
    return setting.properties ? flat(setting, `${name}.`) : [{ name, setting }];
  });
}

/** The schema of a value, and whether it may be none. */
function kindOf(setting) {
  const members = setting.anyOf ?? setting.oneOf ?? [setting];
  const kind = members.find((each) => each.type !== "null") ?? {};
  return {
    ...kind,
    optional: members.some((each) => each.type === "null"),
    minimum: kind.minimum ?? kind.exclusiveMinimum,
  };
}

function differing(value, initial) {
  return JSON.stringify(value) === JSON.stringify(initial ?? null) ? undefined : value;
}

function shownDefault(initial) {
  if (initial === null || initial === undefined || initial === "") return "";
  return typeof initial === "object" ? "" : String(initial);
}

function ticked(label, control, hint) {
  const field = labelled(label, control, hint);
  field.classList.add("ticked");
  return field;
}

/** Lists and mappings as text: values apart by spaces, or one a line where they are words; key=value for mappings. */
function listControl(kind, initial) {
  const numbers = [kind.items, ...(kind.prefixItems ?? [])].some((each) => ["number", "integer"].includes(each?.type));
  const mapping = kind.type === "object";
  const text = (value) =>
    mapping
      ? Object.entries(value ?? {})
          .map(([key, each]) => `${key}=${each}`)
          .join("\n")
      : (value ?? []).join(numbers ? " " : "\n");
  const control = element(numbers ? "input" : "textarea", { rows: 2, placeholder: text(initial) });
  const read = () => {
    const parts = control.value
      .split(numbers ? /[\s,]+/ : "\n")
      .map((each) => each.trim())
      .filter(Boolean);
    if (!parts.length) return undefined;
    if (mapping)
      return Object.fromEntries(
        parts.map((each) => [each.slice(0, each.indexOf("=")), each.slice(each.indexOf("=") + 1)]),
      );
    return numbers ? parts.map(Number) : parts;
  };
  return { control, read, write: (value) => (control.value = value === undefined ? "" : text(value)) };
}
