// Degrees and where they are on a small map: equirectangular, true to shape at its middle latitude.

const STEPS = [60, 30, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];
const LINES = 4;  // at most, of each direction
const LEAST = 0.002;  // degrees, so that one point is no extent without size

/** Spans of longitude on this side and beyond ±180°. */
export const spans = ({ xmin, xmax }) => (xmin <= xmax ? [[xmin, xmax]] : [[xmin, 180], [-180, xmax]]);

/** What holds all of these; what crosses ±180° takes all longitudes. */
export function extentOf(boxes) {
  const over = boxes.some(({ xmin, xmax }) => xmin > xmax);
  return {
    xmin: over ? -180 : Math.min(...boxes.map((box) => box.xmin)),
    ymin: Math.min(...boxes.map((box) => box.ymin)),
    xmax: over ? 180 : Math.max(...boxes.map((box) => box.xmax)),
    ymax: Math.max(...boxes.map((box) => box.ymax)),
  };
}

/** A projection of an extent, with a margin, onto width × height units. */
export function projection(extent, width, height) {
  const x = (extent.xmin + extent.xmax) / 2;
  const y = (extent.ymin + extent.ymax) / 2;
  const squeeze = Math.max(Math.cos((y * Math.PI) / 180), 0.1);
  const across = Math.min(Math.max(extent.xmax - extent.xmin, LEAST) * 1.15, 360);
  const down = Math.min(Math.max(extent.ymax - extent.ymin, LEAST) * 1.15, 180);
  const scale = Math.min(width / (across * squeeze), height / down);
  const at = (lon, lat) => ({ x: width / 2 + (lon - x) * squeeze * scale, y: height / 2 - (lat - y) * scale });
  const from = (px, py) => ({
    lon: Math.min(Math.max(x + (px - width / 2) / (squeeze * scale), -180), 180),
    lat: Math.min(Math.max(y - (py - height / 2) / scale, -90), 90),
  });
  return { at, from, digits: Math.max(0, Math.ceil(Math.log10(scale))) };
}

/** Round numbers from low to high, few of them, with their labels. */
export function ticks(low, high, [positive, negative]) {
  const step = STEPS.findLast((one) => (high - low) / one <= LINES) ?? STEPS[0];
  const digits = Math.max(0, Math.ceil(-Math.log10(step)));
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9; i += 1) {
    const value = i * step;
    const side = Math.abs(value) < step / 2 ? "" : value > 0 ? ` ${positive}` : ` ${negative}`;
    found.push({ value, label: `${Math.abs(value).toFixed(digits)}°${side}` });
  }
  return found;
}
