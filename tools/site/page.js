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

// a living map: its state is a script beside the page, loaded once the map is in sight. Where the asked position is not kept, the
// controls go to the kept one that differs least, with the control that was moved as asked if there is such a one
window.oodMaps = {};
const kept = ({ spec, notes }) => {
  const places = spec.controls.reduce((all, { options }) => all.flatMap((place) => options.map((_, k) => [...place, k])), [[]]);
  const there = (place) => spec.networks[spec.places[place.filter((_, j) => j !== spec.zoomed).join(",")]].at !== null;
  return places.filter((place) => there(place) && (!spec.speaks || place.join(",") in notes));
};
const nearest = (places, asked, before) => {
  const far = (place) => place.reduce((sum, k, j) => sum + (k === asked[j] ? 0 : 100 + Math.abs(k - asked[j])), 0);
  const moved = asked.map((k, j) => j).filter((j) => asked[j] !== before[j]);
  const same = places.filter((place) => moved.length !== 1 || place[moved[0]] === asked[moved[0]]);
  return same.length ? same.reduce((best, place) => (far(place) < far(best) ? place : best)) : before;
};

for (const figure of document.querySelectorAll(".living-map[data-map]")) {
  const { folder, map } = figure.dataset, said = figure.querySelector(".moved");
  const show = () => {
    const state = oodMaps[map], model = oodMap.still(state), places = kept(state), { set } = model;
    for (const note of Object.values(state.notes)) if (note.picture) note.picture = `${folder}/${note.picture}`;
    model.set = (name, asked) => {
      if (name !== "position") return set(name, asked);
      const before = model.get(name), to = nearest(places, asked, before), option = (j, k) => state.spec.controls[j].options[k];
      const others = to.flatMap((k, j) => (k === asked[j] ? [] : [`${state.spec.controls[j].label} to ${option(j, k)}`]));
      said.textContent = !others.length ? "" : to !== before ? `Moved as well: ${others.join(", ")}.`
        : `Only in the notebook: ${asked.flatMap((k, j) => (k === before[j] ? [] : [`${state.spec.controls[j].label} ${option(j, k)}`])).join(", ")}.`;
      set(name, to);
    };
    const root = figure.querySelector(".still");
    root.replaceChildren();
    oodMap.render({ model, el: root });
  };
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    const script = Object.assign(document.createElement("script"), { src: `${folder}/map-${map}.js`, onload: show });
    document.head.append(script);
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
