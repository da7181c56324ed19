// Measures every page: `node report.mjs SITE [--pages=a,b] [--json=FILE] [--no-axe]`.
// A line a page: bytes and requests of a first visit, first paint, what went wrong. Exit status 1
// where a limit is passed: 1.2 MB without fonts, 40 requests, anything external, anything missing, an error in the
// console, a page wider than the window, a serious or critical violation.
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { launch, pages, serve, VARIANTS } from "./site.mjs";

const LIMITS = { bytes: 1.2e6, requests: 40 };
const GRAVE = new Set(["serious", "critical"]);
const options = Object.fromEntries(process.argv.slice(3).map((word) => word.replace(/^--/, "").split("=")));
const root = resolve(process.argv[2] || "_build/html");
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const site = await serve(root);
const browser = await launch();

async function look(name, variant, found) {
  const context = await browser.newContext({
    viewport: { width: variant.width, height: variant.height }, colorScheme: variant.scheme,
  });
  const page = await context.newPage();
  page.on("pageerror", (error) => found.errors.add(error.message));
  page.on("console", (line) => {
    // The address of the page that is not there is asked for on purpose.
    if (line.type() === "error" && name !== "404.html") found.errors.add(line.text());
  });
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(site.url) && !/^(data|blob):/.test(url)) found.external.add(url);
  });
  site.sent.length = 0;
  await page.goto(`${site.url}/${name}`, { waitUntil: "networkidle" });
  // Pictures further down are loaded when they come into view.
  await page.evaluate(async () => {
    for (let y = 0; y < document.body.scrollHeight; y += innerHeight) {
      scrollTo(0, y);
      await new Promise((done) => setTimeout(done, 20));
    }
    scrollTo(0, 0);
  });
  await page.waitForLoadState("networkidle");
  if (found.requests === undefined) {
    found.requests = site.sent.length;
    found.bytes = site.sent.filter((one) => !one.font).reduce((sum, one) => sum + one.bytes, 0);
    found.fonts = site.sent.filter((one) => one.font).reduce((sum, one) => sum + one.bytes, 0);
    found.paint = await page.evaluate(
      () => Math.round(performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? -1),
    );
  }
  for (const one of site.sent) if (one.missing) found.missing.add(one.path);
  const over = await page.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  );
  if (over > 0) found.wide.push(`${variant.name}: ${over} px`);
  if (!("no-axe" in options)) {
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
    for (const { id, impact, nodes } of violations) {
      const key = `${impact} ${id}`;
      found.violations[key] ??= { nodes: nodes.length, where: nodes[0].target.join(" "), in: [] };
      found.violations[key].in.push(variant.name);
    }
  }
  await context.close();
}

let failed = false;
const report = {};
for (const name of options.pages ? options.pages.split(",") : pages(root)) {
  const found = { errors: new Set(), external: new Set(), missing: new Set(), wide: [], violations: {} };
  for (const variant of VARIANTS) await look(name, variant, found);
  const grave = Object.keys(found.violations).filter((key) => GRAVE.has(key.split(" ")[0]));
  const wrong = [
    ...(found.bytes > LIMITS.bytes ? ["too heavy"] : []),
    ...(found.requests > LIMITS.requests ? ["too many requests"] : []),
    ...[...found.errors].map((text) => `console: ${text}`),
    ...[...found.external].map((url) => `external: ${url}`),
    ...[...found.missing].map((path) => `missing: ${path}`),
    ...found.wide.map((text) => `wider than the window: ${text}`),
    ...grave.map((key) => `${key}: ${found.violations[key].where} (${found.violations[key].in.join(", ")})`),
  ];
  failed ||= wrong.length > 0;
  const light = Object.keys(found.violations).filter((key) => !grave.includes(key));
  const kb = (bytes) => `${Math.round(bytes / 1000)} kB`.padStart(8);
  console.log(
    `${name.padEnd(44)} ${kb(found.bytes)} + fonts ${kb(found.fonts)} ${String(found.requests).padStart(3)} requests ` +
      `${String(found.paint).padStart(5)} ms  ${wrong.length ? "WRONG" : "ok"}${light.length ? `  (${light.join(", ")})` : ""}`,
  );
  for (const text of wrong) console.log(`    ${text}`);
  report[name] = {
    ...found, errors: [...found.errors], external: [...found.external], missing: [...found.missing], wrong,
  };
}
if (options.json) writeFileSync(options.json, JSON.stringify(report, null, 1));
await browser.close();
site.close();
process.exit(failed ? 1 : 0);
