// Where a result is.

/** The middle of a bounding box in degrees; across ±180° xmin > xmax. */
export function centreOf({ xmin, ymin, xmax, ymax }) {
  const lon = (xmin + xmax + (xmin > xmax ? 360 : 0)) / 2;
  return { lon: lon > 180 ? lon - 360 : lon, lat: (ymin + ymax) / 2 };
}

/** 47.85000° N, 15.01000° E */
export function placeInWords({ lat, lon }) {
  const side = (value, [positive, negative]) => `${Math.abs(value).toFixed(5)}° ${value < 0 ? negative : positive}`;
  return `${side(lat, "NS")}, ${side(lon, "EW")}`;
}
