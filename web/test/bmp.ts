// SPDX-License-Identifier: Apache-2.0

/** A BMP file of RGB bytes, row by row. */
export function encodeBmp(rgb: Uint8Array, width: number, height: number): Uint8Array {
  const row = Math.ceil((3 * width) / 4) * 4;
  const file = Buffer.alloc(54 + row * height);
  file.write("BM");
  file.writeUInt32LE(file.length, 2);
  file.writeUInt32LE(54, 10);
  file.writeUInt32LE(40, 14);
  file.writeInt32LE(width, 18);
  file.writeInt32LE(-height, 22); // from top to bottom
  file.writeUInt16LE(1, 26);
  file.writeUInt16LE(24, 28);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < 3; c++) file[54 + y * row + 3 * x + 2 - c] = rgb[3 * (y * width + x) + c];
  return file;
}
