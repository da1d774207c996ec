"use strict";
// Charts as inline SVG, drawn at the size they are shown in, and the tooltip that everything shares.

const SPACE = "http://www.w3.org/2000/svg";
const LEFT = 60; // room for the labels of the upright axis
const MARKS = ["circle", "square", "triangle", "diamond", "cross"];

/** An HTML element; children are elements or text, never markup. */
function html(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SPACE, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A number as people read it. */
function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(2).replace("e+", "e").replace(/\.?0+e/, "e");
  return Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 });
}

const tip = {
  box: document.getElementById("tip"),
  of: null,
  show(element) {
    this.of = element;
    this.box.textContent = element.dataset.tip;
    this.box.hidden = false;
    const at = element.getBoundingClientRect(), own = this.box.getBoundingClientRect();
    const left = Math.min(Math.max(4, at.left + at.width / 2 - own.width / 2), innerWidth - own.width - 4);
    const top = at.top - own.height - 6 >= 0 ? at.top - own.height - 6 : at.bottom + 6;
    this.box.style.left = `${left}px`;
    this.box.style.top = `${top}px`;
  },
  hide() { this.of = null; this.box.hidden = true; },
};
for (const kind of ["pointerover", "focusin"]) {
  document.addEventListener(kind, (event) => {
    const element = event.target.closest("[data-tip]");
    if (element) tip.show(element); else tip.hide();
  });
}
document.addEventListener("focusout", () => tip.hide());
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hide(); });
// pointing and keys scroll what they reach into view: what is still pointed at keeps its tip
document.addEventListener("scroll", () => {
  if (tip.of?.matches(":hover, :focus")) tip.show(tip.of); else tip.hide();
}, true);

/** The shape of a series' points. */
function mark(kind, x, y, r, attributes) {
  const at = (points) => points.map(([dx, dy]) => `${x + dx * r},${y + dy * r}`).join(" ");
  if (kind === "circle") return svg("circle", { cx: x, cy: y, r, ...attributes });
  if (kind === "square") return svg("rect", { x: x - r * 0.9, y: y - r * 0.9, width: r * 1.8, height: r * 1.8, ...attributes });
  const shapes = {
    triangle: [[0, -1.15], [1.1, 0.85], [-1.1, 0.85]],
    diamond: [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]],
    cross: [[-1, -0.4], [-0.4, -0.4], [-0.4, -1], [0.4, -1], [0.4, -0.4], [1, -0.4], [1, 0.4], [0.4, 0.4], [0.4, 1], [-0.4, 1], [-0.4, 0.4], [-1, 0.4]],
  };
  return svg("polygon", { points: at(shapes[kind]), ...attributes });
}

/** Values that a scale is labelled at. */
function ticks(low, high, logarithmic, most) {
  if (logarithmic) {
    const found = [];
    const decades = Math.log10(high / low);
    const steps = decades > most ? [1] : decades > 1.5 ? [1, 3] : [1, 2, 3, 4, 5, 6, 7, 8, 9];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const step of steps) {
        const value = step * 10 ** power;
        if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
      }
    // fewer than three say too little of a scale
    if (found.length >= 3) {
      const every = Math.ceil(found.length / most);
      return found.filter((_, place) => place % every === 0);
    }
  }
  const raw = (high - low) / most, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((each) => each >= raw);
  const found = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step)
    found.push(Math.abs(value) < step * 1e-9 ? 0 : value);
  return found;
}

/** What ticks are labelled with: as few digits as tell them apart. */
function tickLabels(values) {
  const plain = values.map(short);
  if (new Set(plain).size === values.length) return plain;
  let digits = 4;
  while (digits < 15 && new Set(values.map((value) => value.toPrecision(digits))).size < values.length) digits++;
  return values.map((value) => Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits }));
}

/** A scale from values to pixels, with a little room at both ends. */
function scale(values, logarithmic, from, to) {
  const usable = values.filter((value) => Number.isFinite(value) && (!logarithmic || value > 0));
  let low = Math.min(...usable), high = Math.max(...usable);
  if (!usable.length) [low, high] = logarithmic ? [1, 10] : [0, 1];
  if (low === high) [low, high] = logarithmic ? [low / 2, high * 2] : [low - Math.abs(low) / 2 - 0.5, high + Math.abs(high) / 2 + 0.5];
  const room = 0.05;
  if (logarithmic) { const factor = (high / low) ** room; low /= factor; high *= factor; }
  else { const more = (high - low) * room; low -= more; high += more; }
  const share = logarithmic
    ? (value) => Math.log(value / low) / Math.log(high / low)
    : (value) => (value - low) / (high - low);
  return { low, high, logarithmic, at: (value) => from + share(value) * (to - from) };
}

/**
 * A chart of series with points {x, y, tip}, in a figure with a legend whose buttons hide series.
 * options: title, note, x, y ({label, log}), series ([{name, points, line, colour, mark, faint}]), level (a horizontal
 * line {y, name}), diagonal.
 */
function chart(options) {
  const canvas = html("div"), legend = html("div", { class: "legend", role: "group", "aria-label": "Series shown" });
  const figure = html("figure", {}, html("figcaption", {}, options.title, ...(options.note ? [html("small", {}, options.note)] : [])), canvas, legend);
  const hidden = new Set();
  const series = options.series.map((each, place) => ({
    colour: `var(--s${place % 10})`, mark: MARKS[(place + Math.floor(place / 10)) % MARKS.length], ...each,
    points: each.points.filter((p) => Number.isFinite(p.x) && Number.isFinite(p.y) && (!options.x.log || p.x > 0) && (!options.y.log || p.y > 0)),
  })).filter((each) => each.points.length);
  if (!series.length) {
    canvas.append(html("p", {}, "Nothing to show."));
    return figure;
  }
  for (const each of series) {
    const button = html("button", { type: "button", "aria-pressed": "true" },
      svg("svg", { viewBox: "0 0 14 14", "aria-hidden": "true" }, mark(each.mark, 7, 7, 5, { fill: each.colour })), each.name);
    button.addEventListener("click", () => {
      if (!hidden.delete(each)) hidden.add(each);
      button.setAttribute("aria-pressed", String(!hidden.has(each)));
      draw();
    });
    legend.append(button);
  }
  function draw() {
    const width = Math.max(260, canvas.clientWidth || 420), height = Math.round(Math.min(320, width * 0.68));
    const shown = series.filter((each) => !hidden.has(each));
    const points = shown.flatMap((each) => each.points);
    const more = options.level ? [options.level.y] : [];
    const both = options.diagonal ? points.flatMap((p) => [p.x, p.y]) : null;
    const x = scale(both ?? points.map((p) => p.x), options.x.log, LEFT, width - 12);
    const y = scale(both ?? [...points.map((p) => p.y), ...more], options.y.log, height - 40, 10);
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": options.title });
    // long labels stand side by side as well
    let across = ticks(x.low, x.high, options.x.log, width < 400 ? 4 : 6);
    if (tickLabels(across).some((label) => label.length > 7)) across = across.filter((_, place) => place % 2 === 0);
    const below = tickLabels(across), upright = ticks(y.low, y.high, options.y.log, 6), beside = tickLabels(upright);
    for (const [place, value] of across.entries())
      picture.append(svg("line", { class: "axis", x1: x.at(value), x2: x.at(value), y1: 10, y2: height - 40 }),
        svg("text", { x: x.at(value), y: height - 26, "text-anchor": "middle" }, below[place]));
    for (const [place, value] of upright.entries())
      picture.append(svg("line", { class: "axis", x1: LEFT, x2: width - 12, y1: y.at(value), y2: y.at(value) }),
        svg("text", { x: LEFT - 6, y: y.at(value) + 4, "text-anchor": "end" }, beside[place]));
    picture.append(svg("text", { class: "name", x: (LEFT + width - 12) / 2, y: height - 8, "text-anchor": "middle" }, options.x.label),
      svg("text", { class: "name", x: 0, y: 0, "text-anchor": "middle", transform: `translate(11 ${(height - 30) / 2}) rotate(-90)` }, options.y.label));
    if (options.diagonal)
      picture.append(svg("path", { class: "guide", d: `M${x.at(x.low)},${y.at(x.low)}L${x.at(x.high)},${y.at(x.high)}` }));
    if (options.level)
      picture.append(svg("path", { class: "guide", d: `M${LEFT},${y.at(options.level.y)}H${width - 12}` }),
        svg("text", { x: width - 14, y: y.at(options.level.y) - 4, "text-anchor": "end" }, options.level.name));
    shown.forEach((each, place) => {
      // later marks are smaller, so that those they fall on can still be seen
      const size = each.faint ? 3 : 4 + Math.min(4, 0.8 * (shown.length - 1 - place));
      if (each.line)
        picture.append(svg("polyline", { class: "series", stroke: each.colour, points: each.points.map((p) => `${x.at(p.x)},${y.at(p.y)}`).join(" ") }));
      for (const p of each.points)
        picture.append(mark(each.mark, x.at(p.x), y.at(p.y), size, {
          class: "mark", fill: each.colour, tabindex: "0", role: "img", "data-tip": p.tip, "aria-label": p.tip,
        }));
    });
    canvas.replaceChildren(picture);
  }
  let last = 0;
  new ResizeObserver(() => {
    if (canvas.clientWidth !== last) { last = canvas.clientWidth; draw(); }
  }).observe(canvas);
  return figure;
}

/** Bars {name, value, tip}, horizontal, as many as there are. */
function bars(title, entries, format) {
  const most = Math.max(...entries.map((each) => each.value), 1e-12), height = entries.length * 24 + 4;
  const picture = svg("svg", { class: "bars", viewBox: `0 0 400 ${height}`, role: "group", "aria-label": title });
  entries.forEach((each, place) => {
    const y = place * 24 + 2, length = Math.max(1, (260 * each.value) / most);
    picture.append(svg("text", { class: "name", x: 52, y: y + 15, "text-anchor": "end" }, each.name),
      svg("rect", { class: "mark", x: 60, y, width: length, height: 20, rx: 3, fill: "var(--s0)", tabindex: "0", role: "img", "data-tip": each.tip, "aria-label": each.tip }),
      svg("text", { x: 66 + length, y: y + 15 }, format(each.value)));
  });
  return html("figure", {}, html("figcaption", {}, title), picture);
}
