// Keyboard shortcuts; the table is also the help.

import { byId, el } from "./dom.js";
import { kinds } from "./manifest.js";
import { toggleLayer, toggleOutlines } from "./state.js";

function shortcuts(act) {
  return [
    { keys: ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"], shown: "← → ↑ ↓", text: "move; the middle is read out", run: (key) => act.pan(key) },
    { keys: ["+", "="], shown: "+", text: "zoom in", run: () => act.zoom(1.5) },
    { keys: ["-", "_"], shown: "−", text: "zoom out", run: () => act.zoom(1 / 1.5) },
    { keys: ["0"], shown: "0", text: "whole image", run: () => act.home() },
    { keys: ["z"], shown: "Z", text: "one image pixel to one screen pixel", run: () => act.actual() },
    { keys: ["s"], shown: "S", text: "side by side", run: () => act.side() },
    { keys: "123456789".split(""), shown: "1 – 9", text: "layer on or off", run: (key) => layer(Number(key)) },
    { keys: ["l"], shown: "L", text: "layers panel", run: () => act.panel() },
    { keys: ["o"], shown: "O", text: "outline areas, or fill them", run: () => toggleOutlines() },
    { keys: ["c"], shown: "C", text: "copy a link to this view", run: () => act.link() },
    { keys: ["p"], shown: "P", text: "save a picture of this view", run: () => act.picture() },
    { keys: ["?", "h"], shown: "?", text: "this help", run: () => act.help() },
  ];
}

function layer(number) {
  const kind = kinds()[number - 1];
  if (kind) toggleLayer(kind);
}

/** Whether a key belongs to a control that has the focus. */
function taken(event) {
  const { target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return true;
  if (target.matches("select, textarea, input:not([type=checkbox], [type=range])")) return true;
  return target.matches("input[type=range]") && event.key.startsWith("Arrow");
}

/** Listen to keys, and fill the help with them. */
export function startKeys(act) {
  const all = shortcuts(act);
  byId("keys").append(...all.flatMap(({ shown, text }) => [el("dt", {}, el("kbd", {}, shown)), el("dd", {}, text)]));
  document.addEventListener("keydown", (event) => {
    if (taken(event)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const found = all.find(({ keys }) => keys.includes(key));
    if (!found) return;
    event.preventDefault();
    found.run(key);
  });
}
