// Contrast and gamma of the image: which values become black and white, and how bright those between are.

import { el } from "./dom.js";
import { plainTone, valueAt } from "./manifest.js";
import { changed, onChange, state } from "./state.js";

const APART = 0.01; // black and white
const GAMMA_BASE = 5; // gamma goes from its inverse to this

const limit = (value, low, high) => Math.min(Math.max(value, low), high);

/** By name: its label, the range of its slider, and from the slider to the tone and back. */
const CONTROLS = {
  black: { label: "Black", range: [0, 100], read: (at) => limit(at / 100, 0, 1 - APART), write: (value) => 100 * value },
  white: { label: "White", range: [0, 100], read: (at) => limit(at / 100, APART, 1), write: (value) => 100 * value },
  gamma: { label: "Gamma", range: [-100, 100], read: (at) => GAMMA_BASE ** (at / 100), write: (value) => (100 * Math.log(value)) / Math.log(GAMMA_BASE) },
};

/** A value of the file in words, as exact as the codes are. */
function valueText({ values, whole }, share) {
  const value = valueAt({ values }, share);
  const range = valueAt({ values }, whole[1]) - valueAt({ values }, whole[0]);
  return range >= 20 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

function shownText(name, tone) {
  return name === "gamma" ? state.tone.gamma.toFixed(2) : valueText(tone, state.tone[name]);
}

/** Black stays below white: what is moved pushes the other one. */
function set(name, value) {
  const tone = { ...state.tone, [name]: value };
  if (name === "black") tone.white = Math.max(tone.white, tone.black + APART);
  if (name === "white") tone.black = Math.min(tone.black, tone.white - APART);
  state.tone = tone;
  changed();
}

function slider(name, layer) {
  const { label, range: [min, max], read, write } = CONTROLS[name];
  const output = el("output", { class: "number", for: `tone-${name}` });
  const input = el("input", { type: "range", id: `tone-${name}`, min, max, step: 0.5, "aria-label": `${label} of the image`,
    oninput: () => set(name, read(Number(input.value))) });
  onChange(() => {
    input.value = write(state.tone[name]);
    output.textContent = shownText(name, layer.tone);
    input.setAttribute("aria-valuetext", output.textContent);
  });
  return el("div", { class: "slider" }, el("span", {}, label), input, output);
}

function preset(label, title, tone) {
  const run = () => {
    state.tone = { ...tone };
    changed();
  };
  return el("button", { type: "button", class: "preset", title, onclick: run }, label);
}

/** Sliders for the image, and the ways back. */
export function toneControls(layer) {
  const { black, white, gamma, whole, values } = layer.tone;
  const bytes = values.every((value, code) => value === code);
  return el("div", { class: "tone" }, ...Object.keys(CONTROLS).map((name) => slider(name, layer)),
    el("div", { class: "presets" },
      preset("Automatic", "As chosen from the values of the image", { black, white, gamma }),
      bytes
        ? preset("As stored", "No change of contrast or gamma", plainTone)
        : preset("All values", "From the lowest to the highest value that was seen", { black: whole[0], white: whole[1], gamma: 1 })));
}
