// SPDX-License-Identifier: Apache-2.0
// What is drawn or uploaded becomes what a model was trained on: for one channel a picture as MNIST has it (light on
// dark, in a box of 20/28 of the side, centred by mass), for three the picture itself, cut to the shape.

export interface Point {
  x: number;
  y: number;
}
/** A polyline in any coordinates, y downwards; one point is a dot. */
export type Stroke = Point[];

/** RGBA, row by row, as a canvas has it. */
export interface Picture {
  width: number;
  height: number;
  data: Uint8ClampedArray;
}

export interface Shape {
  channels: number;
  height: number;
  width: number;
}

const kBox = 20 / 28;
/** Half the width of a stroke, of MNIST's, in parts of the side. */
const kPen = 1.35 / 28;

/** A model that this page can ask: of pictures, not of series. */
export function takesPictures({ channels, height, width }: Shape): boolean {
  return (channels === 1 || channels === 3) && Math.min(height, width) >= 8;
}

function distance(p: Point, a: Point, b: Point): number {
  const dx = b.x - a.x;
  const dy = b.y - a.y;
  const length = dx * dx + dy * dy;
  const t = length > 0 ? Math.min(1, Math.max(0, ((p.x - a.x) * dx + (p.y - a.y) * dy) / length)) : 0;
  return Math.hypot(p.x - a.x - t * dx, p.y - a.y - t * dy);
}

function raster(strokes: Stroke[], width: number, height: number, radius: number): Uint8Array {
  const pixels = new Uint8Array(width * height);
  for (const stroke of strokes)
    for (let s = 0; s < stroke.length; s++) {
      const a = stroke[Math.max(0, s - 1)];
      const b = stroke[s];
      const reach = radius + 1;
      const clip = (v: number, end: number) => Math.min(end, Math.max(0, v));
      const top = clip(Math.floor(Math.min(a.y, b.y) - reach), height);
      const bottom = clip(Math.ceil(Math.max(a.y, b.y) + reach), height);
      const left = clip(Math.floor(Math.min(a.x, b.x) - reach), width);
      const right = clip(Math.ceil(Math.max(a.x, b.x) + reach), width);
      for (let y = top; y < bottom; y++)
        for (let x = left; x < right; x++) {
          const ink = radius + 0.5 - distance({ x: x + 0.5, y: y + 0.5 }, a, b);
          const value = Math.round(255 * Math.min(1, Math.max(0, ink)));
          pixels[y * width + x] = Math.max(pixels[y * width + x], value);
        }
    }
  return pixels;
}

/** The centre of mass of what is light; undefined of an empty picture. */
export function centreOf(pixels: ArrayLike<number>, width: number): Point | undefined {
  let mass = 0;
  let x = 0;
  let y = 0;
  for (let i = 0; i < pixels.length; i++) {
    mass += pixels[i];
    x += pixels[i] * ((i % width) + 0.5);
    y += pixels[i] * (Math.floor(i / width) + 0.5);
  }
  return mass > 0 ? { x: x / mass, y: y / mass } : undefined;
}

/** Drawn strokes as one channel of height x width; undefined where nothing is drawn. */
export function inkOfStrokes(strokes: Stroke[], { height, width }: Shape): Uint8Array | undefined {
  const points = strokes.flat();
  if (points.length === 0) return undefined;
  const side = Math.min(height, width);
  const radius = kPen * side;
  const xs = points.map((p) => p.x);
  const ys = points.map((p) => p.y);
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [top, bottom] = [Math.min(...ys), Math.max(...ys)];
  const scale = (kBox * side - 2 * radius) / Math.max(right - left, bottom - top, 1e-9);
  const placed = (middle: Point) =>
    strokes.map((stroke) =>
      stroke.map((p) => ({
        x: middle.x + (p.x - (left + right) / 2) * scale,
        y: middle.y + (p.y - (top + bottom) / 2) * scale,
      })),
    );
  const middle = { x: width / 2, y: height / 2 };
  const centre = centreOf(raster(placed(middle), width, height, radius), width) ?? middle;
  return raster(placed({ x: width - centre.x, y: height - centre.y }), width, height, radius);
}

/** Averages the part [left, left + w) x [top, top + h) of one plane into width x height. */
function resample(
  plane: Float32Array,
  planeWidth: number,
  [left, top, w, h]: [number, number, number, number],
  width: number,
  height: number,
): Float32Array {
  const planeHeight = plane.length / planeWidth;
  const out = new Float32Array(width * height);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const [x0, x1] = [left + (x * w) / width, left + ((x + 1) * w) / width];
      const [y0, y1] = [top + (y * h) / height, top + ((y + 1) * h) / height];
      let sum = 0;
      let area = 0;
      for (let v = Math.floor(y0); v < Math.min(y1, planeHeight); v++)
        for (let u = Math.floor(x0); u < Math.min(x1, planeWidth); u++) {
          const part = (Math.min(u + 1, x1) - Math.max(u, x0)) * (Math.min(v + 1, y1) - Math.max(v, y0));
          sum += part * plane[v * planeWidth + u];
          area += part;
        }
      out[y * width + x] = area > 0 ? sum / area : 0;
    }
  return out;
}

/** Channel c of a picture, transparent parts white, from 0 to 255. */
function planeOf(picture: Picture, c: number): Float32Array {
  const plane = new Float32Array(picture.width * picture.height);
  for (let i = 0; i < plane.length; i++) {
    const alpha = picture.data[4 * i + 3] / 255;
    plane[i] = 255 - alpha * (255 - picture.data[4 * i + c]);
  }
  return plane;
}

/** A digit of a picture, dark on light or light on dark, as `inkOfStrokes` makes it; undefined where it is blank. */
export function inkOfPicture(picture: Picture, { height, width }: Shape): Uint8Array | undefined {
  const [red, green, blue] = [0, 1, 2].map((c) => planeOf(picture, c));
  const grey = red.map((r, i) => 0.299 * r + 0.587 * green[i] + 0.114 * blue[i]);
  // The paper is what most of the border shows.
  const border = Array.from(grey).filter((_, i) => {
    const x = i % picture.width;
    const y = Math.floor(i / picture.width);
    return x === 0 || y === 0 || x === picture.width - 1 || y === picture.height - 1;
  });
  const paper = border.sort((a, b) => a - b)[border.length >> 1];
  const most = grey.reduce((far, v) => Math.max(far, Math.abs(v - paper)), 0);
  if (most < 32) return undefined;
  // Paper has grain: what is less than a quarter of the darkest ink away is paper.
  const ink = grey.map((v) => Math.max(0, (Math.abs(v - paper) / most - 0.25) / 0.75));
  let [left, top, right, bottom] = [picture.width, picture.height, 0, 0];
  ink.forEach((v, i) => {
    if (v < 0.25) return;
    left = Math.min(left, i % picture.width);
    right = Math.max(right, (i % picture.width) + 1);
    top = Math.min(top, Math.floor(i / picture.width));
    bottom = Math.max(bottom, Math.floor(i / picture.width) + 1);
  });
  const side = Math.min(height, width);
  const scale = (kBox * side) / Math.max(right - left, bottom - top);
  const w = Math.max(1, Math.round((right - left) * scale));
  const h = Math.max(1, Math.round((bottom - top) * scale));
  const small = resample(ink, picture.width, [left, top, right - left, bottom - top], w, h);
  const brightest = small.reduce((a, b) => Math.max(a, b), 0);
  const centre = centreOf(small, w) ?? { x: w / 2, y: h / 2 };
  const dx = Math.round(width / 2 - centre.x);
  const dy = Math.round(height / 2 - centre.y);
  const pixels = new Uint8Array(width * height);
  small.forEach((v, i) => {
    const x = (i % w) + dx;
    const y = Math.floor(i / w) + dy;
    if (x >= 0 && x < width && y >= 0 && y < height) pixels[y * width + x] = Math.round((255 * v) / brightest);
  });
  return pixels;
}

/** The middle of a picture in the order channels, rows, columns. */
export function cutOfPicture(picture: Picture, { channels, height, width }: Shape): Uint8Array {
  const scale = Math.min(picture.width / width, picture.height / height);
  const [w, h] = [width * scale, height * scale];
  const box: [number, number, number, number] = [(picture.width - w) / 2, (picture.height - h) / 2, w, h];
  const pixels = new Uint8Array(channels * height * width);
  for (let c = 0; c < channels; c++)
    pixels.set(
      resample(planeOf(picture, c), picture.width, box, width, height).map(Math.round),
      c * height * width,
    );
  return pixels;
}
