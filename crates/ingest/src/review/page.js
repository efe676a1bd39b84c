"use strict";
(() => {
  const cases = [...document.querySelectorAll("figure[data-id]")];
  const place = "pfc review " + location.pathname;
  let said = {};
  try { said = JSON.parse(localStorage.getItem(place)) || {}; } catch { /* kept on this page alone */ }
  let at = Math.max(0, cases.findIndex((one) => !said[one.dataset.id]));

  const show = () => {
    let n = 0;
    cases.forEach((one, i) => {
      const answer = said[one.dataset.id];
      one.classList.toggle("now", i === at);
      one.classList.toggle("answered", Boolean(answer));
      n += answer ? 1 : 0;
      for (const button of one.querySelectorAll("button")) {
        button.setAttribute("aria-pressed", String(button.value === answer));
      }
    });
    document.getElementById("count").textContent = `${n} of ${cases.length} answered`;
    try { localStorage.setItem(place, JSON.stringify(said)); } catch { /* as above */ }
  };
  const move = (to) => {
    at = Math.min(Math.max(to, 0), cases.length - 1);
    show();
    cases[at]?.scrollIntoView({ block: "center" });
  };
  const answer = (i, value) => {
    if (value) said[cases[i].dataset.id] = value;
    else delete said[cases[i].dataset.id];
    move(value ? i + 1 : i);
  };
  const table = () => {
    const line = ({ dataset: { id, rest } }) => `${id},${said[id] || ""},${rest}`;
    return [document.getElementById("asked").dataset.header, ...cases.map(line)].join("\n") + "\n";
  };

  document.addEventListener("click", ({ target }) => {
    const i = cases.indexOf(target.closest("figure"));
    if (i >= 0 && target.closest("button")) answer(i, target.closest("button").value);
    else if (i >= 0) move(i);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !cases.length) return;
    const button = cases[at].querySelectorAll("button")[Number(event.key) - 1];
    if (button) answer(at, button.value);
    else if (event.key === "0") answer(at, null);
    else if (event.key === "ArrowRight" || event.key === "ArrowDown") move(at + 1);
    else if (event.key === "ArrowLeft" || event.key === "ArrowUp") move(at - 1);
    else return;
    event.preventDefault();
  });
  document.getElementById("download").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
    link.download = "review.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  });
  show();
})();
