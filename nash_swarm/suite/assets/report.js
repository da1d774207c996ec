"use strict";
// The report: charts of every model, and tables that sort.

const DATA = JSON.parse(document.getElementById("data").textContent);

/** Rows by their label, each from the fewest bytes to the most. */
function bySeries(rows) {
  const found = new Map();
  for (const row of rows) found.set(row.label, [...(found.get(row.label) ?? []), row]);
  return [...found].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, of]) => [name, of.sort((a, b) => a.bytes - b.bytes)]);
}

/** Points of other tools, which their tips tell apart. */
function peersOf(model, name) {
  return {
    name: "other tools", faint: true, colour: "var(--soft)", mark: "cross",
    points: model.peers.map((peer) => ({
      x: peer.bytes / 1e6, y: peer[name] ?? NaN,
      tip: [peer.method, peer.settings, `${short(peer.bytes / 1e6)} MB`, `${name === "kl" ? "KL" : name} ${short(peer[name])}`].filter(Boolean).join("\n"),
    })),
  };
}

function pareto(model, name, title, label, level) {
  const series = bySeries(model.rows).map(([method, of]) => ({
    name: method, line: true,
    points: of.map((row) => ({
      x: row.bytes / 1e6, y: row[name] ?? NaN,
      tip: `${method} at ${row.bits} bits\n${short(row.bytes / 1e6)} MB\nKL ${short(row.kl)}, perplexity ${short(row.perplexity)}`,
    })),
  }));
  return chart({
    title, note: "lower and further left is better", x: { label: "MB on disk" }, y: { label, log: true }, level,
    series: [...series, peersOf(model, name)],
  });
}

function predicted(model) {
  const series = bySeries(model.rows).map(([method, of]) => ({
    name: method,
    points: of.map((row) => ({
      x: row.predicted_damage ?? NaN, y: row.delta_loss,
      tip: `${method} at ${row.bits} bits\npredicted ${short(row.predicted_damage)}\nmeasured ${short(row.delta_loss)}`,
    })),
  }));
  return chart({
    title: "Predicted against measured rise of the loss", note: "on the dashed line the prediction is right", diagonal: true,
    x: { label: "predicted damage" }, y: { label: "measured" }, series,
  });
}

/** Records that can be drawn: solvers begin at a price that nobody would pay, which would hide all others. */
function drawable(row, name) {
  const found = (row.trace ?? []).filter((record) => record[name] >= 0 && record[name] < 1e30);
  const positive = found.filter((record) => record[name] > 0);
  // a logarithmic scale has no zero, but a regret that is zero all along is worth showing
  return positive.length ? positive : found;
}

function trace(row, name, title, label) {
  const points = drawable(row, name);
  return chart({
    title, x: { label: "iteration" }, y: { label, log: points.some((record) => record[name] > 0) },
    series: [{ name: row.label, line: true, points: points.map((record) => ({
      x: record.iteration, y: record[name],
      tip: `iteration ${record.iteration}\n${Object.entries(record).filter(([key]) => key !== "iteration").map(([key, value]) => `${key.replaceAll("_", " ")} ${short(value)}`).join("\n")}`,
    })) }],
  });
}

/** The part of the page about one cell, which a menu chooses. */
function chooser(model, number) {
  const rows = [...model.rows.keys()].filter((place) => DATA.maps[model.rows[place].allocation]);
  if (!rows.length) return [];
  const best = rows.reduce((a, b) => (Math.abs(model.rows[b].bits - 3) < Math.abs(model.rows[a].bits - 3) ? b : a));
  const menu = html("select", { id: `cell-${number}` }, ...rows.map((place) =>
    html("option", { value: place, ...(place === best ? { selected: "" } : {}) }, `${model.rows[place].label} at ${model.rows[place].bits} bits`)));
  const here = html("div", { class: "charts" });
  const map = html("figure", { class: "wide" });
  function show() {
    const row = model.rows[menu.value], found = DATA.maps[row.allocation];
    map.replaceChildren(html("figcaption", {}, "Allocation", html("small", {}, "mean bits per weight; point at a cell for its widths and damage")),
      heatmap(found));
    const traced = (name) => drawable(row, name).length > 0;
    here.replaceChildren(map, widths(found),
      ...(traced("price") ? [trace(row, "price", "Price over iterations", "damage per bit")] : []),
      ...(traced("unilateral_regret") ? [trace(row, "unilateral_regret", "Regret over iterations", "largest gain of one agent")] : []),
      ...(traced("damage") ? [trace(row, "damage", "Damage over iterations", "predicted damage")] : []));
  }
  menu.addEventListener("change", show);
  show();
  return [html("h3", {}, "One allocation"), html("p", {}, html("label", { for: menu.id }, "Method and budget: "), menu), here];
}

/** Columns sort by click or key: numbers by value, empty cells last. */
function sortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = html("button", { type: "button" }, head.textContent);
    if (head.title) button.title = head.title;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const value = (row) => {
        const cell = row.cells[column], raw = cell.dataset.value;
        return raw === undefined ? cell.textContent : raw === "" ? null : Number(raw);
      };
      const order = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === null || y === null || x === "" || y === "") return (x === null || x === "") - (y === null || y === "");
        const rising = typeof x === "number" ? x - y : x.localeCompare(y, "en");
        return falling ? -rising : rising;
      };
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
    });
  });
}

for (const section of document.querySelectorAll("section.model")) {
  const number = Number(section.dataset.model), model = DATA.models[number];
  const place = section.querySelector(".charts");
  // protocols differ in what they measure
  const known = (name) => model.rows.some((row) => row[name] !== null);
  place.append(
    ...(known("kl") ? [pareto(model, "kl", "Size against KL to the original", "KL, nats per token")] : []),
    pareto(model, "perplexity", "Size against perplexity", "perplexity", { y: model.reference_perplexity, name: "original" }),
    ...(known("predicted_damage") ? [predicted(model)] : []));
  place.after(...chooser(model, number));
}
document.querySelectorAll("table.sortable").forEach(sortable);
