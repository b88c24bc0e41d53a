// SPDX-License-Identifier: Apache-2.0
// Bundles the page into dist/, or with --tests the tests into build/.
import { build } from "esbuild";
import { cp, readdir, rm } from "node:fs/promises";

const tests = process.argv.includes("--tests");
const out = tests ? "build" : "dist";
await rm(out, { recursive: true, force: true });
if (tests) {
  const files = (await readdir("test")).filter((name) => name.endsWith(".test.ts"));
  await build({
    entryPoints: files.map((name) => `test/${name}`),
    outdir: out,
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node18",
    external: ["puppeteer-core", "axe-core"],
    sourcemap: "inline",
    // Node.js 18, which Debian 12 has, gives no global `crypto`, as browsers do.
    banner: { js: 'import { webcrypto } from "node:crypto"; globalThis.crypto ??= webcrypto;' },
  });
} else {
  await build({
    entryPoints: ["src/page.ts"],
    outdir: out,
    bundle: true,
    minify: true,
    format: "esm",
    target: ["chrome111", "firefox115", "safari16"],
    legalComments: "eof",
  });
  for (const name of ["index.html", "style.css", "icon.svg"]) await cp(`src/${name}`, `${out}/${name}`);
  await cp("node_modules/libsodium/LICENSE", `${out}/libsodium-license.txt`); // it is part of page.js
}
