// SPDX-License-Identifier: Apache-2.0
// The page in real browsers against real servers: what a person does and sees.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, describe, test } from "node:test";
import puppeteer, { type Browser, type BrowserContext, type KeyInput, type Page, type Viewport } from "puppeteer-core";
import type { Listed } from "../src/service";
import { Service } from "../src/service";
import { HeldService } from "./held";
import { encodeBmp } from "./bmp";

const kWait = 20_000;
const kSeven: [number, number][] = [
  [0.28, 0.2],
  [0.72, 0.2],
  [0.45, 0.82],
];
const kOne: [number, number][] = [
  [0.5, 0.15],
  [0.5, 0.85],
];

let held: HeldService;
before(async () => {
  held = await HeldService.start();
});
after(() => held?.stop());

// --- The client without a browser: exactly what the network computes in the clear.

test("logits are those of the computation in the clear, whatever the number of images", async () => {
  process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0"; // each server's certificate is signed by itself
  const { urls, images, logits } = held.facts;
  const file = readFileSync(images);
  const pixels = new Uint8Array(file.buffer, file.byteOffset + 16);
  for (const [server, count] of [
    [0, 1],
    [1, 64],
    [2, 5],
  ]) {
    const service = await Service.open(urls[server]);
    const model = await service.model((await service.models())[0]);
    const { query, answer } = await service.ask(model, pixels.subarray(0, count * 784), held.facts.token);
    assert.deepEqual(answer.logits.map(Number), logits.slice(0, count).flat());
    if (count === 64) assert.ok(query.sealed[0].length > 65536 + 121, "one query should take several chunks");
  }
});

test("a model that is no longer served, and a name that has another one", async () => {
  const service = await Service.open(held.facts.urls[0]);
  const model = await service.model((await service.models())[0]);
  const image = new Uint8Array(784);
  await assert.rejects(service.ask({ ...model, version: "2" }, image, held.facts.token), { trouble: "gone" });
  await assert.rejects(service.model({ name: "None", version: "1" } as Listed), { trouble: "gone" });
  const other = { ...model, digest: new Uint8Array(32) };
  await assert.rejects(service.ask(other, image, held.facts.token), { trouble: "replaced" });
});

// --- In the browser.

class Visit {
  /** What the page complained about, and where it asked for anything. */
  readonly troubles: string[] = [];
  readonly asked = new Set<string>();
  private constructor(
    private readonly context: BrowserContext,
    readonly page: Page,
  ) {}

  static async to(browser: Browser, server = 0, viewport?: Viewport): Promise<Visit> {
    const context = await browser.createBrowserContext();
    const page = await context.newPage();
    const visit = new Visit(context, page);
    page.on("pageerror", (error) => visit.troubles.push(String(error)));
    page.on("console", (message) => {
      // A browser's own words about an answer such as 401 are no trouble of the page.
      if (message.type() === "error" && !/Failed to load resource/.test(message.text()))
        visit.troubles.push(message.text());
    });
    page.on("request", (request) => {
      const url = new URL(request.url());
      if (url.protocol !== "blob:" && url.protocol !== "data:") visit.asked.add(url.origin);
    });
    if (viewport) await page.setViewport(viewport);
    await page.goto(held.facts.urls[server]);
    await visit.sees("#health", "All three servers are up");
    return visit;
  }

  async end(): Promise<void> {
    await this.context.close();
    assert.deepEqual(this.troubles, []);
    assert.equal(this.asked.size, 1, `the page asked ${[...this.asked]}`);
  }

  text(selector: string): Promise<string> {
    return this.page.$eval(selector, (element) => (element as HTMLElement).innerText);
  }

  /** Waits until an element says something. */
  async sees(selector: string, text: string): Promise<void> {
    let says = "";
    for (const end = Date.now() + kWait; Date.now() < end; await new Promise((done) => setTimeout(done, 50)))
      if ((says = await this.text(selector)).includes(text)) return;
    assert.fail(`${selector} says "${says}", not "${text}"`);
  }

  /** Where a point of the drawing area is in the window, after scrolling there. */
  async board(): Promise<(point: [number, number]) => [number, number]> {
    const board = (await this.page.$("#draw"))!;
    await board.evaluate((element) => element.scrollIntoView());
    const box = (await board.boundingBox())!;
    return ([x, y]) => [box.x + x * box.width, box.y + y * box.height];
  }

  async draw(points: [number, number][]): Promise<void> {
    const at = await this.board();
    await this.page.mouse.move(...at(points[0]));
    await this.page.mouse.down();
    for (const point of points.slice(1)) await this.page.mouse.move(...at(point), { steps: 8 });
    await this.page.mouse.up();
  }

  async giveToken(token = held.facts.token): Promise<void> {
    await this.page.$eval("#token", (field) => {
      (field as HTMLInputElement).value = "";
    });
    await this.page.type("#token", token);
  }

  async press(key: KeyInput, times = 1): Promise<void> {
    for (let i = 0; i < times; i++) await this.page.keyboard.press(key);
  }

  focused(): Promise<string> {
    return this.page.evaluate(() => document.activeElement?.id ?? "");
  }
}

function launch(name: "chrome" | "firefox"): Promise<Browser> {
  const root = process.getuid?.() === 0;
  const variable = name === "chrome" ? "TERCET_CHROMIUM" : "TERCET_FIREFOX";
  const executablePath = process.env[variable];
  if (!executablePath) throw new Error(`${variable} is expected`);
  return puppeteer.launch({
    browser: name,
    executablePath,
    headless: true,
    acceptInsecureCerts: true,
    defaultViewport: null, // the window's; older Firefox has no other
    args: name === "chrome" ? ["--disable-dev-shm-usage", ...(root ? ["--no-sandbox"] : [])] : [],
  });
}

for (const name of ["chrome", "firefox"] as const)
  describe(`in ${name}`, () => {
    let browser: Browser;
    before(async () => {
      browser = await launch(name);
    });
    after(() => browser?.close());

    test("a 7 that is drawn is a 7, and each server saw noise", async () => {
      // Of all three servers, so of all roles.
      for (const server of [0, 1, 2]) {
        const visit = await Visit.to(browser, server);
        await visit.draw(kSeven);
        await visit.giveToken();
        await visit.page.click("#ask");
        await visit.sees("#status", "The answer is 7");
        assert.equal(await visit.text("#verdict"), "7");
        assert.equal(await visit.page.$$eval("#scores tbody tr", (rows) => rows.length), 10);
        assert.equal(await visit.page.$eval("#scores .won th", (cell) => cell.textContent), "7");
        const seen = await visit.page.$$eval(".server", (cards) => cards.map((card) => (card as HTMLElement).innerText));
        assert.match(seen[(server + 2) % 3], /helper[^]*0 bytes of your question/);
        assert.match(seen[server], /first evaluator[^]*handed on/);
        assert.match(seen[(server + 1) % 3], /second evaluator[^]*Of the answer/);
        await visit.end();
      }
    });

    test("the keyboard alone draws a 7 and asks", async () => {
      const visit = await Visit.to(browser);
      for (let i = 0; i < 10 && (await visit.focused()) !== "draw"; i++) await visit.press("Tab");
      assert.equal(await visit.focused(), "draw");
      await visit.press(" ");
      await visit.sees("#draw-said", "Pen down, column 6, row 4 of 20.");
      await visit.press("ArrowRight", 8);
      for (let i = 0; i < 6; i++) {
        await visit.press("ArrowDown", 2);
        await visit.press("ArrowLeft");
      }
      await visit.press(" ");
      await visit.sees("#draw-said", "Pen up");
      for (let i = 0; i < 10 && (await visit.focused()) !== "token"; i++) await visit.press("Tab");
      await visit.page.keyboard.type(held.facts.token);
      await visit.press("Enter");
      await visit.sees("#status", "The answer is 7");
      await visit.end();
    });

    test("a wrong token is said, and where", async () => {
      const visit = await Visit.to(browser);
      await visit.page.click("#ask");
      await visit.sees("#alert", "Draw a digit first");
      assert.equal(await visit.focused(), "draw");
      await visit.draw(kSeven);
      await visit.page.click("#ask");
      await visit.sees("#alert", "Enter the access token");
      await visit.giveToken("0123456789abcdef0123456789abcdef");
      await visit.page.click("#ask");
      await visit.sees("#alert", "does not know this access token");
      assert.equal(await visit.focused(), "token");
      assert.equal(await visit.page.$eval("#token", (field) => field.getAttribute("aria-invalid")), "true");
      await visit.giveToken();
      await visit.press("Enter");
      await visit.sees("#status", "The answer is 7");
      assert.equal(await visit.page.$eval("#alert", (alert) => (alert as HTMLElement).hidden), true);
      await visit.end();
    });
  });

describe("in chrome alone", () => {
  let browser: Browser;
  before(async () => {
    browser = await launch("chrome");
  });
  after(() => browser?.close());

  test("an accessibility checker finds nothing, in light, in dark, and on a phone", async () => {
    const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
    for (const [width, scheme] of [
      [1200, "light"],
      [1200, "dark"],
      [360, "light"],
    ] as const) {
      const visit = await Visit.to(browser, 0, { width, height: 900 });
      await visit.page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      await visit.page.evaluate(axe);
      const check = async (when: string) => {
        const found = await visit.page.evaluate(async () => {
          const { violations } = await (globalThis as unknown as { axe: typeof import("axe-core") }).axe.run();
          return violations.flatMap((v) => v.nodes.map((node) => `${v.id}: ${node.target} ${node.failureSummary}`));
        });
        assert.deepEqual(found, [], `${when}, ${width} pixels, ${scheme}`);
        const wide = await visit.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(wide <= 0, `${when}: the page is ${wide} pixels wider than the window of ${width}`);
      };
      await check("at first");
      await visit.page.click("#ask");
      await visit.sees("#alert", "Draw a digit first");
      await check("with an error");
      await visit.draw(kSeven);
      await visit.giveToken();
      await visit.page.click("#ask");
      await visit.sees("#status", "The answer is 7");
      await check("with an answer");
      await visit.end();
    }
  });

  test("the page can talk to its own server alone", async () => {
    const visit = await Visit.to(browser);
    const talks = (url: string) =>
      visit.page.evaluate(
        (url) =>
          new Promise<string>((done) => {
            document.addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
            fetch(url, { mode: "no-cors" }).then(
              () => done("answered"),
              () => setTimeout(() => done("failed"), 5000),
            );
          }),
        `${url}/v2/models`,
      );
    assert.equal(await talks(held.facts.urls[0]), "answered");
    assert.equal(await talks(held.facts.urls[1]), "connect-src");
    assert.match(visit.troubles.splice(0).join(), /Content Security Policy/);
    await visit.end();
  });

  test("a finger draws a 1", async () => {
    const visit = await Visit.to(browser, 0, { width: 360, height: 900, hasTouch: true });
    await visit.giveToken();
    const at = await visit.board();
    await visit.page.touchscreen.touchStart(...at(kOne[0]));
    for (let i = 1; i <= 8; i++)
      await visit.page.touchscreen.touchMove(...at([0.5, kOne[0][1] + (i / 8) * (kOne[1][1] - kOne[0][1])]));
    await visit.page.touchscreen.touchEnd();
    await visit.page.click("#ask");
    await visit.sees("#status", "The answer is 1");
    await visit.end();
  });

  test("a picture of dark ink on paper is read; what is no picture is refused", async () => {
    const visit = await Visit.to(browser);
    await visit.giveToken();
    const upload = (name: string, bytes: Uint8Array, type: string) =>
      visit.page.$eval(
        "#picture",
        (input, base64, name, type) => {
          const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
          const files = new DataTransfer();
          files.items.add(new File([bytes], name, { type }));
          (input as HTMLInputElement).files = files.files;
          input.dispatchEvent(new Event("change"));
        },
        Buffer.from(bytes).toString("base64"),
        name,
        type,
      );
    await upload("notes.png", new TextEncoder().encode("no picture"), "image/png");
    await visit.sees("#alert", "notes.png is no picture");
    // A thick 7 of grey ink on yellowish paper, off the middle.
    const [width, height] = [300, 200];
    const ink = (x: number, y: number) =>
      (y >= 30 && y < 42 && x >= 40 && x < 110) || (y >= 30 && y < 150 && Math.abs(x - 110 + (y - 30) * 0.35) < 7);
    const data = new Uint8Array(width * height * 3);
    for (let i = 0; i < width * height; i++)
      data.set(ink(i % width, Math.floor(i / width)) ? [60, 60, 90] : [238, 232, 205], 3 * i);
    await upload("seven.bmp", encodeBmp(data, width, height), "image/bmp");
    await visit.sees("#draw-state", "A picture is loaded.");
    await visit.page.click("#ask");
    await visit.sees("#status", "The answer is 7");
    await visit.end();
  });

  test("the model goes, and comes back", async () => {
    const visit = await Visit.to(browser);
    await visit.draw(kSeven);
    await visit.giveToken();
    await held.tell("take-out");
    await visit.page.click("#ask");
    await visit.sees("#alert", "This model is no longer served");
    await visit.sees("#model", "No model is served yet");
    await held.tell("put-in");
    await visit.page.reload();
    await visit.sees("#model", "MnistNet3, version 1");
    await visit.end();
  });

  test("another server is away, then this one, and both come back", async () => {
    const visit = await Visit.to(browser);
    await visit.draw(kSeven);
    await visit.giveToken();
    await held.tell("kill 2");
    await visit.page.click("#ask");
    await visit.sees("#status", "Asking again, 2 of 4");
    await visit.sees("#alert", "One of the three servers is away");
    await visit.sees("#health", "A server is away");
    await held.tell("start 2");
    await visit.page.click("#ask");
    await visit.sees("#status", "The answer is 7");
    await held.tell("kill 0");
    await visit.page.click("#ask");
    await visit.sees("#alert", "This server does not answer");
    await visit.sees("#health", "This server does not answer");
    await held.tell("start 0");
    await visit.page.click("#ask");
    await visit.sees("#status", "The answer is 7");
    await visit.end();
  });
});
