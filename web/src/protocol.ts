// SPDX-License-Identifier: Apache-2.0
// The formats of docs/service.md: shares, sealing, queries and answers. Nothing here touches the page or the network.
import sodium from "libsodium-wrappers";

export const ready: Promise<void> = sodium.ready;

const kChunkBytes = 65536;
const kTagBytes = 17;
const kBoxBytes = 80;
const kHeadBytes = 104;

/** One process of a server; most servers have one, with all lanes. */
export interface Worker {
  url: string;
  lanes: number[];
}

export interface Deployment {
  /** The i-th workers of all servers have the same lanes. */
  servers: { workers: Worker[]; sealingKey: Uint8Array }[];
  lanes: number;
  maxImages: number;
}

/** What a client must know of a model; the document of GET /v2/models/NAME. */
export interface Model {
  name: string;
  version: string;
  digest: Uint8Array;
  channels: number;
  height: number;
  width: number;
  bits: number;
  /** The rings that images and results are shared in. */
  inputBits: number;
  outputBits: number;
  classes: number;
  /** The sum of the result's shares is 0 for the class and 1 for the others, in place of scores. */
  onlyClass: boolean;
}

/** A document or message that is not what docs/service.md says. */
export class FormatError extends Error {}

export interface Roles {
  helper: number;
  e1: number;
  e2: number;
}

export function rolesOf(lane: number): Roles {
  const helper = lane % 3;
  return { helper, e1: (helper + 1) % 3, e2: (helper + 2) % 3 };
}

function field(document: unknown, name: string): unknown {
  const value =
    typeof document === "object" && document !== null ? (document as Record<string, unknown>)[name] : undefined;
  if (value === undefined) throw new FormatError(`"${name}" is missing`);
  return value;
}

function text(document: unknown, name: string): string {
  const value = field(document, name);
  if (typeof value !== "string") throw new FormatError(`"${name}" is no text`);
  return value;
}

function whole(document: unknown, name: string, least: number, most: number): number {
  const value = field(document, name);
  if (!Number.isInteger(value) || (value as number) < least || (value as number) > most)
    throw new FormatError(`"${name}" is ${JSON.stringify(value)}, a number from ${least} to ${most} expected`);
  return value as number;
}

function list(document: unknown, name: string, size: number): unknown[] {
  const value = field(document, name);
  if (!Array.isArray(value) || value.length !== size)
    throw new FormatError(`"${name}" is no list of ${size}`);
  return value;
}

function hex(document: unknown, name: string, bytes: number): Uint8Array {
  const value = text(document, name);
  if (!new RegExp(`^[0-9a-f]{${2 * bytes}}$`).test(value))
    throw new FormatError(`"${name}" is no text of ${2 * bytes} hex digits`);
  return sodium.from_hex(value);
}

/** Of "0-3" or "0,2,5-7". */
function parseLanes(given: string, lanes: number): number[] {
  return given.split(",").flatMap((range) => {
    const [, first, last = first] = /^(\d{1,2})(?:-(\d{1,2}))?$/.exec(range) ?? [];
    if (first === undefined || Number(last) < Number(first) || Number(last) >= lanes)
      throw new FormatError(`"lanes" is ${JSON.stringify(given)}, lanes from 0 to ${lanes - 1} expected`);
    return Array.from({ length: Number(last) - Number(first) + 1 }, (_, i) => Number(first) + i);
  });
}

function parseWorkers(server: unknown, lanes: number): Worker[] {
  const { workers } = server as { workers?: unknown };
  if (workers === undefined) return [{ url: text(server, "url"), lanes: parseLanes(`0-${lanes - 1}`, lanes) }];
  if (!Array.isArray(workers) || workers.length === 0) throw new FormatError('"workers" is no list of workers');
  return workers.map((worker) => ({ url: text(worker, "url"), lanes: parseLanes(text(worker, "lanes"), lanes) }));
}

/** The lanes that a server's worker has and whose first evaluator it is, so that it takes their queries. */
export function lanesAt(deployment: Deployment, server: number, worker: number): number[] {
  return deployment.servers[server].workers[worker].lanes.filter((lane) => rolesOf(lane).e1 === server);
}

export function parseDeployment(document: unknown): Deployment {
  const given = document as { lanes?: unknown; max_images?: unknown };
  const lanes = given.lanes === undefined ? 3 : whole(document, "lanes", 1, 64);
  return {
    servers: list(document, "servers", 3).map((server) => ({
      workers: parseWorkers(server, lanes),
      sealingKey: hex(server, "sealing_key", 32),
    })),
    lanes,
    maxImages: given.max_images === undefined ? 64 : whole(document, "max_images", 1, 4096),
  };
}

export function parseModel(document: unknown): Model {
  const shape = list(list(document, "inputs", 1)[0], "shape", 4).map(Number);
  if (!shape.slice(1).every((side) => Number.isInteger(side) && side >= 1 && side <= 65536))
    throw new FormatError('"shape" is none of [-1, channels, height, width]');
  const output = text(document, "output");
  if (output !== "logits" && output !== "class") throw new FormatError('"output" is neither "logits" nor "class"');
  return {
    name: text(document, "name"),
    version: text(document, "version"),
    digest: hex(document, "digest", 32),
    channels: shape[1],
    height: shape[2],
    width: shape[3],
    bits: whole(document, "bits", 1, 8),
    inputBits: whole(document, "input_bits", 2, 64),
    outputBits: whole(document, "output_bits", 2, 64),
    classes: whole(document, "classes", 1, 256),
    onlyClass: output === "class",
  };
}

/** Bytes that `count` elements of `bits` bits take. */
export function packedBytes(count: number, bits: number): number {
  return Math.ceil((count * bits) / 8);
}

/** Element i becomes bits [i bits, (i + 1) bits) of the bytes, least significant first. */
export function pack(values: readonly bigint[], bits: number): Uint8Array {
  const bytes = new Uint8Array(packedBytes(values.length, bits));
  let kept = 0n;
  let have = 0;
  let at = 0;
  for (const value of values) {
    kept |= BigInt.asUintN(bits, value) << BigInt(have);
    for (have += bits; have >= 8; have -= 8) {
      bytes[at++] = Number(kept & 255n);
      kept >>= 8n;
    }
  }
  if (have > 0) bytes[at] = Number(kept);
  return bytes;
}

export function unpack(bytes: Uint8Array, bits: number, count: number): bigint[] {
  if (bytes.length !== packedBytes(count, bits)) throw new FormatError(`${bytes.length} bytes of ${count} values`);
  const values: bigint[] = [];
  let kept = 0n;
  let have = 0;
  for (const byte of bytes) {
    kept |= BigInt(byte) << BigInt(have);
    for (have += 8; have >= bits && values.length < count; have -= bits) {
      values.push(BigInt.asUintN(bits, kept));
      kept >>= BigInt(bits);
    }
  }
  return values;
}

export function seal(to: Uint8Array, context: Uint8Array, plain: Uint8Array): Uint8Array {
  const key = sodium.crypto_secretstream_xchacha20poly1305_keygen();
  const box = sodium.crypto_box_seal(key, to);
  const { state, header } = sodium.crypto_secretstream_xchacha20poly1305_init_push(key);
  sodium.memzero(key);
  const parts = [box, header];
  let from = 0;
  do {
    const chunk = plain.subarray(from, from + kChunkBytes);
    from += chunk.length;
    const tag =
      from === plain.length
        ? sodium.crypto_secretstream_xchacha20poly1305_TAG_FINAL
        : sodium.crypto_secretstream_xchacha20poly1305_TAG_MESSAGE;
    parts.push(sodium.crypto_secretstream_xchacha20poly1305_push(state, chunk, context, tag));
  } while (from < plain.length);
  return concat(parts);
}

/** Undefined where it is not sealed to this key in this context, or is not whole. */
export function unseal(keys: KeyPair, context: Uint8Array, sealed: Uint8Array): Uint8Array | undefined {
  if (sealed.length < kHeadBytes + kTagBytes) return undefined;
  const parts: Uint8Array[] = [];
  try {
    const key = sodium.crypto_box_seal_open(sealed.subarray(0, kBoxBytes), keys.publicKey, keys.privateKey);
    const state = sodium.crypto_secretstream_xchacha20poly1305_init_pull(sealed.subarray(kBoxBytes, kHeadBytes), key);
    sodium.memzero(key);
    for (let from = kHeadBytes, final = false; !final; ) {
      const chunk = sealed.subarray(from, from + kChunkBytes + kTagBytes);
      from += chunk.length;
      const pulled = sodium.crypto_secretstream_xchacha20poly1305_pull(state, chunk, context);
      if (!pulled) return undefined;
      final = pulled.tag === sodium.crypto_secretstream_xchacha20poly1305_TAG_FINAL;
      if (final !== (from === sealed.length)) return undefined;
      parts.push(pulled.message);
    }
  } catch {
    return undefined;
  }
  return concat(parts);
}

export interface KeyPair {
  publicKey: Uint8Array;
  privateKey: Uint8Array;
}

/** What both sealed parts of a query are bound to. */
export interface Head {
  id: Uint8Array;
  digest: Uint8Array;
  lane: number;
  images: number;
  timeMs: number;
  reply: Uint8Array;
}

export function contextOf(kind: "query" | "answer", head: Head, server: number): Uint8Array {
  const bytes = new Uint8Array(113);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode(`tercet ${kind} 1`));
  bytes.set(head.id, 16);
  bytes.set(head.digest, 32);
  view.setUint32(64, head.lane, true);
  view.setUint32(68, head.images, true);
  view.setBigUint64(72, BigInt(head.timeMs), true);
  bytes.set(head.reply, 80);
  bytes[112] = server;
  return bytes;
}

export function laneOf(id: Uint8Array, lanes: number): number {
  return Number(new DataView(id.buffer, id.byteOffset).getBigUint64(0, true) % BigInt(lanes));
}

/** The network's input of bytes: round(p (2^bits - 1) / 255). */
export function quantise(pixels: Uint8Array, bits: number): bigint[] {
  const largest = 2 ** bits - 1;
  return Array.from(pixels, (p) => BigInt(Math.floor((p * largest + 127) / 255)));
}

/** JSON of `jsonBytes` bytes, and then the two sealed parts. */
export interface Message {
  jsonBytes: number;
  body: Uint8Array;
}

export interface Answer {
  /** Image after image; with `onlyClass` 1 for the class and 0 for the others. */
  logits: bigint[];
  /** E1's and E2's share of them, as the servers know them. */
  shares: [Uint8Array, Uint8Array];
}

/** One query, asked once: a fresh number, fresh shares and a fresh one-time key. */
export class Query {
  readonly head: Head;
  readonly roles: Roles;
  /** E1's and E2's share of the images, packed: what each of them sees. */
  readonly shares: [Uint8Array, Uint8Array];
  readonly sealed: [Uint8Array, Uint8Array];
  private readonly keys: KeyPair;
  private readonly model: Model;

  /**
   * Of bytes in the order image, channel, row, column. With `lanes`, of one of these.
   * FormatError where there is none, or the deployment allows no such query.
   */
  constructor(deployment: Deployment, model: Model, pixels: Uint8Array, lanes?: number[], timeMs = Date.now()) {
    this.model = model;
    const images = pixels.length / (model.channels * model.height * model.width);
    if (!Number.isInteger(images) || images < 1 || images > deployment.maxImages)
      throw new FormatError(`${pixels.length} bytes are not 1 to ${deployment.maxImages} images`);
    if (lanes?.length === 0) throw new FormatError("there is no lane for the query");
    let id: Uint8Array;
    let lane: number;
    do {
      id = sodium.randombytes_buf(16);
      lane = laneOf(id, deployment.lanes);
    } while (lanes && !lanes.includes(lane));
    this.roles = rolesOf(lane);
    this.keys = sodium.crypto_box_keypair();
    this.head = {
      id,
      digest: model.digest,
      lane,
      images,
      timeMs,
      reply: this.keys.publicKey,
    };
    const bits = model.inputBits;
    const mine = unpack(sodium.randombytes_buf(packedBytes(pixels.length, bits)), bits, pixels.length);
    const other = quantise(pixels, model.bits).map((q, i) => q - mine[i]);
    this.shares = [pack(mine, bits), pack(other, bits)];
    const sealFor = (server: number, share: Uint8Array) =>
      seal(deployment.servers[server].sealingKey, contextOf("query", this.head, server), share);
    this.sealed = [sealFor(this.roles.e1, this.shares[0]), sealFor(this.roles.e2, this.shares[1])];
  }

  request(): Message {
    const tensor = (name: string, part: Uint8Array) => ({
      name,
      datatype: "UINT8",
      shape: [part.length],
      parameters: { binary_data_size: part.length },
    });
    const json = new TextEncoder().encode(
      JSON.stringify({
        id: sodium.to_hex(this.head.id),
        parameters: {
          model_digest: sodium.to_hex(this.head.digest),
          lane: this.head.lane,
          images: this.head.images,
          time_ms: this.head.timeMs,
          reply_key: sodium.to_hex(this.head.reply),
        },
        inputs: [tensor("share_e1", this.sealed[0]), tensor("share_e2", this.sealed[1])],
      }),
    );
    return { jsonBytes: json.length, body: concat([json, ...this.sealed]) };
  }

  /** FormatError when the answer is not this query's, or not of both servers. */
  open(answer: Message): Answer {
    const { id, parts } = parseAnswer(answer);
    if (id !== sodium.to_hex(this.head.id)) throw new FormatError("the answer is that of another query");
    return openParts(this.keys, this.head, this.model, parts);
  }
}

/** Opens both parts of an answer and adds the shares up. */
export function openParts(keys: KeyPair, head: Head, model: Model, parts: [Uint8Array, Uint8Array]): Answer {
  const { e1, e2 } = rolesOf(head.lane);
  const values = model.classes * head.images;
  const open = (server: number, part: Uint8Array) => {
    const share = unseal(keys, contextOf("answer", head, server), part);
    if (!share || share.length !== packedBytes(values, model.outputBits))
      throw new FormatError(`the answer's part of server ${server} is not of this query`);
    return share;
  };
  const shares: [Uint8Array, Uint8Array] = [open(e1, parts[0]), open(e2, parts[1])];
  const [mine, other] = shares.map((share) => unpack(share, model.outputBits, values));
  const logits = mine.map((value, i) => BigInt.asIntN(model.outputBits, value + other[i]));
  return { logits: model.onlyClass ? logits.map((value) => 1n - value) : logits, shares };
}

function parseAnswer({ body, jsonBytes }: Message): { id: string; parts: [Uint8Array, Uint8Array] } {
  let document: unknown;
  try {
    document = JSON.parse(new TextDecoder().decode(body.subarray(0, jsonBytes)));
  } catch {
    throw new FormatError("the answer does not begin with JSON");
  }
  const [first, second] = list(document, "outputs", 2).map((tensor, i) => {
    if (text(tensor, "name") !== `share_e${i + 1}`) throw new FormatError(`output ${i} is not share_e${i + 1}`);
    return whole(field(tensor, "parameters"), "binary_data_size", 0, body.length);
  });
  if (jsonBytes + first + second !== body.length) throw new FormatError("the answer has another length than it says");
  return {
    id: text(document, "id"),
    parts: [body.subarray(jsonBytes, jsonBytes + first), body.subarray(jsonBytes + first)],
  };
}

/** The class of the largest logit of one image, of those the first. */
export function winner(logits: readonly bigint[]): number {
  return logits.reduce((best, value, i) => (value > logits[best] ? i : best), 0);
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
