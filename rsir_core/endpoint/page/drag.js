// A rectangle drawn on an SVG element with mouse, pen or finger.

const LEAST = 4;  // pixels of the screen: a shorter way is a click

/** `onDraw` is given { x0, y0, x1, y1 } in the SVG's units while it is drawn, `onDone` once it is; null: given up. */
export function drawable(svg, { isOn = () => true, onDraw, onDone }) {
  svg.addEventListener("pointerdown", (down) => {
    if (down.button !== 0 || !isOn(down)) return;
    if (down.pointerType === "mouse") down.preventDefault();  // no selection; a finger may still become a click
    const ended = new AbortController();
    const { signal } = ended;
    const from = place(svg, down);
    let drawn = null;
    const end = (rectangle) => {
      ended.abort();
      if (drawn) onDone(rectangle);
    };
    svg.addEventListener("pointermove", (move) => {
      if (move.pointerId !== down.pointerId) return;
      if (!drawn && Math.hypot(move.clientX - down.clientX, move.clientY - down.clientY) < LEAST) return;
      svg.setPointerCapture(down.pointerId);
      const to = place(svg, move);
      drawn = { x0: Math.min(from.x, to.x), y0: Math.min(from.y, to.y), x1: Math.max(from.x, to.x), y1: Math.max(from.y, to.y) };
      onDraw(drawn);
    }, { signal });
    svg.addEventListener("pointerup", () => end(drawn), { signal });
    svg.addEventListener("pointercancel", () => end(null), { signal });
    window.addEventListener("keydown", (key) => key.key === "Escape" && end(null), { signal });
  });
}

/** Where a pointer is, in the SVG's units, inside its view box. */
function place(svg, event) {
  const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  const box = svg.viewBox.baseVal;
  return { x: Math.min(Math.max(x, box.x), box.x + box.width), y: Math.min(Math.max(y, box.y), box.y + box.height) };
}
