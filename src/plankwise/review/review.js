// Keys of the page: a class by its key, n for a new class, m for the note, u to take back, arrows to move.
"use strict";
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const writing = event.target.matches("input, textarea");
  if (event.key === "Escape" && writing) {
    event.target.blur();
    return;
  }
  if (writing) return;
  const chosen = [...document.querySelectorAll("button[data-key]")].find((each) => each.dataset.key === event.key);
  const field = { n: "new", m: "note" }[event.key];
  const link = { ArrowLeft: "previous", ArrowRight: "next" }[event.key];
  if (chosen) {
    chosen.click();
  } else if (field) {
    document.getElementById(field)?.focus();
  } else if (link) {
    document.getElementById(link)?.click();
  } else {
    return;
  }
  event.preventDefault();
});
