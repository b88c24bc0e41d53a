// SPDX-License-Identifier: Apache-2.0
// The page: joins the drawing area, the service, and what is shown of a query.
import { Board } from "./board";
import { cutOfPicture, inkOfPicture, inkOfStrokes, takesPictures } from "./digit";
import { type Model, quantise, type Roles, unpack, winner } from "./protocol";
import { type Listed, type Result, Service, ServiceError } from "./service";

const kRefreshMs = 10_000;
const kTokenPlace = "tercet-token";
/** Of the servers' noise: dark ends of a ramp to white. */
const kColours = [
  [122, 79, 0],
  [5, 85, 79],
  [138, 29, 72],
];

function find<T extends HTMLElement = HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  options: { text?: string; class?: string } = {},
  ...children: Node[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (options.text !== undefined) element.textContent = options.text;
  if (options.class) element.className = options.class;
  element.append(...children);
  return element;
}

const form = find<HTMLFormElement>("form");
const select = find<HTMLSelectElement>("model");
const token = find<HTMLInputElement>("token");
const ask = find<HTMLButtonElement>("ask");
const board = new Board(find<HTMLCanvasElement>("draw"), drawn, (text) => {
  find("draw-said").textContent = text;
});

let service: Service | undefined;
let listed: Listed[] = [];
const models = new Map<string, Model>(); // by digest
let asking = false;
let drawings = 0; // how often what is drawn has changed

// --- What is asked about.

function chosen(): Model | undefined {
  return models.get(select.value);
}

/** What the model gets, or undefined where nothing is drawn. */
function pixels(model: Model): Uint8Array | undefined {
  if (board.picture)
    return model.channels === 1 ? inkOfPicture(board.picture, model) : cutOfPicture(board.picture, model);
  const ink = inkOfStrokes(board.strokes, model);
  return ink && Uint8Array.from({ length: ink.length * model.channels }, (_, i) => ink[i % ink.length]);
}

function drawn(): void {
  drawings++;
  find("draw-hint").hidden = !board.empty;
  const count = board.strokes.length;
  find("draw-state").textContent = board.picture
    ? "A picture is loaded."
    : `${count === 0 ? "Nothing is" : count === 1 ? "One stroke is" : `${count} strokes are`} drawn.`;
  forget();
  const model = chosen();
  const given = model && pixels(model);
  if (model && given) showDigit(model, given);
  else blank("see-digit", "The picture that the network gets: nothing yet");
}

// --- What is shown.

function picture(id: string | HTMLCanvasElement, model: Model, label: string, colour: (i: number) => number[]): void {
  const canvas = typeof id === "string" ? find<HTMLCanvasElement>(id) : id;
  canvas.width = model.width;
  canvas.height = model.height;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  const context = canvas.getContext("2d")!;
  const image = context.createImageData(model.width, model.height);
  for (let i = 0; i < model.width * model.height; i++) image.data.set([...colour(i), 255], 4 * i);
  context.putImageData(image, 0, 0);
}

function blank(id: string, label: string): void {
  const canvas = find<HTMLCanvasElement>(id);
  canvas.width = canvas.height = 1;
  canvas.setAttribute("aria-label", label);
}

function showDigit(model: Model, given: Uint8Array): void {
  const largest = 2 ** model.bits - 1;
  const values = quantise(given, model.bits).map((q) => Math.round((Number(q) * 255) / largest));
  const plane = model.width * model.height;
  picture("see-digit", model, "The picture that the network gets", (i) =>
    [0, 1, 2].map((c) => values[i + plane * (c % model.channels)]),
  );
}

/** A share as noise, from the server's colour to white; of three channels in colours of its own. */
function showNoise(canvas: string | HTMLCanvasElement, model: Model, share: Uint8Array, server: number): void {
  const plane = model.width * model.height;
  const values = unpack(share, model.inputBits, plane * model.channels).map(
    (value) => Number((value << 8n) >> BigInt(model.inputBits)) / 255,
  );
  picture(canvas, model, `Noise: the share of server ${server}`, (i) =>
    kColours[server].map((dark, c) => {
      const v = values[i + plane * (c % model.channels)];
      return model.channels === 1 ? Math.round(dark + (255 - dark) * v) : Math.round(255 * v);
    }),
  );
}

function forget(): void {
  find("answer").hidden = true;
  find("answer-none").hidden = false;
  find("status").textContent = "";
  blank("see-e1", "The first share: nothing yet");
  blank("see-e2", "The second share: nothing yet");
  find("modulus").textContent = "";
  showSeen();
}

function labelOf(model: Model, i: number): string {
  return model.channels === 1 && model.classes === 10 ? String(i) : `Class ${i}`;
}

function count(bytes: number): string {
  return `${bytes.toLocaleString("en")} bytes`;
}

function hexView(label: string, bytes: Uint8Array): HTMLElement {
  const view = make("pre", {
    class: "hex",
    text: Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" "),
  });
  view.tabIndex = 0;
  view.setAttribute("role", "region");
  view.setAttribute("aria-label", label);
  return view;
}

/** Each server, and of a query's result what it saw. */
function showSeen(model?: Model, result?: Result): void {
  const names: Record<keyof Roles, string> = { helper: "helper", e1: "first evaluator", e2: "second evaluator" };
  const cards = (service?.deployment.servers ?? []).map(({ workers }, i) => {
    const roles = result?.query.roles;
    const role = roles && (Object.keys(names) as (keyof Roles)[]).find((name) => roles[name] === i)!;
    const card = make("article", { class: "card server" });
    card.append(
      make("h3", { text: `Server ${i}${role ? `, ${names[role]}` : ""}` }),
      make("p", { class: "where", text: new URL(workers[service!.worker].url).host + (i === service!.at ? " (this page's)" : "") }),
    );
    if (!model || !result || !role) {
      card.append(make("div", { class: "nothing", text: "Nothing yet" }));
    } else if (role === "helper") {
      card.append(
        make("div", { class: "nothing", text: "Nothing" }),
        make("p", {
          text: "0 bytes of your question and 0 of the answer. It made random numbers that the other two used up.",
        }),
      );
    } else {
      const which = role === "e1" ? 0 : 1;
      const share = result.query.shares[which];
      const canvas = make("canvas");
      showNoise(canvas, model, share, i);
      card.append(
        canvas,
        make("p", {
          text: `Of your question: ${count(share.length)}, sealed in ${count(result.query.sealed[which].length)}.`,
        }),
        hexView(`What server ${i} saw of the question`, share),
        make("p", { text: `Of the answer: ${count(result.answer.shares[which].length)}.` }),
        hexView(`What server ${i} saw of the answer`, result.answer.shares[which]),
      );
      if (role === "e1")
        card.append(
          make("p", { class: "help", text: "It handed on the other sealed part, which it cannot open." }),
        );
    }
    return card;
  });
  find("saw").replaceChildren(...cards);
}

function showResult(model: Model, given: Uint8Array, result: Result): void {
  const { query, answer } = result;
  const won = winner(answer.logits);
  find("verdict").textContent = labelOf(model, won);
  const scores = answer.logits.map(Number);
  const [least, most] = [Math.min(...scores), Math.max(...scores)];
  const rows = scores.map((score, i) => {
    const bar = make("div", { class: "bar" });
    bar.style.width = `${(100 * (score - least)) / Math.max(1, most - least)}%`;
    const name = make("th", { text: labelOf(model, i) });
    name.scope = "row";
    return make(
      "tr",
      { class: i === won ? "won" : "" },
      name,
      make("td", {}, make("div", { class: "track" }, bar)),
      make("td", { text: model.onlyClass ? (i === won ? "yes" : "") : String(answer.logits[i]) }),
    );
  });
  find("scores").querySelector("tbody")!.replaceChildren(...rows);
  const ms = (time: number) => `${time < 10 ? time.toFixed(1) : Math.round(time)} ms`;
  const times: [string, number][] = [
    ["In all", result.totalMs],
    ["Servers and network", result.waitMs],
    ["Splitting and sealing here", result.totalMs - result.waitMs],
  ];
  find("times").replaceChildren(
    ...times.map(([name, time]) => make("div", {}, make("dt", { text: name }), make("dd", { text: ms(time) }))),
  );
  find("answer-none").hidden = true;
  find("answer").hidden = false;
  showDigit(model, given);
  showNoise("see-e1", model, query.shares[0], query.roles.e1);
  showNoise("see-e2", model, query.shares[1], query.roles.e2);
  find("modulus").textContent = ` (modulo ${2n ** BigInt(model.inputBits)})`;
  showSeen(model, result);
  find("status").textContent = `The answer is ${labelOf(model, won)}, after ${ms(result.totalMs)}.`;
}

function complain(text: string): void {
  const alert = find("alert");
  alert.hidden = text === "";
  alert.textContent = text;
  if (text) alert.scrollIntoView({ block: "nearest" });
}

// --- What happens.

/** Reads how the servers are and what they serve; again and again, so that the page comes back with them. */
async function refresh(): Promise<void> {
  const health = find("health");
  const say = (state: string, text: string) => {
    if (health.dataset.state === state && health.textContent === text) return;
    health.dataset.state = state;
    health.textContent = text;
  };
  try {
    if (!service) {
      service = await Service.open(location.origin);
      showSeen();
    }
    const { up, lanes } = await service.health();
    say(up === lanes ? "up" : "down", up === lanes ? "All three servers are up" : "A server is away");
    await offer(service, await service.models());
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    say("down", error.trouble === "unreachable" ? "This server does not answer" : error.message);
  }
}

async function offer(from: Service, now: Listed[]): Promise<void> {
  if (select.options.length > 0 && JSON.stringify(now) === JSON.stringify(listed)) return;
  for (const entry of now) if (!models.has(entry.digest)) models.set(entry.digest, await from.model(entry));
  listed = now;
  const before = select.value;
  select.replaceChildren(
    ...now.map(({ name, version, digest, ready }) => {
      const fits = takesPictures(models.get(digest)!);
      const state = !fits ? " (takes no pictures)" : !ready ? " (not ready)" : "";
      const option = make("option", { text: `${name}, version ${version}${state}` });
      option.value = digest;
      option.disabled = !fits;
      return option;
    }),
  );
  if (now.length === 0) select.append(make("option", { text: "No model is served yet" }));
  if (now.some(({ digest }) => digest === before)) select.value = before;
  else {
    const first = now.find(({ digest }) => takesPictures(models.get(digest)!));
    if (first) select.value = first.digest;
  }
  select.disabled = now.length === 0;
  if (select.value !== before) drawn();
}

async function submit(): Promise<void> {
  if (asking) return;
  complain("");
  token.removeAttribute("aria-invalid");
  const wrongToken = (text: string) => {
    token.setAttribute("aria-invalid", "true");
    token.focus();
    complain(text);
  };
  const model = chosen();
  const given = model && pixels(model);
  if (!service || !model) return complain("There is no model to ask yet: the servers are away, or serve none.");
  if (!given) {
    find("draw").focus();
    return complain(board.empty ? "Draw a digit first, or upload a picture." : "The picture is blank.");
  }
  const secret = token.value.trim();
  if (!/^[\x21-\x7e]+$/.test(secret)) return wrongToken("Enter the access token that the operator gave you.");
  sessionStorage.setItem(kTokenPlace, secret);
  forget();
  const drawing = drawings;
  asking = true;
  ask.setAttribute("aria-disabled", "true");
  find("status").textContent = "The servers compute.";
  try {
    const result = await service.ask(model, given, secret, (why, attempt, tries) => {
      find("status").textContent = `${why.message.split(". ")[0]}. Asking again, ${attempt} of ${tries}.`;
    });
    if (drawing === drawings) showResult(model, given, result);
    else find("status").textContent = "The drawing has changed since. Ask again.";
  } catch (error) {
    find("status").textContent = "";
    if (!(error instanceof ServiceError)) complain(`Something in this page went wrong: ${error}`);
    else if (error.trouble === "token") wrongToken(error.message);
    else complain(error.message);
    void refresh();
  } finally {
    asking = false;
    ask.removeAttribute("aria-disabled");
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  void submit();
});
find("undo").addEventListener("click", () => board.undo());
find("clear").addEventListener("click", () => board.clear());
select.addEventListener("change", drawn);
find<HTMLInputElement>("picture").addEventListener("change", async (event) => {
  const input = event.target as HTMLInputElement;
  const file = input.files?.[0];
  if (!file) return;
  complain("");
  await board.load(file).catch(() => complain(`${file.name} is no picture that this browser can read.`));
  input.value = ""; // the same file may be chosen again
});
token.value = sessionStorage.getItem(kTokenPlace) ?? "";
document.addEventListener("visibilitychange", () => void (document.hidden || refresh()));
setInterval(() => void (document.hidden || asking || refresh()), kRefreshMs);
drawn();
void refresh();
