// From codes to colours.

function rgb(hex) {
  return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
}

/** Whether a colour is nearer to black than to white. */
export function isDark(hex) {
  const [red, green, blue] = rgb(hex);
  return 0.3 * red + 0.59 * green + 0.11 * blue < 110;
}

/** The colour, [r, g, b], at a share from 0 to 1 of evenly spaced colours. */
export function between(stops, share) {
  const place = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const first = Math.min(Math.floor(place), stops.length - 2);
  const [low, high] = [rgb(stops[first]), rgb(stops[first + 1])];
  return low.map((part, i) => Math.round(part + (high[i] - part) * (place - first)));
}

/** The value that a code of a layer of values stands for; null where it is unknown. */
export function valueOf(scale, code) {
  return code === 0 ? null : scale.low + ((code - 1) / 254) * (scale.high - scale.low);
}

/** Of a layer of sets the colours of the classes of each code, as [r, g, b, opacity] in numbers of 32 bits. */
export function stripesOf(layer, { hidden }) {
  const shown = layer.classes.filter((entry) => !hidden.has(entry.code));
  const colours = shown.map(({ color }) => new Uint32Array(new Uint8ClampedArray([...rgb(color), 255]).buffer)[0]);
  // The last code is "not counted".
  return Array.from({ length: 256 }, (_, code) => (code === 255 ? [] : colours.filter((_, place) => (code >> shown[place].code) & 1)));
}

/** Red, green, blue and opacity for each of the 256 codes; hidden and unknown ones are clear, as is the inside of outlined polygons. */
export function lookUp(layer, { hidden, outlined }) {
  const table = new Uint8ClampedArray(4 * 256);
  for (const entry of layer.classes) {
    if (!entry.color || hidden.has(entry.code)) continue;
    const colour = [...rgb(entry.color), 255];
    if (!layer.border || !outlined) table.set(colour, 4 * entry.code);
    if (layer.border) table.set(colour, 4 * (entry.code + layer.border));
  }
  for (let code = 1; layer.scale && code < 256; code += 1) {
    table.set([...between(layer.scale.stops, (code - 1) / 254), 255], 4 * code);
  }
  return table;
}
