"use strict";
// Where the bits went: a table of layers and modules, coloured by their mean bits.

// viridis, sampled; the same in light and dark, because the text on it is chosen by its lightness
const COLOURS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const FEWEST = 2, MOST = 8;

/** Background and text colour of a number of bits. */
function shade(bits) {
  const share = Math.min(1, Math.max(0, (bits - FEWEST) / (MOST - FEWEST))) * (COLOURS.length - 1);
  const low = Math.floor(share), high = Math.min(COLOURS.length - 1, low + 1);
  const part = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const [a, b] = [part(COLOURS[low]), part(COLOURS[high])];
  const mixed = a.map((value, place) => Math.round(value + (b[place] - value) * (share - low)));
  const [r, g, blue] = mixed.map((value) => { const v = value / 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  const dark = 0.2126 * r + 0.7152 * g + 0.0722 * blue < 0.18;
  return { background: `rgb(${mixed.join(" ")})`, color: dark ? "#ffffff" : "#000000" };
}

/** What a cell says when it is pointed at. */
function story(layer, module, [, , bits, weights, shares, damage]) {
  const lines = [layer === "outside" ? module : `layer ${layer}, ${module}`, `${bits.toFixed(3)} bits per weight, scales included`, `${weights.toLocaleString("en")} weights`];
  for (const [width, share] of Object.entries(shares)) lines.push(`${width} bits: ${(100 * share).toFixed(1)} %`);
  if (damage !== null) lines.push(`damage ${short(damage)}`);
  return lines.join("\n");
}

/** The heat map as a table; arrow keys move from cell to cell. */
function heatmap(map) {
  const cells = new Map(map.spots.map((spot) => [`${spot[0]} ${spot[1]}`, spot]));
  const head = html("tr", {}, html("th", { scope: "col" }, "layer"), ...map.modules.map((module) => html("th", { scope: "col" }, module)));
  const body = map.layers.map((layer, row) => html("tr", {}, html("th", { scope: "row" }, layer), ...map.modules.map((module, column) => {
    const spot = cells.get(`${row} ${column}`);
    if (!spot) return html("td", { class: "empty" });
    const told = story(layer, module, spot), colours = shade(spot[2]);
    const cell = html("td", { tabindex: "-1", "data-tip": told, "aria-label": told.replaceAll("\n", ", ") }, spot[2].toFixed(1));
    Object.assign(cell.style, colours);
    return cell;
  })));
  const table = html("table", { "aria-label": "Mean bits per weight by layer and module" }, html("thead", {}, head), html("tbody", {}, ...body));
  const first = table.querySelector("td[data-tip]");
  if (first) first.tabIndex = 0;
  table.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!move || !event.target.matches("td")) return;
    event.preventDefault();
    let row = event.target.parentElement.rowIndex, column = event.target.cellIndex, next;
    do {
      row += move[0]; column += move[1];
      next = table.rows[row]?.cells[column];
    } while (next && !next.matches("[data-tip]"));
    if (next) { event.target.tabIndex = -1; next.tabIndex = 0; next.focus(); }
  });
  const bar = html("span", { class: "bar", "aria-hidden": "true" });
  bar.style.background = `linear-gradient(90deg, ${COLOURS.join(", ")})`;
  return html("div", {}, html("div", { class: "map" }, table),
    html("div", { class: "scale" }, `${FEWEST} bits`, bar, `${MOST} bits and more`));
}

/** Share of the weights by width, as bars. */
function widths(map) {
  return bars("Widths", Object.entries(map.shares).map(([width, share]) => ({
    name: `${width} bits`, value: share, tip: `${(100 * share).toFixed(2)} % of the weights have ${width} bits`,
  })), (share) => `${(100 * share).toFixed(1)} %`);
}
