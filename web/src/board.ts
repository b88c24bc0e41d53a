// SPDX-License-Identifier: Apache-2.0
// The drawing area: strokes by mouse, finger, pen or keyboard, or an uploaded picture in their place.
import type { Picture, Point, Stroke } from "./digit";

const kLine = 0.075; // of the side
const kStep = 1 / 20;
const kFineStep = 1 / 80;
const kMaxPicture = 400; // pixels a side; more tells a model of 28 nothing
const kInk = "#17202a";
const kPenColour = "#a52a5a";

const kMoves: Record<string, [number, number]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
};

export class Board {
  strokes: Stroke[] = [];
  picture: Picture | undefined;
  private shown: CanvasImageSource | undefined;
  private pointer: number | undefined;
  private pen: Point = { x: 0.3, y: 0.2 };
  private penDown = false;
  private byKeyboard = false;

  /** `changed` hears of each change, `said` is told what the keyboard's pen does. */
  constructor(
    private readonly canvas: HTMLCanvasElement,
    private readonly changed: () => void,
    private readonly said: (text: string) => void,
  ) {
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"] as const)
      canvas.addEventListener(end, () => {
        this.pointer = undefined;
      });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => {
      this.byKeyboard = this.penDown = false;
      this.show();
    });
    new ResizeObserver(() => this.show()).observe(canvas);
  }

  get empty(): boolean {
    return this.strokes.length === 0 && !this.picture;
  }

  clear(): void {
    this.strokes = [];
    this.picture = this.shown = undefined;
    this.penDown = false;
    this.update();
  }

  undo(): void {
    if (this.picture) return this.clear();
    this.strokes.pop();
    this.penDown = false;
    this.update();
  }

  /** Throws where the file is no picture that the browser can read. */
  async load(file: Blob): Promise<void> {
    const image = await createImageBitmap(file);
    const scale = Math.min(1, kMaxPicture / Math.max(image.width, image.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(image.width * scale));
    canvas.height = Math.max(1, Math.round(image.height * scale));
    const context = canvas.getContext("2d")!;
    context.imageSmoothingQuality = "high";
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    image.close();
    this.strokes = [];
    this.shown = canvas;
    this.picture = context.getImageData(0, 0, canvas.width, canvas.height);
    this.update();
  }

  private update(): void {
    this.show();
    this.changed();
  }

  private add(point: Point, fresh: boolean): void {
    if (this.picture) this.picture = this.shown = undefined;
    if (fresh) this.strokes.push([]);
    this.strokes[this.strokes.length - 1].push(point);
  }

  private at(event: PointerEvent): Point {
    const box = this.canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  }

  private begin(event: PointerEvent): void {
    if (this.pointer !== undefined || event.button !== 0) return;
    this.pointer = event.pointerId;
    this.canvas.setPointerCapture(event.pointerId);
    this.byKeyboard = this.penDown = false;
    this.add(this.at(event), true);
    this.update();
  }

  private move(event: PointerEvent): void {
    if (event.pointerId !== this.pointer) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const each of passed.length > 0 ? passed : [event]) this.add(this.at(each), false);
    this.update();
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const move = kMoves[event.key];
    if (move) {
      const step = event.shiftKey ? kFineStep : kStep;
      const inside = (v: number) => Math.min(1, Math.max(0, v));
      this.pen = { x: inside(this.pen.x + move[0] * step), y: inside(this.pen.y + move[1] * step) };
      if (this.penDown) this.add(this.pen, false);
      this.said(this.place());
    } else if (event.key === " ") {
      this.penDown = !this.penDown;
      if (this.penDown) this.add(this.pen, true);
      this.said(`Pen ${this.penDown ? "down" : "up"}, ${this.place()}`);
    } else if (event.key === "Backspace") {
      this.undo();
      this.said("Undone.");
    } else if (event.key === "Delete") {
      this.clear();
      this.said("Cleared.");
    } else if (event.key === "Enter") {
      this.canvas.closest("form")?.requestSubmit();
    } else {
      return;
    }
    event.preventDefault();
    this.byKeyboard = true;
    this.show();
    if (event.key === " " || (move && this.penDown)) this.changed();
  }

  private place(): string {
    const cell = (v: number) => Math.round(v / kStep);
    return `column ${cell(this.pen.x)}, row ${cell(this.pen.y)} of ${cell(1)}.`;
  }

  private show(): void {
    const side = Math.round(this.canvas.clientWidth * devicePixelRatio);
    if (side === 0) return;
    this.canvas.width = this.canvas.height = side;
    const context = this.canvas.getContext("2d")!;
    if (this.shown && this.picture) {
      const { width, height } = this.picture;
      const scale = side / Math.max(width, height);
      const [w, h] = [width * scale, height * scale];
      context.drawImage(this.shown, (side - w) / 2, (side - h) / 2, w, h);
    }
    context.lineWidth = kLine * side;
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = kInk;
    for (const stroke of this.strokes) {
      context.beginPath();
      context.moveTo(stroke[0].x * side, stroke[0].y * side);
      for (const p of stroke) context.lineTo(p.x * side, p.y * side);
      context.stroke();
    }
    if (!this.byKeyboard) return;
    context.beginPath();
    context.arc(this.pen.x * side, this.pen.y * side, 0.03 * side, 0, 2 * Math.PI);
    context.lineWidth = 0.012 * side;
    context.strokeStyle = context.fillStyle = kPenColour;
    if (this.penDown) context.fill();
    context.stroke();
  }
}
