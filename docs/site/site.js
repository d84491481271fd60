// Makes of the phases of a kernel, which stand one below the other, pages to leaf through.
"use strict";

for (const kernel of document.querySelectorAll(".kernel .phases")) {
  const phases = [...kernel.querySelectorAll(".phase")];
  if (phases.length < 2) continue;

  const bar = document.createElement("div");
  bar.className = "leaf";
  const slider = Object.assign(document.createElement("input"),
                               {type: "range", min: 0, max: phases.length - 1, value: 0});
  const button = (text, label, step) => {
    const b = Object.assign(document.createElement("button"), {type: "button", textContent: text});
    b.setAttribute("aria-label", label);
    b.addEventListener("click", () => show(Number(slider.value) + step));
    return b;
  };
  const back = button("◀", "the phase before", -1), on = button("▶", "the next phase", 1);
  const said = document.createElement("span");
  const all = button("all", "all phases, one below the other", 0);
  slider.setAttribute("aria-label", "phase");
  bar.append(back, slider, on, said, all);
  kernel.before(bar);

  const show = (wanted) => {
    const i = Math.max(0, Math.min(phases.length - 1, wanted));
    slider.value = i;
    phases.forEach((phase, j) => { phase.hidden = j !== i; });
    said.textContent = `${phases[i].dataset.name} (${i + 1} of ${phases.length})`;
    back.disabled = i === 0;
    on.disabled = i === phases.length - 1;
  };
  all.addEventListener("click", () => {
    phases.forEach((phase) => { phase.hidden = false; });
    said.textContent = "all phases";
  });
  slider.addEventListener("input", () => show(Number(slider.value)));
  show(0);
}
