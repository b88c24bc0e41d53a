// SPDX-License-Identifier: Apache-2.0
// Talks to the server that the page comes from, and says what went wrong in words for a person.
import {
  type Answer,
  type Deployment,
  FormatError,
  lanesAt,
  type Model,
  parseDeployment,
  parseModel,
  Query,
  ready,
} from "./protocol";

export type Trouble =
  | "unreachable" // this server does not answer
  | "away" // another server is away, or this one drains
  | "busy"
  | "rate"
  | "token"
  | "spent"
  | "gone" // the model is not served
  | "replaced" // another model has this name now
  | "clock"
  | "address" // the page's address is none of a server that can take the query
  | "forged" // an answer that does not open
  | "other";

const kWords: Record<Exclude<Trouble, "other" | "address">, string> = {
  unreachable: "This server does not answer. Check your connection; if that works, the server is down: try again later.",
  away: "One of the three servers is away, and it takes all three. Try again when it is back; nothing has been lost.",
  busy: "The servers have too much to do right now. Try again in a moment.",
  rate: "Your token has asked as often as it may for now. Wait a few seconds, then try again.",
  token: "The server does not know this access token. Check it for typing mistakes, or ask the operator for a new one.",
  spent: "All questions that this access token allows are used up. Ask the operator for another one.",
  gone: "This model is no longer served. Choose another one.",
  replaced: "This model has just been replaced by another version. Ask again.",
  clock: "Your device's clock differs too much from the server's. Set it right, then try again.",
  forged: "The answer does not belong to your question, so it is not shown. A server or the connection may be tampered with.",
};

export class ServiceError extends Error {
  constructor(
    readonly trouble: Trouble,
    message: string,
  ) {
    super(message);
  }
}

function failure(trouble: keyof typeof kWords): ServiceError {
  return new ServiceError(trouble, kWords[trouble]);
}

export interface Listed {
  name: string;
  version: string;
  digest: string;
  ready: boolean;
}

/** How the lanes of the page's server are. */
export interface Health {
  lanes: number;
  up: number;
}

/** An answer, with what made it. */
export interface Result {
  query: Query;
  answer: Answer;
  /** From the first byte of the shares to the opened answer, and of that the way to the servers and back. */
  totalMs: number;
  waitMs: number;
}

const kTries = 4;
const kTimeoutMs = 30_000;

/** One page's service. `fetch` and `sleep` are the browser's unless a test gives others. */
export class Service {
  private constructor(
    readonly deployment: Deployment,
    /** The server that the page comes from, 0 to 2, and which of its workers. */
    readonly at: number,
    readonly worker: number,
    private readonly origin: string,
    private readonly http: typeof fetch,
    private readonly sleep: (ms: number) => Promise<void>,
  ) {}

  /** Reads deployment.json. ServiceError "address" where the page's address is none of its servers'. */
  static async open(
    origin: string,
    http: typeof fetch = (...all) => fetch(...all),
    sleep: (ms: number) => Promise<void> = (ms) => new Promise((done) => setTimeout(done, ms)),
  ): Promise<Service> {
    await ready;
    const deployment = parsed(parseDeployment, await json(http, `${origin}/deployment.json`));
    const good = deployment.servers
      .flatMap(({ workers }, at) => workers.map(({ url }, worker) => ({ url, at, worker })))
      .filter(({ at, worker }) => lanesAt(deployment, at, worker).length > 0);
    const here = good.find(({ url }) => new URL(url).origin === origin);
    if (!here) {
      const urls = good.map(({ url }) => url).join(" or ");
      throw new ServiceError("address", `Questions cannot be asked at this address. Open ${urls}.`);
    }
    return new Service(deployment, here.at, here.worker, origin, http, sleep);
  }

  async models(): Promise<Listed[]> {
    const document = (await json(this.http, `${this.origin}/v2/models`)) as { models?: Listed[] };
    if (!Array.isArray(document?.models)) throw new ServiceError("other", "The server's list of models is no list.");
    return document.models;
  }

  async model({ name, version }: Listed): Promise<Model> {
    return parsed(parseModel, await json(this.http, `${this.origin}${pathOf(name, version)}`));
  }

  async health(): Promise<Health> {
    const answer = await call(this.http, `${this.origin}/v2/health/ready`);
    const document = (await answer.json()) as { lanes_up?: number };
    const { lanes } = this.deployment.servers[this.at].workers[this.worker];
    return { lanes: lanes.length, up: answer.ok ? (document.lanes_up ?? 0) : 0 };
  }

  /**
   * Asks about one image, again and each time as a new query where a server is away or busy, at most four times.
   * `waiting` hears of each further try. ServiceError says why there is no answer.
   */
  async ask(
    model: Model,
    pixels: Uint8Array,
    token: string,
    waiting: (why: ServiceError, attempt: number, tries: number) => void = () => {},
  ): Promise<Result> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.askOnce(model, pixels, token);
      } catch (error) {
        const again = error instanceof ServiceError && ["unreachable", "away", "busy", "rate"].includes(error.trouble);
        if (!again || attempt === kTries) throw error;
        waiting(error, attempt + 1, kTries);
        await this.sleep(1000);
      }
    }
  }

  private async askOnce(model: Model, pixels: Uint8Array, token: string): Promise<Result> {
    const begin = performance.now();
    const query = new Query(this.deployment, model, pixels, lanesAt(this.deployment, this.at, this.worker));
    const { jsonBytes, body } = query.request();
    const sent = performance.now();
    const response = await call(this.http, `${this.origin}${pathOf(model.name, model.version)}/infer`, {
      method: "POST",
      headers: { Authorization: `Bearer ${token}`, "Inference-Header-Content-Length": String(jsonBytes) },
      body: body as BodyInit,
    });
    if (!response.ok) throw await this.problem(response);
    let received: Uint8Array;
    try {
      received = new Uint8Array(await response.arrayBuffer());
    } catch {
      throw failure("unreachable");
    }
    const back = performance.now();
    const length = Number(response.headers.get("Inference-Header-Content-Length"));
    try {
      const answer = query.open({ jsonBytes: length, body: received });
      return { query, answer, totalMs: performance.now() - begin, waitMs: back - sent };
    } catch (error) {
      throw error instanceof FormatError ? failure("forged") : error;
    }
  }

  private async problem(response: Response): Promise<ServiceError> {
    const problem = (await response.json().catch(() => ({}))) as { detail?: string; field?: string };
    switch (response.status) {
      case 401:
        return failure("token");
      case 403:
        return failure("spent");
      case 404:
        return failure("gone");
      case 409:
        return failure("replaced");
      case 429:
        return failure("rate");
      case 503: {
        const health = await this.health();
        return failure(health.up < health.lanes ? "away" : "busy");
      }
      default:
        if (problem.field === "body /parameters/time_ms") return failure("clock");
        return new ServiceError("other", `The server says: ${problem.detail ?? response.status}.`);
    }
  }
}

function pathOf(name: string, version: string): string {
  return `/v2/models/${encodeURIComponent(name)}/versions/${encodeURIComponent(version)}`;
}

async function call(http: typeof fetch, url: string, options: RequestInit = {}): Promise<Response> {
  try {
    return await http(url, { ...options, cache: "no-store", signal: AbortSignal.timeout(kTimeoutMs) });
  } catch {
    throw failure("unreachable");
  }
}

async function json(http: typeof fetch, url: string): Promise<unknown> {
  const response = await call(http, url);
  if (response.status === 404) throw failure("gone");
  if (!response.ok) throw new ServiceError("other", `The server answers ${response.status} to ${url}.`);
  return response.json().catch(() => undefined);
}

function parsed<T>(parse: (document: unknown) => T, document: unknown): T {
  try {
    return parse(document);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new ServiceError("other", `The server sends what this page does not understand: ${error.message}.`);
  }
}
