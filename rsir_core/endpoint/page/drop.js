// Files that are chosen, dropped anywhere, or pasted.

import { $ } from "./view.js";

/** Set up once. `onFile` is given the file, or undefined where there is none. */
export function setUpDrop(onFile) {
  $("file").addEventListener("change", () => onFile($("file").files[0]));
  window.addEventListener("paste", (event) => onFile(event.clipboardData.files[0]));
  window.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  window.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    onFile(event.dataTransfer.files[0]);
  });
}

/** Why an endpoint would not take a file, as an Error; null: it would. */
export function tooLarge(file, maxBytes) {
  if (file.size <= maxBytes) return null;
  return new Error(`${file.name} has ${Math.ceil(file.size / 1e6)} MB; this endpoint takes up to ${Math.floor(maxBytes / 1e6)} MB. Choose a smaller image.`);
}
