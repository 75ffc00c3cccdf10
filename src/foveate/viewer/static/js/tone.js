// Contrast and gamma of the image: which values become black and white, and how bright those between are.

import { el } from "./dom.js";
import { valueAt } from "./manifest.js";
import { changed, onChange, state } from "./state.js";

const APART = 0.01; // black and white
const GAMMA_BASE = 5; // gamma goes from its inverse to this
const ENDS = ["black", "white"];
const COLOURS = ["Red", "Green", "Blue"];

/** A value of the file in words, as exact as the codes are. */
function valueText(contrast, share) {
  const value = valueAt(contrast, share);
  const range = valueAt(contrast, contrast.whole[1]) - valueAt(contrast, contrast.whole[0]);
  return range >= 20 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

function setTone(tone) {
  state.tone = tone;
  changed();
}

/** Black stays below white: what is moved pushes the other one. */
function setEnd(place, end, share) {
  const ends = state.tone.ends.map((pair) => [...pair]);
  const limits = [[0, 1 - APART], [APART, 1]][end];
  ends[place][end] = Math.min(Math.max(share, limits[0]), limits[1]);
  ends[place][1 - end] = end ? Math.min(ends[place][0], ends[place][1] - APART) : Math.max(ends[place][1], ends[place][0] + APART);
  setTone({ ...state.tone, ends });
}

/** A slider: what it is called, its lowest place up to 100, what moving it does, its place now, and that in words. */
function slider({ id, label, of, min, move, place, text }) {
  const output = el("output", { class: "number", for: id });
  const input = el("input", { type: "range", id, min, max: 100, step: 0.5, "aria-label": `${label} of ${of}`,
    oninput: () => move(Number(input.value) / 100) });
  onChange(() => {
    input.value = 100 * place();
    output.textContent = text();
    input.setAttribute("aria-valuetext", output.textContent);
  });
  return el("div", { class: "slider" }, el("span", {}, label), input, output);
}

/** The two ends of a contrast; of a band's own under its name. */
function contrastControls(contrast, place) {
  const title = contrast.name ? [el("p", { class: "hint" }, `${COLOURS[place]}: ${contrast.name}`)] : [];
  const sliders = ENDS.map((name, end) => slider({
    id: contrast.name ? `tone-${name}-${place + 1}` : `tone-${name}`, label: end ? "White" : "Black", of: contrast.name || "the image", min: 0,
    move: (share) => setEnd(place, end, share), place: () => state.tone.ends[place][end],
    text: () => valueText(contrast, state.tone.ends[place][end]),
  }));
  return [...title, ...sliders];
}

const gammaControl = () => slider({
  id: "tone-gamma", label: "Gamma", of: "the image", min: -100,
  move: (share) => setTone({ ...state.tone, gamma: GAMMA_BASE ** share }),
  place: () => Math.log(state.tone.gamma) / Math.log(GAMMA_BASE), text: () => state.tone.gamma.toFixed(2),
});

function preset(label, title, tone) {
  return el("button", { type: "button", class: "preset", title, onclick: () => setTone(tone) }, label);
}

/** Sliders for the image, and the ways back. */
export function toneControls(layer) {
  const { contrasts, gamma } = layer.tone;
  const bytes = contrasts.every(({ values }) => values.every((value, code) => value === code));
  return el("div", { class: "tone" }, ...contrasts.flatMap(contrastControls), gammaControl(),
    el("div", { class: "presets" },
      preset("Automatic", "As chosen from the values of the image", { ends: contrasts.map(({ black, white }) => [black, white]), gamma }),
      bytes
        ? preset("As stored", "No change of contrast or gamma", { ends: contrasts.map(() => [0, 1]), gamma: 1 })
        : preset("All values", "From the lowest to the highest value that was seen", { ends: contrasts.map(({ whole }) => whole), gamma: 1 })));
}
