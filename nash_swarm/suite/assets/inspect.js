"use strict";
// One packed model: its heat map and its widths.

const DATA = JSON.parse(document.getElementById("data").textContent);

document.getElementById("map").append(
  html("figure", { class: "wide" }, html("figcaption", {}, "Allocation", html("small", {}, "mean bits per weight, scales included; point at a cell for its widths")), heatmap(DATA.map)),
  widths(DATA.map));
