"use strict";

const plots = JSON.parse(document.getElementById("plots").textContent);

// What all figures share; a figure's own layout stands over it.
const axis = { gridcolor: "#e8ecef", linecolor: "#b8c0c8", zerolinecolor: "#7b8794", zeroline: false, ticks: "", ticklabelstandoff: 4 };
const template = {
  layout: {
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: "#1a2129" },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    xaxis: { ...axis, automargin: true, title: { standoff: 8 } },
    yaxis: { ...axis, automargin: true, title: { standoff: 8 } },
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { size: 11 } },
    hoverlabel: { bgcolor: "#fff", bordercolor: "#55606b", font: { color: "#1a2129" }, align: "left" },
    hovermode: "closest",
    margin: { l: 10, r: 14, t: 30, b: 10 },
    dragmode: false,
    modebar: { bgcolor: "rgba(0,0,0,0)", color: "#9aa5b1", activecolor: "#0b5c8f" },
  },
};

function draw(place) {
  const { data, layout } = plots[place.dataset.plot];
  Plotly.newPlot(place, data, { ...layout, template, autosize: true }, {
    responsive: true,
    displaylogo: false,
    displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
    modeBarButtons: [["toImage"]],
    toImageButtonOptions: { format: "svg", filename: place.getAttribute("aria-label") },
  }).then(() => place.classList.add("drawn"));
}

// A figure is drawn when it comes near the window: a page of many opens at once.
const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting) {
      near.unobserve(target);
      draw(target);
    }
  }
}, { rootMargin: "600px" });

async function unpackPlotly() {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

unpackPlotly().then(
  () => document.querySelectorAll(".plot").forEach((place) => near.observe(place)),
  (error) => document.querySelectorAll(".plot").forEach((place) => { place.textContent = `not drawn: ${error}`; }),
);
addEventListener("beforeprint", () => document.querySelectorAll(".plot:not(.drawn)").forEach(draw));

for (const select of document.querySelectorAll(".choose select")) {
  const variants = select.closest("section").querySelectorAll(".figures");
  select.addEventListener("change", () => variants.forEach((part, i) => { part.hidden = i !== select.selectedIndex; }));
}

const valueOf = (row, column) => {
  const { dataset, textContent } = row.cells[column];
  const value = dataset.value ?? textContent;
  return value === "" || isNaN(value) ? value : Number(value);
};

function compare(a, b) {
  if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
  return typeof a === "number" ? -1 : 1;
}

for (const table of document.querySelectorAll(".table")) {
  const body = table.querySelector("tbody");
  const rows = [...body.rows];
  const heads = [...table.querySelectorAll("th")];
  heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => {
    const descending = head.ariaSort === "ascending";
    heads.forEach((other) => { other.ariaSort = "none"; });
    head.ariaSort = descending ? "descending" : "ascending";
    const [empty, full] = [[], []];
    for (const row of rows) (valueOf(row, column) === "" ? empty : full).push(row);
    full.sort((a, b) => compare(valueOf(a, column), valueOf(b, column)) * (descending ? -1 : 1));
    body.append(...full, ...empty);
  }));
  if (!table.dataset.filter) continue;
  const filter = document.createElement("label");
  filter.className = "filter";
  filter.innerHTML = 'Filter <input type="search" placeholder="words that a row must have"> <output></output>';
  const [input, count] = [filter.querySelector("input"), filter.querySelector("output")];
  const update = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${rows.length} rows`;
  };
  input.addEventListener("input", update);
  update();
  table.prepend(filter);
}
