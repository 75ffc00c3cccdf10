// Numbers as people read them.

import { scene } from "./manifest.js";

const UNITS = [["km", 1e3], ["m", 1], ["cm", 1e-2], ["mm", 1e-3], ["µm", 1e-6], ["nm", 1e-9]];

/** A length in metres, in the unit that keeps the number short. */
export function lengthText(metres) {
  const [unit, size] = UNITS.find(([, step]) => metres >= step * 0.9999) ?? UNITS[UNITS.length - 1];
  return `${Number((metres / size).toPrecision(3))} ${unit}`;
}

/** The largest of 1, 2, 5, 10, 20, ... that is at most this. */
function niceBelow(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [5, 2, 1].find((digit) => digit * power <= value * 1.0001) * power;
}

/** An integer with its thousands apart. */
export function integer(value) {
  return String(Math.floor(value)).replace(/\B(?=(\d{3})+$)/g, " ");
}

/** A share of 1 in percent. */
export function percent(share) {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(100 * share).toFixed(share < 0.0995 || share > 0.9995 ? 1 : 0)} %`;
}

/** A value of a layer with its unit. */
export function valueText(value, unit) {
  const digits = unit === "px" || Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return `${value.toFixed(digits)}${unit ? ` ${unit}` : ""}`;
}

/** Coordinates on the ground: of degrees as many digits as a metre needs, of metres a decimetre's. */
export function groundText(x, y, place) {
  const digits = place.geographic ? 5 : 1;
  return `${x.toFixed(digits)}, ${y.toFixed(digits)}`;
}

const LONGEST = 140; // pixels of the screen: the scale bar

/** The scale bar's length on screen and its label, at so many image pixels a screen pixel. */
export function scaleBar(imagePixels) {
  const unit = scene.resolution ? scene.resolution[1] : 1;
  const most = LONGEST * imagePixels * unit;
  const length = scene.resolution ? niceBelow(most) : Math.max(1, niceBelow(most));
  const text = scene.resolution ? lengthText(length) : `${integer(length)} px`;
  return { pixels: length / unit / imagePixels, text };
}
