// SPDX-License-Identifier: Apache-2.0
// A prediction service for tests, which tests/web/hold_service.py holds.
import { type ChildProcess, spawn } from "node:child_process";
import { createInterface, type Interface } from "node:readline";

export interface Facts {
  urls: string[];
  token: string;
  /** IDX file of drawn digits, and what `tercet plain` gives for them. */
  images: string;
  logits: number[][];
}

export class HeldService {
  private constructor(
    private readonly child: ChildProcess,
    private readonly lines: AsyncIterator<string>,
    private readonly reader: Interface,
    readonly facts: Facts,
  ) {}

  /** TERCET_BIN is where the programs are, TERCET_SOURCE the project. */
  static async start(): Promise<HeldService> {
    const { TERCET_BIN, TERCET_SOURCE } = process.env;
    if (!TERCET_BIN || !TERCET_SOURCE) throw new Error("TERCET_BIN and TERCET_SOURCE are expected");
    const child = spawn("python3", [`${TERCET_SOURCE}/tests/web/hold_service.py`, "--bin", TERCET_BIN], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    const reader = createInterface({ input: child.stdout! });
    const lines = reader[Symbol.asyncIterator]();
    const first = await lines.next();
    if (first.done) throw new Error("the service does not start");
    return new HeldService(child, lines, reader, JSON.parse(first.value) as Facts);
  }

  /** "kill I", "start I", "take-out" or "put-in"; done when it is. */
  async tell(command: string): Promise<void> {
    this.child.stdin!.write(`${command}\n`);
    const { value } = await this.lines.next();
    if (value !== "done") throw new Error(`the service did not ${command}`);
  }

  async stop(): Promise<void> {
    const ended = new Promise((done) => this.child.once("exit", done));
    this.child.stdin!.end();
    await ended;
    this.reader.close();
  }
}
