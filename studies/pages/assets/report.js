"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const points = window.matchMedia("(hover: hover)").matches; // a tap shows what hovering shows
const ask = window.matchMedia("(prefers-color-scheme: dark)");

function template() {
  const style = getComputedStyle(root);
  const [ink, line] = ["--ink", "--line"].map((name) => style.getPropertyValue(name).trim());
  const paper = style.getPropertyValue("--paper").trim();
  const size = 13 / 16 * parseFloat(style.fontSize); // larger on a projector, as all text is
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line, automargin: true };
  const room = { ...axis, backgroundcolor: "rgba(0,0,0,0)", showbackground: false, color: ink };
  return {
    layout: {
      font: { color: ink, family: "system-ui, Segoe UI, Roboto, sans-serif", size },
      xaxis: axis, yaxis: axis, scene: { xaxis: room, yaxis: room, zaxis: room },
      hoverlabel: { bgcolor: paper, bordercolor: ink, font: { color: ink, size }, align: "left" },
    },
  };
}

function draw(box) {
  const { data: traces, layout } = data.plots[box.id];
  for (const trace of traces)
    if (trace.customdata && trace.meta === "trials") trace.hovertext = trace.customdata.map((n) => data.trials[n].hover);
  const narrow = box.clientWidth < 480;
  const shown = { ...layout, template: template() };
  if (narrow) {
    shown.margin = { ...layout.margin, l: Math.min(layout.margin?.l ?? 64, 52) };
    const eye = layout.scene?.camera?.eye;
    if (eye) shown.scene = { ...layout.scene, camera: { ...layout.scene.camera, eye: { x: 1.6 * eye.x, y: 1.6 * eye.y, z: 1.6 * eye.z } } };
  }
  Plotly.newPlot(box, traces, shown, { responsive: true, displaylogo: false, displayModeBar: narrow ? false : "hover" })
    .then(() => {
      box.dataset.drawn = "yes";
      box.on("plotly_click", (event) => {
        const number = event.points[0]?.customdata;
        if (data.trials[number] && points) location.hash = `trial-${number}`;
      });
    });
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries)
    if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target); }
}, { rootMargin: "400px" });
for (const box of document.querySelectorAll(".plot")) seen.observe(box);
window.addEventListener("beforeprint", () => {
  for (const box of document.querySelectorAll(".plot:not([data-drawn])")) { seen.unobserve(box); draw(box); }
});

function theme(name) {
  root.dataset.theme = name;
  for (const box of document.querySelectorAll(".plot[data-drawn]")) Plotly.relayout(box, { template: template() });
}
theme(ask.matches ? "dark" : "light");
let chosen = false;
ask.addEventListener("change", () => chosen || theme(ask.matches ? "dark" : "light"));
document.getElementById("theme").addEventListener("click", () => {
  chosen = true;
  theme(root.dataset.theme === "dark" ? "light" : "dark");
});

const dialog = document.querySelector("dialog");
function show() {
  const number = /^#trial-(\d+)$/.exec(location.hash)?.[1];
  const trial = data.trials[number];
  if (!trial) return;
  dialog.querySelector("h3").textContent = `Trial ${number}`;
  dialog.querySelector("pre").textContent = trial.text;
  if (!dialog.open) dialog.showModal();
}
dialog.addEventListener("close", () => history.replaceState(null, "", location.pathname + location.search));
window.addEventListener("hashchange", show);
document.getElementById("go").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = `trial-${event.target.elements[0].value}`;
});
show();
