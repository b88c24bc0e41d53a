// SPDX-License-Identifier: Apache-2.0
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { centreOf, cutOfPicture, inkOfPicture, inkOfStrokes, type Picture, type Stroke, takesPictures } from "../src/digit";

const kMnist = { channels: 1, height: 28, width: 28 };
const kSeven: Stroke[] = [
  [
    { x: 0.3, y: 0.2 },
    { x: 0.7, y: 0.2 },
    { x: 0.45, y: 0.8 },
  ],
];

function transformed(strokes: Stroke[], scale: number, dx: number, dy: number): Stroke[] {
  return strokes.map((stroke) => stroke.map(({ x, y }) => ({ x: scale * x + dx, y: scale * y + dy })));
}

/** Left, top, right and bottom of what is at least half lit. */
function boxOf(pixels: Uint8Array, width: number): number[] {
  const lit = [...pixels.keys()].filter((i) => pixels[i] >= 128);
  const xs = lit.map((i) => i % width);
  const ys = lit.map((i) => Math.floor(i / width));
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs) + 1, Math.max(...ys) + 1];
}

function near(actual: number, wanted: number, by: number, what: string): void {
  assert.ok(Math.abs(actual - wanted) <= by, `${what}: ${actual}, not ${wanted}`);
}

function pictureOf(width: number, height: number, colour: (x: number, y: number) => number[]): Picture {
  const data = new Uint8ClampedArray(4 * width * height);
  for (let i = 0; i < width * height; i++) {
    const [r, g, b, a = 255] = colour(i % width, Math.floor(i / width));
    data.set([r, g, b, a], 4 * i);
  }
  return { width, height, data };
}

describe("strokes", () => {
  test("fill a box of 20 pixels, centred by mass, in light on dark", () => {
    const pixels = inkOfStrokes(kSeven, kMnist)!;
    assert.equal(pixels.length, 784);
    assert.equal(Math.max(...pixels), 255);
    assert.equal(pixels[0], 0);
    const [left, top, right, bottom] = boxOf(pixels, 28);
    near(Math.max(right - left, bottom - top), 20, 1, "the digit's height");
    const centre = centreOf(pixels, 28)!;
    near(centre.x, 14, 0.3, "the centre's column");
    near(centre.y, 14, 0.3, "the centre's row");
  });

  test("are the same wherever and however large they are drawn", () => {
    const pixels = inkOfStrokes(kSeven, kMnist)!;
    for (const [scale, dx, dy] of [
      [0.2, 0, 0],
      [3, -5, 7],
    ]) {
      const other = inkOfStrokes(transformed(kSeven, scale, dx, dy), kMnist)!;
      other.forEach((value, i) => near(value, pixels[i], 1, `pixel ${i}`));
    }
  });

  test("of one point are a dot in the middle; none are nothing", () => {
    const pixels = inkOfStrokes([[{ x: 0.9, y: 0.1 }]], kMnist)!;
    const [left, top, right, bottom] = boxOf(pixels, 28);
    assert.ok(right - left <= 4 && bottom - top <= 4 && left > 10 && top > 10);
    assert.equal(inkOfStrokes([], kMnist), undefined);
    assert.equal(inkOfStrokes([[]], kMnist), undefined);
  });

  test("fit other shapes", () => {
    const pixels = inkOfStrokes(kSeven, { channels: 1, height: 16, width: 40 })!;
    assert.equal(pixels.length, 640);
    const centre = centreOf(pixels, 40)!;
    near(centre.x, 20, 0.4, "the centre's column");
    near(centre.y, 8, 0.4, "the centre's row");
  });
});

describe("pictures of a digit", () => {
  const inked = (x: number, y: number) => x >= 20 && x < 26 && y >= 10 && y < 70;
  const onPaper = inkOfPicture(pictureOf(100, 80, (x, y) => (inked(x, y) ? [30, 30, 60] : [240, 235, 210])), kMnist)!;

  test("are as strokes are, dark on light as light on dark, and through transparency", () => {
    const [left, top, right, bottom] = boxOf(onPaper, 28);
    assert.deepEqual([right - left, bottom - top], [2, 20]);
    near(centreOf(onPaper, 28)!.x, 14, 0.51, "the centre's column");
    near(centreOf(onPaper, 28)!.y, 14, 0.51, "the centre's row");
    assert.equal(Math.max(...onPaper), 255);
    assert.equal(onPaper[0], 0);
    for (const colours of [
      [[250, 250, 250], [10, 10, 10]],
      [[0, 0, 0, 255], [0, 0, 0, 0]],
    ])
      assert.deepEqual(inkOfPicture(pictureOf(100, 80, (x, y) => colours[inked(x, y) ? 0 : 1]), kMnist), onPaper);
  });

  test("do not take the paper's grain for ink, and blank ones are nothing", () => {
    const grain = (x: number, y: number) => ((x * 7 + y * 13) % 5) * 4;
    const noisy = pictureOf(100, 80, (x, y) => (inked(x, y) ? [30, 30, 60] : [240, 235, 210]).map((v) => v - grain(x, y)));
    assert.deepEqual(boxOf(inkOfPicture(noisy, kMnist)!, 28), boxOf(onPaper, 28));
    assert.equal(inkOfPicture(pictureOf(50, 50, (x, y) => [240 - grain(x, y), 235, 210]), kMnist), undefined);
  });
});

test("pictures of three channels are cut to the middle, channel after channel", () => {
  // Left and right thirds do not fit the square.
  const picture = pictureOf(96, 32, (x) => (x < 32 ? [255, 0, 0] : x < 64 ? [10, 20, 30] : [0, 0, 255]));
  const pixels = cutOfPicture(picture, { channels: 3, height: 16, width: 16 });
  assert.deepEqual([...new Set(pixels.subarray(0, 256))], [10]);
  assert.deepEqual([...new Set(pixels.subarray(256, 512))], [20]);
  assert.deepEqual([...new Set(pixels.subarray(512))], [30]);
  const small = cutOfPicture(pictureOf(4, 4, (x, y) => [16 * (4 * y + x), 0, 0]), { channels: 3, height: 8, width: 8 });
  assert.deepEqual([...small.subarray(0, 8)], [0, 0, 16, 16, 32, 32, 48, 48]);
});

test("only models of pictures are asked", () => {
  assert.ok(takesPictures(kMnist));
  assert.ok(takesPictures({ channels: 3, height: 32, width: 32 }));
  assert.ok(!takesPictures({ channels: 1, height: 1, width: 180 }));
  assert.ok(!takesPictures({ channels: 2, height: 28, width: 28 }));
});
