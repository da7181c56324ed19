// What the browser tests share: a server that compresses as hosts do, a browser, the list of pages.
import { createServer } from "node:http";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { extname, join } from "node:path";
import { gzipSync } from "node:zlib";

const TYPES = {
  ".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".json": "application/json",
  ".svg": "image/svg+xml", ".png": "image/png", ".woff2": "font/woff2", ".txt": "text/plain", ".ico": "image/x-icon",
};
const PACKED = new Set([".png", ".woff2", ".woff", ".jpg", ".ipynb"]);
const CHROMIUMS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
export const VARIANTS = [
  { name: "wide light", width: 1280, height: 900, scheme: "light" },
  { name: "wide dark", width: 1280, height: 900, scheme: "dark" },
  { name: "phone light", width: 390, height: 844, scheme: "light" },
  { name: "phone dark", width: 390, height: 844, scheme: "dark" },
];

export function chromium() {
  return process.env.CHROMIUM || CHROMIUMS.find(existsSync) || null;
}

export async function launch() {
  const playwright = await import("playwright-core");
  const path = chromium();
  if (!path) throw new Error("no Chromium found; name one in the variable CHROMIUM");
  const quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"];
  return playwright.chromium.launch({ executablePath: path, args: ["--no-sandbox", "--disable-gpu", ...quiet] });
}

// Serves a folder; `sent` collects what left since it was last emptied.
export async function serve(root) {
  const sent = [];
  // The published site may stand in a folder of its host: its 404 page asks for files from there.
  const robots = join(root, "robots.txt");
  const said = existsSync(robots) ? readFileSync(robots, "utf8").match(/Sitemap: (.*)sitemap.xml/) : null;
  const base = said ? new URL(said[1]).pathname : "/";
  const server = createServer((request, response) => {
    let path = decodeURIComponent(new URL(request.url, "http://x").pathname);
    if (base !== "/" && path.startsWith(base)) path = `/${path.slice(base.length)}`;
    let file = join(root, path);
    if (existsSync(file) && statSync(file).isDirectory()) file = join(file, "index.html");
    const there = existsSync(file);
    if (!there) file = join(root, "404.html");
    const kind = extname(file);
    const plain = existsSync(file) ? readFileSync(file) : Buffer.from("not found");
    const body = PACKED.has(kind) ? plain : gzipSync(plain);
    const headers = { "Content-Type": TYPES[kind] || "application/octet-stream", "Content-Length": body.length };
    if (!PACKED.has(kind)) headers["Content-Encoding"] = "gzip";
    sent.push({ path, bytes: body.length, font: kind.startsWith(".woff"), missing: !there });
    response.writeHead(there ? 200 : 404, headers);
    response.end(body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, sent, close: () => server.close() };
}

// The pages of the site: those of the book, and the few beside them.
export function pages(root) {
  const html = (folder) => readdirSync(join(root, folder)).filter((name) => name.endsWith(".html"));
  const beside = html(".").filter((name) => name !== "index.html");
  return [...html("book").map((name) => `book/${name}`), ...beside].sort();
}
