// Degrees.

const STEPS = [60, 30, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001];
const LINES = 5;  // at most, of each direction

/** A longitude between -180 and 180. */
export const wrapped = (lon) => (lon >= -180 && lon <= 180 ? lon : ((((lon + 180) % 360) + 360) % 360) - 180);

/** What holds all of these bounding boxes; what crosses ±180° takes all longitudes. */
export function extentOf(boxes) {
  const extent = { xmin: 180, ymin: 90, xmax: -180, ymax: -90 };
  for (const { xmin, ymin, xmax, ymax } of boxes) {
    const isOver = xmin > xmax;
    extent.xmin = Math.min(extent.xmin, isOver ? -180 : xmin);
    extent.xmax = Math.max(extent.xmax, isOver ? 180 : xmax);
    extent.ymin = Math.min(extent.ymin, ymin);
    extent.ymax = Math.max(extent.ymax, ymax);
  }
  return extent;
}

/** Round numbers from low to high, few of them, with their labels; beyond ±180° longitudes begin anew. */
export function ticks(low, high, [positive, negative]) {
  const step = STEPS.findLast((one) => (high - low) / one <= LINES) ?? STEPS[0];
  const digits = Math.max(0, Math.ceil(-Math.log10(step)));
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9; i += 1) {
    const value = i * step;
    const named = positive === "E" ? wrapped(value) : value;
    const side = Math.abs(named) < step / 2 ? "" : named > 0 ? ` ${positive}` : ` ${negative}`;
    found.push({ value, label: `${Math.abs(named).toFixed(digits)}°${side}` });
  }
  return found;
}
