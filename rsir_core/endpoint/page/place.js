// Where a result is, and what it is called.

/** The middle of a bounding box in degrees; across ±180° xmin > xmax. */
export function centreOf({ xmin, ymin, xmax, ymax }) {
  const lon = (xmin + xmax + (xmin > xmax ? 360 : 0)) / 2;
  return { lon: lon > 180 ? lon - 360 : lon, lat: (ymin + ymax) / 2 };
}

/** 47.85000° N, 15.01000° E */
export function placeInWords({ lat, lon }, digits = 5) {
  const side = (value, [positive, negative]) => `${Math.abs(value).toFixed(digits)}°\u00a0${value < 0 ? negative : positive}`;
  return `${side(lat, "NS")}, ${side(lon, "EW")}`;
}

/** An image's id for people: of a tile, its scene and where in that, or in which cell, it lies. */
export function nameOf(imageId) {
  const [, scene, x, y] = imageId.match(/^(.*)#xywh=(\d+),(\d+),\d+,\d+/s) ?? [];
  const [, ofScene, cell] = imageId.match(/^(.*)#cell=([0-3]+)/s) ?? [];
  if (cell !== undefined) return `${ofScene}, cell ${cell}`;
  return scene === undefined ? imageId : `${scene}, tile at ${x}, ${y}`;
}
