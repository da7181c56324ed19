// A stranger's path, with a clock: `node path.mjs SITE [--limit=SECONDS]`. From the landing page by the quickstart to
// its twin, which is downloaded and opened in a JupyterLab, and there to the first cells of code that have run. Prints
// every step and its seconds; exit status 1 where one fails or all take more than the limit, a minute. The environment
// is there before (`make ready`). The button to Colab is looked at, not followed: it opens the same notebook.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { startLab } from "./lab.mjs";
import { launch, serve } from "./site.mjs";

const MINUTE = 60;
// Between two looks whether the kernel has answered, in milliseconds.
const PAUSE = 50;
const options = Object.fromEntries(process.argv.slice(3).map((word) => word.replace(/^--/, "").split("=")));
const limit = Number(options.limit || MINUTE);
const site = await serve(resolve(process.argv[2] || "_build/html"));
const folder = mkdtempSync(join(tmpdir(), "fldp-path-"));
const browser = await launch();
const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, acceptDownloads: true });
page.setDefaultTimeout(2 * MINUTE * 1000);
let lab = null;
let name = "";
let acts = 0;

// What the kernel has answered, by kind: a number beside a cell may be a stored one.
const answered = { execute_reply: 0, kernel_info_reply: 0 };
page.on("websocket", (socket) =>
  socket.on("framereceived", ({ payload }) => {
    for (const kind in answered) if (payload.includes(kind)) answered[kind] += 1;
  }));

async function answers(kind, count) {
  const until = performance.now() + MINUTE * 1000;
  while (answered[kind] < count) {
    if (performance.now() > until) throw new Error(`of ${count} ${kind} the kernel has sent ${answered[kind]}`);
    await page.waitForTimeout(PAUSE);
  }
}

async function click(target) {
  acts += 1;
  await target.click();
}

const steps = {
  "the landing page opens": () => page.goto(`${site.url}/`, { waitUntil: "load" }),
  "the quickstart": async () => {
    await click(page.getByRole("link", { name: "Quickstart" }).first());
    await page.waitForURL("**/quickstart.html");
  },
  "its twin: what Colab would open is downloaded": async () => {
    const colab = await page.locator(".btn-colab-button").getAttribute("href");
    await click(page.locator(".dropdown-download-buttons > button"));
    const download = page.waitForEvent("download");
    await click(page.locator(".btn-download-source-button"));
    name = (await download).suggestedFilename();
    if (!colab.endsWith(`/${name}`)) throw new Error(`Colab opens ${colab}, the download is ${name}`);
    await (await download).saveAs(join(folder, name));
  },
  "JupyterLab starts": async () => {
    acts += 1;
    lab = await startLab(folder);
  },
  "the twin opens in it": async () => {
    await page.goto(lab.open(name));
    await page.locator(".jp-Notebook .jp-MarkdownCell h1").first().waitFor();
  },
  "the kernel is ready": () => answers("kernel_info_reply", 1),
  "the set-up has run: fldp is there": async () => {
    // The title, then the set-up.
    const run = page.locator('[data-jp-item-name="run"]');
    await click(run);
    await click(run);
    await answers("execute_reply", 1);
  },
  "the first cell of the chapter has run": async () => {
    const cells = page.locator(".jp-Notebook .jp-Cell");
    const code = await cells.evaluateAll((all) =>
      all.findIndex((one, index) => index > 1 && one.classList.contains("jp-CodeCell")));
    for (let at = 2; at <= code; at += 1) {
      acts += 1;
      await page.keyboard.press("Shift+Enter");
    }
    await answers("execute_reply", 2);
    const wrong = page.locator('.jp-RenderedText[data-mime-type="application/vnd.jupyter.error"]');
    if (await wrong.count()) throw new Error(await wrong.first().innerText());
  },
};

let total = 0;
try {
  for (const [what, body] of Object.entries(steps)) {
    const started = performance.now();
    await body();
    const seconds = (performance.now() - started) / 1000;
    total += seconds;
    console.log(`${seconds.toFixed(1).padStart(6)} s  ${what}`);
  }
  console.log(`${total.toFixed(1).padStart(6)} s  in all, with ${acts} clicks, keys and commands`);
} catch (error) {
  console.log(`FAIL  ${error.message.split("\n")[0]}`);
  total = Infinity;
}
await browser.close();
lab?.stop();
site.close();
rmSync(folder, { recursive: true, force: true });
process.exit(total <= limit ? 0 : 1);
