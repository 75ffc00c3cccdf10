// One pane, or two that look at the same place.

import { byId, el, say } from "./dom.js";
import { scene } from "./manifest.js";
import { changed, onChange, state } from "./state.js";
import { Pane } from "./pane.js";

const WIDE = window.matchMedia("(min-width: 700px)");
const panes = [];
const movers = [];
let leader = null;

/** Call back with the leading pane whenever the view moves. */
export function onMove(listener) {
  movers.push(listener);
}

/** The panes that are on screen. */
export function shownPanes() {
  return state.side ? panes : panes.slice(0, 1);
}

/** The pane that people work in; the other one follows it. */
export function leadingPane() {
  return shownPanes().includes(leader) ? leader : panes[0];
}

function follow(pane) {
  if (pane !== leadingPane() || !pane.isReady) return;
  for (const other of shownPanes()) {
    if (other !== pane && other.isReady) other.viewer.viewport.fitBounds(pane.viewer.viewport.getBounds(true), true);
  }
  movers.forEach((listener) => listener(pane));
}

function addPane() {
  const place = panes.length;
  const pane = new Pane(byId("stage"), place ? "Right half" : "Image", {
    navigator: place === 0 && WIDE.matches,
    onMove: follow,
    onFailed: () => say("Some tiles could not be read; the file may be damaged."),
  });
  for (const event of ["pointerdown", "wheel", "focusin"]) {
    pane.element.addEventListener(event, () => (leader = pane), { capture: true, passive: true });
  }
  pane.head.append(chooser(place));
  panes.push(pane);
  return pane;
}

/** The choice of what a pane shows. */
function chooser(place) {
  const choose = el("select", {
    "aria-label": place ? "Shown on the right" : "Shown on the left",
    onchange: () => {
      state.predictions[place] = Number(choose.value);
      changed();
    },
  });
  choose.append(el("option", { value: -1 }, "Image alone"));
  scene.predictions.forEach((name, number) => choose.append(el("option", { value: number }, name)));
  return choose;
}

function draw() {
  if (state.side && panes.length === 1) addPane().whenReady = () => follow(leadingPane());
  const chosen = scene.predictions.length > 1 || state.side;
  panes.forEach((pane, place) => {
    pane.element.hidden = place > 0 && !state.side;
    pane.head.hidden = !chosen || !scene.predictions.length;
    pane.head.firstChild.value = state.predictions[place];
    pane.show(state.predictions[place]);
  });
  byId("stage").classList.toggle("side", state.side);
}

/** Make the first pane; the promise is kept once it can be moved. */
export function startPanes() {
  const first = addPane();
  onChange(draw);
  return new Promise((resolve) => (first.whenReady = resolve));
}
