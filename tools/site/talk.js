// reveal.js with our settings. A slide that is too full gets a smaller picture, then smaller letters, so that nothing is cut off.
"use strict";

const HEIGHT = 720;

// a step is the height of pictures and the size of letters, both in pixels
const STEPS = [[540, 30], [480, 28], [430, 26], [380, 24], [340, 22], [300, 20], [270, 18], [240, 16], [210, 14], [180, 13]];

function fit(slide) {
  for (const formula of slide.querySelectorAll("math[display=block]"))
    for (let size = 108; size >= 60 && slide.scrollWidth > slide.clientWidth; size -= 4) formula.style.fontSize = size + "%";
  for (const [picture, letters] of STEPS) {
    slide.style.setProperty("--picture", picture + "px");
    slide.style.fontSize = letters + "px";
    for (const pre of slide.querySelectorAll("pre")) {
      // a printed table is as large as its longest line allows, but no larger than the text
      for (let size = letters; size >= 11; size -= 1) {
        pre.style.fontSize = size + "px";
        if (pre.scrollWidth <= pre.clientWidth) break;
      }
    }
    if (slide.scrollHeight <= HEIGHT) return;
  }
}

const fitAll = () => document.querySelectorAll(".slides section:not(.stack)").forEach(fit);
Reveal.on("ready", () => fit(Reveal.getCurrentSlide()));
Reveal.on("slidechanged", (event) => fit(event.currentSlide));
Reveal.on("pdf-ready", fitAll);
Reveal.initialize({
  width: 1280, height: HEIGHT, margin: 0.04, center: false, hash: true, slideNumber: "c/t", transition: "none",
  navigationMode: "linear", pdfSeparateFragments: false,
});
