// Demos, quick questions and the code switch of the reading edition. No network, no library.
"use strict";

// a demo: pictures drawn beforehand, one for each position of its controls that is kept
for (const demo of document.querySelectorAll(".demo")) {
  const { folder, positions } = JSON.parse(demo.querySelector("script").textContent);
  const kept = Object.keys(positions).map((key) => key.split("-").map(Number));
  const inputs = [...demo.querySelectorAll(".control input, .control select")];
  const picture = demo.querySelector(".over"); // lies over the first picture, and shows what is different
  const sentence = demo.querySelector(".sentence");
  const moved = demo.querySelector(".moved");
  const present = () => inputs.map((input) => Number(input.value));
  const words = (input, k) => (input.dataset.texts ? JSON.parse(input.dataset.texts)[k] : input.options[k].text);

  const show = (position) => {
    inputs.forEach((input, i) => {
      input.value = position[i];
      if (input.type !== "range") return;
      input.setAttribute("aria-valuetext", words(input, position[i]));
      input.nextElementSibling.value = words(input, position[i]);
    });
    const [file, said] = positions[position.join("-")];
    picture.src = folder + "/" + file;
    sentence.textContent = said;
  };

  // the kept position with this control as asked that differs least from what was asked; of equal ones the first
  const nearest = (asked, i) => {
    const differences = (position) => position.filter((k, j) => k !== asked[j]).length;
    const candidates = kept.filter((position) => position[i] === asked[i]);
    return candidates.reduce((best, position) => (differences(position) < differences(best) ? position : best));
  };

  inputs.forEach((input, i) =>
    input.addEventListener("input", () => {
      const asked = present();
      const position = nearest(asked, i);
      const others = inputs.filter((_, j) => position[j] !== asked[j]);
      show(position);
      moved.textContent = others.length
        ? "Moved as well: " + others.map((o) => o.labels[0].textContent + " to " + words(o, Number(o.value))).join(", ") + "."
        : "";
    })
  );
  for (const button of demo.querySelectorAll(".presets button"))
    button.addEventListener("click", () => {
      show(button.dataset.to.split("-").map(Number));
      moved.textContent = "";
    });
  // an arrow key moves the slider, not the slides
  demo.addEventListener("keydown", (event) => event.target.matches("input, select, button") && event.stopPropagation());
  // the other pictures come once the demo is in sight, so that a move is at once
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    for (const [file] of Object.values(positions)) new Image().src = folder + "/" + file;
  }).observe(demo);
  show(present().join("-") in positions ? present() : kept[0]); // a page that is gone back to keeps its sliders
}

// a living map: its state is a script beside the page, loaded once the map is in sight; a network that did not fit comes when wanted
window.oodMaps = {};
const models = {};
const load = (source, then) => {
  const script = document.createElement("script");
  Object.assign(script, { src: source, onload: then });
  document.head.append(script);
};
const bytesOf = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
window.oodArrived = (map, sent, ring, weights) => models[map].hear("msg:custom", { sent, ring }, [bytesOf(weights)]);

for (const figure of document.querySelectorAll(".living-map")) {
  const { folder, map } = figure.dataset;
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    load(`${folder}/map-${map}.js`, () => {
      const model = (models[map] = oodMap.still(oodMaps[map]));
      model.send = ({ network }) => network !== undefined && load(`${folder}/map-${map}-${network}.js`);
      figure.replaceChildren();
      oodMap.render({ model, el: figure });
    });
  }, { rootMargin: "400px" }).observe(figure);
  figure.addEventListener("keydown", (event) => event.stopPropagation()); // an arrow key moves the map, not the slides
}

for (const question of document.querySelectorAll(".question")) {
  const why = question.querySelector(".why");
  question.addEventListener("change", ({ target }) => {
    why.innerHTML = "<b>" + target.dataset.mark + "</b> " + target.dataset.why;
  });
  question.addEventListener("keydown", (event) => event.stopPropagation());
}

const toggle = document.querySelector(".code-toggle");
if (toggle) {
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    const hidden = document.body.classList.toggle("no-code");
    toggle.setAttribute("aria-pressed", hidden);
    toggle.textContent = hidden ? "Show code" : "Hide code";
  });
}

// the list of sections is open where there is room beside the text
const contents = document.querySelector(".toc");
if (contents) {
  const wide = matchMedia("(min-width: 72rem)");
  const set = () => (contents.open = wide.matches);
  wide.addEventListener("change", set);
  set();
}
