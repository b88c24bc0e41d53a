// SPDX-License-Identifier: Apache-2.0
// The formats, against vectors of the C++ library (tests/client/vectors_test.cpp checks the same file).
import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import sodium from "libsodium-wrappers";
import vectors from "../../tests/client/vectors.json";
import {
  contextOf,
  type Deployment,
  FormatError,
  type Head,
  type KeyPair,
  lanesAt,
  type Model,
  openParts,
  pack,
  packedBytes,
  parseDeployment,
  parseModel,
  quantise,
  Query,
  ready,
  rolesOf,
  seal,
  unpack,
  unseal,
  winner,
} from "../src/protocol";

const kTime = 1_800_000_000_000;
let deployment: Deployment;
let servers: KeyPair[];
let models: Model[];

function keysOf(secret: string): KeyPair {
  const privateKey = sodium.from_hex(secret);
  return { privateKey, publicKey: sodium.crypto_scalarmult_base(privateKey) };
}

interface Wire {
  json_bytes: number;
  body: string;
}

/** JSON and the two parts of a message. */
function split({ json_bytes, body }: Wire) {
  const bytes = sodium.from_hex(body);
  const json = JSON.parse(new TextDecoder().decode(bytes.subarray(0, json_bytes)));
  const tensors = json.inputs ?? json.outputs;
  const first: number = tensors[0].parameters.binary_data_size;
  const parts: [Uint8Array, Uint8Array] = [
    bytes.subarray(json_bytes, json_bytes + first),
    bytes.subarray(json_bytes + first),
  ];
  return { json, parts };
}

function headOf(json: { id: string; parameters: Record<string, unknown> }): Head {
  const p = json.parameters as Record<string, string> & Record<"lane" | "images" | "time_ms", number>;
  return {
    id: sodium.from_hex(json.id),
    digest: sodium.from_hex(p.model_digest),
    lane: p.lane,
    images: p.images,
    timeMs: p.time_ms,
    reply: sodium.from_hex(p.reply_key),
  };
}

/** Adds up what both evaluators see. */
function opened(head: Head, parts: [Uint8Array, Uint8Array], model: Model, count: number): bigint[] {
  const { e1, e2 } = rolesOf(head.lane);
  const shares = [e1, e2].map((server, i) => {
    const share = unseal(servers[server], contextOf("query", head, server), parts[i]);
    assert.ok(share);
    return unpack(share, model.inputBits, count);
  });
  return shares[0].map((value, i) => BigInt.asUintN(model.inputBits, value + shares[1][i]));
}

/** Six lanes and two workers a server with these. */
function divided(...lanes: string[]) {
  const workers = lanes.map((its, w) => ({ url: `https://host${w}`, lanes: its }));
  return { servers: vectors.servers.map(({ sealing_key }) => ({ sealing_key, workers })), lanes: 6 };
}

before(async () => {
  await ready;
  deployment = parseDeployment({ servers: vectors.servers });
  servers = vectors.secrets.map(keysOf);
  models = vectors.cases.map((entry) => parseModel(entry.model));
});

describe("the C++ library's vectors", () => {
  vectors.cases.forEach((entry, c) => {
    test(`query ${c} opens and adds up to the images`, () => {
      const { json, parts } = split(entry.request);
      const pixels = sodium.from_hex(entry.pixels);
      const sums = opened(headOf(json), parts, models[c], pixels.length);
      assert.deepEqual(sums, quantise(pixels, models[c].bits));
    });

    test(`answer ${c} opens and adds up to the logits`, () => {
      const reply = keysOf(entry.reply_secret);
      const head = { ...headOf(split(entry.request).json), reply: reply.publicKey };
      const { parts } = split(entry.answer);
      assert.deepEqual(openParts(reply, head, models[c], parts).logits.map(Number), entry.logits);
      assert.throws(() => openParts(reply, head, models[c], [parts[1], parts[0]]), FormatError);
      assert.throws(() => openParts(reply, { ...head, timeMs: 0 }, models[c], parts), FormatError);
      assert.throws(() => openParts(servers[0], head, models[c], parts), FormatError);
    });

    test(`a query of this client has the form of query ${c}`, () => {
      const pixels = sodium.from_hex(entry.pixels);
      const query = new Query(deployment, models[c], pixels, undefined, kTime);
      const { jsonBytes, body } = query.request();
      const mine = split({ json_bytes: jsonBytes, body: sodium.to_hex(body) });
      const theirs = split(entry.request);
      const shapeOf = (value: unknown): unknown =>
        Array.isArray(value)
          ? value.map(shapeOf)
          : typeof value === "object"
            ? Object.fromEntries(Object.entries(value as object).map(([k, v]) => [k, shapeOf(v)] as const).sort())
            : typeof value;
      assert.deepEqual(shapeOf(mine.json), shapeOf(theirs.json));
      assert.deepEqual(mine.json.inputs, theirs.json.inputs);
      assert.deepEqual(mine.parts.map((part) => part.length), theirs.parts.map((part) => part.length));
      assert.deepEqual(opened(headOf(mine.json), mine.parts, models[c], pixels.length), quantise(pixels, models[c].bits));
    });
  });
});

describe("sealing", () => {
  test("texts of all numbers of chunks come back, with the length that is written down", () => {
    const context = sodium.randombytes_buf(113);
    for (const size of [0, 1, 65535, 65536, 65537, 131072, 200000]) {
      const plain = sodium.randombytes_buf(size);
      const sealed = seal(servers[0].publicKey, context, plain);
      assert.equal(sealed.length, 104 + size + 17 * Math.max(1, Math.ceil(size / 65536)));
      assert.deepEqual(unseal(servers[0], context, sealed), plain);
    }
  });

  test("nothing opens that is changed, cut, longer, of another context or key", () => {
    const context = sodium.randombytes_buf(113);
    const sealed = seal(servers[0].publicKey, context, sodium.randombytes_buf(70000));
    for (const at of [0, 79, 80, 103, 104, 65600, 65657, sealed.length - 1]) {
      const changed = sealed.slice();
      changed[at] ^= 1;
      assert.equal(unseal(servers[0], context, changed), undefined, `byte ${at}`);
    }
    for (const end of [0, 103, 104, 121, 104 + 65536 + 17, sealed.length - 1])
      assert.equal(unseal(servers[0], context, sealed.subarray(0, end)), undefined, `cut at ${end}`);
    assert.equal(unseal(servers[0], context, Uint8Array.from([...sealed, 0])), undefined);
    assert.equal(unseal(servers[0], context.slice(1), sealed), undefined);
    assert.equal(unseal(servers[1], context, sealed), undefined);
  });
});

describe("shares", () => {
  test("values of all widths are packed and come back", () => {
    assert.deepEqual([...pack([1n, 2n, 3n], 4)], [0x21, 0x03]);
    assert.deepEqual([...pack([0x7ffn, 0n, 1n], 11)], [0xff, 0x07, 0x40, 0, 0]);
    for (let bits = 2; bits <= 64; bits++) {
      const values = unpack(sodium.randombytes_buf(packedBytes(37, bits)), bits, 37);
      assert.ok(values.every((value) => value >= 0n && value >> BigInt(bits) === 0n));
      assert.deepEqual(unpack(pack(values, bits), bits, 37), values);
    }
    assert.deepEqual([...pack([-1n], 12)], [0xff, 0x0f]);
    assert.throws(() => unpack(new Uint8Array(3), 8, 4), FormatError);
  });

  test("each is uniform, and both are drawn anew for each query", () => {
    const pixels = new Uint8Array(16 * 64).fill(255);
    const [a, b] = [0, 1].map(() => new Query(deployment, models[0], pixels));
    assert.notDeepEqual(a.head.id, b.head.id);
    assert.notDeepEqual(a.head.reply, b.head.reply);
    for (const share of [...a.shares, ...b.shares]) {
      const ones = unpack(share, 11, pixels.length).map((value) => value.toString(2).padStart(11, "0"));
      // 1024 fair coins a bit: 512 with a standard deviation of 16; 7 of them off once in 10^10 runs.
      for (let bit = 0; bit < 11; bit++) {
        const count = ones.filter((text) => text[bit] === "1").length;
        assert.ok(Math.abs(count - 512) < 7 * 16, `bit ${bit} is set ${count} times of 1024`);
      }
    }
    assert.notDeepEqual(a.shares[0], b.shares[0]);
    assert.notDeepEqual(a.shares[1], b.shares[1]);
  });

  test("bytes become the network's input as the C++ library rounds", () => {
    assert.deepEqual(quantise(Uint8Array.of(0, 8, 9, 127, 128, 255), 4).map(Number), [0, 0, 1, 7, 8, 15]);
    const all = Uint8Array.from({ length: 256 }, (_, i) => i);
    assert.deepEqual(quantise(all, 8).map(Number), [...all]);
  });
});

describe("queries", () => {
  test("go to the asked server, or to any", () => {
    const image = new Uint8Array(16);
    for (const at of [0, 1, 2]) {
      const { head, roles } = new Query(deployment, models[0], image, lanesAt(deployment, at, 0));
      assert.equal(roles.e1, at);
      assert.deepEqual(roles, rolesOf(head.lane));
    }
    const one = parseDeployment({ servers: vectors.servers, lanes: 1 });
    assert.equal(new Query(one, models[0], image, lanesAt(one, 1, 0)).head.lane, 0);
    assert.throws(() => new Query(one, models[0], image, lanesAt(one, 0, 0)), /no lane/);
  });

  test("go to the worker that has their lane", () => {
    const several = parseDeployment(divided("0,2-3", "1,4-5"));
    assert.deepEqual(several.servers[1].workers, [
      { url: "https://host0", lanes: [0, 2, 3] },
      { url: "https://host1", lanes: [1, 4, 5] },
    ]);
    // E1 of lane k is server k + 1 modulo 3.
    const expected = [[[2], [5]], [[0, 3], []], [[], [1, 4]]];
    for (const at of [0, 1, 2])
      for (const worker of [0, 1]) assert.deepEqual(lanesAt(several, at, worker), expected[at][worker]);
    assert.equal(new Query(several, models[0], new Uint8Array(16), lanesAt(several, 0, 1)).head.lane, 5);
  });

  test("of no image, of a part of one, or of too many are refused", () => {
    for (const size of [0, 15, 17, 65 * 16])
      assert.throws(() => new Query(deployment, models[0], new Uint8Array(size)), FormatError);
  });

  test("take no answer of another query, nor a damaged one", () => {
    const query = new Query(deployment, models[0], new Uint8Array(16));
    const answer = (id: string, more = 0, first = "share_e1") => {
      const share = new Uint8Array(packedBytes(3, 13));
      const parts = [query.roles.e1, query.roles.e2].map((server) =>
        seal(query.head.reply, contextOf("answer", query.head, server), share),
      );
      const json = new TextEncoder().encode(
        JSON.stringify({
          id,
          outputs: parts.map((part, i) => ({
            name: i ? "share_e2" : first,
            parameters: { binary_data_size: part.length },
          })),
        }),
      );
      const body = Uint8Array.from([...json, ...parts[0], ...parts[1], ...new Array(more).fill(0)]);
      return { jsonBytes: json.length, body };
    };
    const id = sodium.to_hex(query.head.id);
    assert.deepEqual(query.open(answer(id)).logits, [0n, 0n, 0n]);
    assert.throws(() => query.open(answer("0".repeat(32))), /another query/);
    assert.throws(() => query.open(answer(id, 1)), /another length/);
    assert.throws(() => query.open(answer(id, 0, "share_e2")), /is not share_e1/);
    assert.throws(() => query.open({ ...answer(id), jsonBytes: 3 }), /JSON/);
    const other = new Query(deployment, models[0], new Uint8Array(16));
    assert.throws(() => other.open(answer(sodium.to_hex(other.head.id))), /not of this query/);
  });
});

describe("documents", () => {
  test("that lack something, or have it wrong, are refused by name", () => {
    const model = vectors.cases[0].model;
    for (const [name, value] of [
      ["digest", "ab"],
      ["digest", undefined],
      ["input_bits", 65],
      ["output_bits", 1],
      ["classes", "3"],
      ["output", "text"],
      ["inputs", []],
    ] as const)
      assert.throws(() => parseModel({ ...model, [name]: value }), new RegExp(`"${name}"`));
    assert.throws(() => parseModel({ ...model, inputs: [{ shape: [-1, 1, 0, 4] }] }), /"shape"/);
    assert.throws(() => parseModel(null), FormatError);
    assert.throws(() => parseDeployment({ servers: vectors.servers.slice(1) }), /"servers"/);
    assert.throws(() => parseDeployment({ servers: vectors.servers, lanes: 0 }), /"lanes"/);
    for (const lanes of ["", "3-1", "6", "x", "0-"])
      assert.throws(() => parseDeployment(divided("0-2", lanes)), /lanes from 0 to 5/);
    assert.equal(deployment.lanes, 3);
    assert.equal(deployment.maxImages, 64);
  });
});

test("the winner is the first of the largest", () => {
  assert.equal(winner([-5n, 3n, 3n]), 1);
  assert.equal(winner([0n]), 0);
});
