// SPDX-License-Identifier: Apache-2.0
// What a person is told of each trouble, and what is asked again, with answers that a test makes up.
import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import vectors from "../../tests/client/vectors.json";
import { type Model, parseModel, ready } from "../src/protocol";
import { Service, type Trouble } from "../src/service";

const kOrigin = "https://localhost:8440";
const kImage = new Uint8Array(16);
let model: Model;
before(async () => {
  await ready;
  model = parseModel(vectors.cases[0].model);
});

type Reply = Response | Error;

function problem(status: number, more: object = {}): Response {
  return new Response(JSON.stringify({ status, detail: "the server's words", ...more }), { status });
}

/** A service whose questions get these replies, one after the other. */
async function serviceOf(replies: (() => Reply)[], up = 3, deployment: object = { servers: vectors.servers }) {
  const asked: { url: string; headers: Headers; id: string; lane: number }[] = [];
  const naps: number[] = [];
  const http = (async (url: string, options: RequestInit) => {
    if (url === `${kOrigin}/deployment.json`) return new Response(JSON.stringify(deployment));
    if (url === `${kOrigin}/v2/health/ready`)
      return up === 3 ? new Response(JSON.stringify({ lanes: 3, lanes_up: up })) : problem(503);
    const headers = new Headers(options.headers);
    const body = options.body as Uint8Array;
    const json = new TextDecoder().decode(body.subarray(0, Number(headers.get("Inference-Header-Content-Length"))));
    const { id, parameters } = JSON.parse(json);
    asked.push({ url, headers, id, lane: parameters.lane });
    const reply = replies[Math.min(asked.length, replies.length) - 1]();
    if (reply instanceof Error) throw reply;
    return reply;
  }) as typeof fetch;
  const service = await Service.open(kOrigin, http, async (ms) => {
    naps.push(ms);
  });
  return { service, asked, naps };
}

test("a worker's page asks about its lanes alone", async () => {
  const urls = [kOrigin, "https://localhost:1"];
  const servers = vectors.servers.map(({ sealing_key }, i) => ({
    sealing_key,
    workers: ["0-2", "3-5"].map((lanes, w) => ({ url: i === 0 ? urls[1 - w] : `https://server${i}`, lanes })),
  }));
  const { service, asked } = await serviceOf([() => problem(503)], 3, { servers, lanes: 6 });
  assert.deepEqual([service.at, service.worker], [0, 1]);
  assert.deepEqual(await service.health(), { lanes: 3, up: 3 });
  await assert.rejects(service.ask(model, kImage, "secret"), { trouble: "busy" });
  for (const { lane } of asked) assert.equal(lane, 5);
});

describe("each trouble has words of its own", () => {
  const cases: [string, () => Reply, Trouble, RegExp, number][] = [
    ["no connection", () => new TypeError("Failed to fetch"), "unreachable", /does not answer/, 4],
    ["an unknown token", () => problem(401), "token", /does not know this access token/, 1],
    ["a token that is used up", () => problem(403), "spent", /used up/, 1],
    ["a model that is gone", () => problem(404), "gone", /no longer served/, 1],
    ["a model that is replaced", () => problem(409), "replaced", /replaced/, 1],
    ["a token's rate", () => problem(429), "rate", /as often as it may/, 4],
    ["too many queries", () => problem(503), "busy", /too much to do/, 4],
    ["a clock that is wrong", () => problem(400, { field: "body /parameters/time_ms" }), "clock", /clock/, 1],
    ["anything else", () => problem(500), "other", /the server's words/, 1],
    ["an answer that is none", () => new Response("{}"), "forged", /does not belong to your question/, 1],
    ["an error without words", () => new Response("<html>", { status: 502 }), "other", /502/, 1],
  ];
  for (const [name, reply, trouble, words, tries] of cases)
    test(`${name}: asked ${tries === 1 ? "once" : `${tries} times`}`, async () => {
      const { service, asked, naps } = await serviceOf([reply]);
      await assert.rejects(service.ask(model, kImage, "secret"), { trouble, message: words });
      assert.equal(asked.length, tries);
      assert.equal(naps.length, tries - 1);
      // Each time a new query.
      assert.equal(new Set(asked.map(({ id }) => id)).size, tries);
    });

  test("another server that is away", async () => {
    const { service } = await serviceOf([() => problem(503)], 0);
    await assert.rejects(service.ask(model, kImage, "secret"), { trouble: "away", message: /One of the three servers/ });
    assert.deepEqual(await service.health(), { lanes: 3, up: 0 });
  });
});

test("a server that comes back is asked again, and the person hears of it", async () => {
  const { service, asked } = await serviceOf([() => problem(503), () => new TypeError("reset"), () => problem(401)]);
  const heard: unknown[] = [];
  await assert.rejects(
    service.ask(model, kImage, "secret", (why, attempt, tries) => heard.push([why.trouble, attempt, tries])),
    { trouble: "token" },
  );
  assert.deepEqual(heard, [
    ["busy", 2, 4],
    ["unreachable", 3, 4],
  ]);
  assert.equal(asked.length, 3);
});

test("the token goes in its header and nowhere else, names are escaped", async () => {
  const { service, asked } = await serviceOf([() => problem(401)]);
  await assert.rejects(service.ask({ ...model, name: "a/b?", version: "1.0" }, kImage, "secret"));
  assert.equal(asked[0].url, `${kOrigin}/v2/models/a%2Fb%3F/versions/1.0/infer`);
  assert.equal(asked[0].headers.get("Authorization"), "Bearer secret");
});

describe("an address that cannot ask", () => {
  const open = (origin: string, more: object = {}) =>
    Service.open(origin, (async () =>
      new Response(JSON.stringify({ servers: vectors.servers, ...more }))) as unknown as typeof fetch);

  test("is told which can", async () => {
    await assert.rejects(open("https://127.0.0.1:8440"), {
      trouble: "address",
      message: /Open https:\/\/localhost:8440 or https:\/\/localhost:8441 or https:\/\/localhost:8442/,
    });
    // Lane 0 alone: its first evaluator is server 1.
    await assert.rejects(open(kOrigin, { lanes: 1 }), { trouble: "address", message: /Open https:\/\/localhost:8441\.$/ });
    assert.equal((await open("https://localhost:8441", { lanes: 1 })).at, 1);
  });

  test("a deployment that is none is refused by its field", async () => {
    await assert.rejects(open(kOrigin, { servers: [] }), { trouble: "other", message: /"servers"/ });
  });
});
