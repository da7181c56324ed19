// A JupyterLab of one's own: `const lab = await startLab(FOLDER)`, with `open(NAME)`, the address of a notebook, and `stop()`.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const TOKEN = "a-readers-own";
// As `make lab` starts it.
const WORDS = ["lab", "--no-browser", "--allow-root", "--port-retries=0", `--IdentityProvider.token=${TOKEN}`];
// Between two looks whether it answers, in milliseconds.
const PAUSE = 100;

// A port that nobody listens on.
async function free() {
  const server = createServer();
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

export async function startLab(folder) {
  const program = process.env.JUPYTER || join(ROOT, ".venv/bin/jupyter");
  if (!existsSync(program)) throw new Error(`no ${program}: make ready, or name one in the variable JUPYTER`);
  // Whatever this machine's user has set up takes no part.
  const settings = mkdtempSync(join(tmpdir(), "fldp-lab-"));
  const places = ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR", "IPYTHONDIR"];
  const own = Object.fromEntries(places.map((name) => [name, join(settings, name)]));
  const port = await free();
  // A group of its own: the kernels end with it.
  const child = spawn(program, [...WORDS, `--port=${port}`, folder], {
    env: { ...process.env, ...own }, cwd: folder, detached: true, stdio: ["ignore", "ignore", "pipe"],
  });
  let said = "";
  let ended = false;
  child.stderr.on("data", (data) => (said += data));
  child.on("exit", () => (ended = true));
  const stop = () => {
    if (!ended) process.kill(-child.pid);
    rmSync(settings, { recursive: true, force: true });
  };
  const url = `http://127.0.0.1:${port}`;
  const answers = () => fetch(`${url}/api/status?token=${TOKEN}`).then((reply) => reply.ok, () => false);
  while (!(await answers())) {
    if (ended) {
      stop();
      throw new Error(`jupyter lab has ended: ${said.slice(-1000)}`);
    }
    await new Promise((done) => setTimeout(done, PAUSE));
  }
  return { open: (name) => `${url}/lab/tree/${name}?token=${TOKEN}`, stop };
}
