"use strict";
(() => {
  const { template, config } = JSON.parse(document.getElementById("setup").textContent);
  const PRINT_WIDTH = { one: 668, two: 326, three: 326, small: 212 }; // as the print rules of report.css
  const hidden = new Set(); // normalisers that the reader has switched off, in every figure

  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const drawn = () => all(".figure.js-plotly-plot");
  const visibility = (trace) => (hidden.has(trace.legendgroup) ? "legendonly" : true);

  const draw = (place) => {
    if (place.classList.contains("js-plotly-plot")) return;
    const source = place.querySelector("script");
    if (!source) return;
    const { data, layout } = JSON.parse(source.textContent);
    source.remove();
    for (const trace of data) if (trace.legendgroup) trace.visible = visibility(trace);
    Plotly.newPlot(place, data, { ...layout, template }, config);
    place.on("plotly_legendclick", (event) => toggle(event.data[event.curveNumber].legendgroup));
    place.on("plotly_legenddoubleclick", (event) => isolate(event.data, event.curveNumber));
  };

  // A figure drawn for a window that has since changed, or for paper, takes its place's width again.
  const fit = (figure) => {
    const width = figure.clientWidth;
    if (width && width !== figure._fullLayout.width) Plotly.relayout(figure, { width: null, autosize: true });
  };

  const applyHidden = () => {
    for (const figure of drawn()) {
      const indices = figure.data.map((_, i) => i).filter((i) => figure.data[i].legendgroup);
      if (indices.length) Plotly.restyle(figure, { visible: indices.map((i) => visibility(figure.data[i])) }, indices);
    }
    return false; // Plotly's own handling would act on one figure alone
  };

  const toggle = (norm) => {
    if (!hidden.delete(norm)) hidden.add(norm);
    return applyHidden();
  };

  const isolate = (data, index) => {
    const norm = data[index].legendgroup;
    const others = data.map((trace) => trace.legendgroup).filter((other) => other && other !== norm);
    const alone = others.every((other) => hidden.has(other));
    hidden.clear();
    if (!alone) others.forEach((other) => hidden.add(other));
    return applyHidden();
  };

  // A figure is drawn when it comes near the window: the page opens at once, however many there are.
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      draw(target);
      if (!printing && target.classList.contains("js-plotly-plot")) fit(target); // it may have been out of sight
    }
  }, { rootMargin: "800px" });
  all(".figure").forEach((place) => near.observe(place));

  const choose = (section) => {
    const chosen = { batch: "0", layer: "0" };
    for (const input of all("[data-choose]", section)) {
      if (input.type !== "radio" || input.checked) chosen[input.dataset.choose] = input.value;
    }
    for (const view of all(".view", section)) {
      view.hidden = view.dataset.batch !== chosen.batch || view.dataset.layer !== chosen.layer;
      if (!view.hidden) all(".figure.js-plotly-plot", view).forEach(fit);
    }
  };
  for (const section of all("main > section")) {
    const form = section.querySelector(".controls");
    if (!form) continue;
    form.reset(); // a reloaded page would keep the choice but not the view
    form.addEventListener("change", () => choose(section));
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  // Print shows every batch size, of the layer chosen, at a width that fits the paper.
  let printing = false;
  const toPrint = () => {
    if (printing) return;
    printing = true;
    document.documentElement.classList.add("printing"); // shows what the address does not
    for (const section of all("main > section")) {
      const layer = section.querySelector("select")?.value ?? "0";
      for (const view of all(".view", section)) view.hidden = view.dataset.layer !== layer;
    }
    for (const panels of all(".view:not([hidden]) > .panels")) {
      const width = PRINT_WIDTH[panels.classList[1]];
      for (const figure of all(".figure", panels)) {
        draw(figure); // at its own width first: Plotly comes back from a fixed width to no other
        Plotly.relayout(figure, { width, autosize: false });
      }
    }
  };
  const toScreen = () => {
    if (!printing) return;
    printing = false;
    document.documentElement.classList.remove("printing");
    all("main > section").forEach(choose);
  };
  window.addEventListener("beforeprint", toPrint);
  window.addEventListener("afterprint", toScreen);
  window.matchMedia("print").addEventListener("change", (query) => (query.matches ? toPrint() : toScreen()));

  const copy = async (button) => {
    const code = button.parentElement.querySelector("code");
    getSelection().selectAllChildren(code);
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
    }
  };
  for (const button of all("[data-copy]")) button.addEventListener("click", () => copy(button));

  const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-30% 0px -65% 0px" });
  all("main > [id]").forEach((section) => seen.observe(section));
})();
