// Runs a fuzzer in child processes: a crash, a hang or all memory taken ends one of them and is counted.
import { spawn } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const child = fileURLToPath(new URL('child.mjs', import.meta.url));
/** Generators of inputs that lie in the packages are TypeScript. */
const tsx = import.meta.resolve('tsx');
/** Inputs of one process. */
const batch = 500;
/** Resident bytes at which a process is stopped. */
const residentBytes = 2 * 2 ** 30;
const heapMegabytes = 1024;
/** For starting and the good inputs, on a machine that does much else. */
const silenceMs = 120_000;

const residentOf = (pid) => {
  try {
    return Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * 4096;
  } catch {
    return 0; // gone, or not Linux
  }
};

const indexIn = (file, otherwise) => {
  try {
    return readFileSync(file).readDoubleLE(0);
  } catch {
    return otherwise; // not started
  }
};

/**
 * One process: inputs from `first` on.
 * @returns faults, and the input to go on with
 */
async function runBatch({ deadlineMs, ...input }) {
  const { first, count, folder } = input;
  const progressFile = join(folder, 'progress');
  rmSync(progressFile, { force: true });
  const faults = [];
  const options = JSON.stringify({ ...input, progressFile });
  const process_ = spawn(
    process.execPath,
    ['--import', tsx, '--expose-gc', `--max-old-space-size=${heapMegabytes}`, child, options],
    {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      env: { ...process.env, NODE_OPTIONS: '' },
    },
  );
  let stderr = '';
  process_.stderr.on('data', (text) => (stderr = `${stderr}${text}`.slice(-4000)));
  let accepted = 0;
  process_.on('message', (message) => (message.accepted ? (accepted += 1) : faults.push(message)));
  let stopped;
  let [last, since] = [-1, Date.now()];
  const watch = setInterval(() => {
    const index = indexIn(progressFile, -1);
    if (index !== last) [last, since] = [index, Date.now()];
    if (residentOf(process_.pid) > residentBytes) stopped = 'memory';
    else if (Date.now() - since > (last < 0 ? silenceMs : 1.5 * deadlineMs)) stopped = 'hang';
    if (stopped) process_.kill('SIGKILL');
  }, 100);
  const [code, signal] = await new Promise((resolve) => process_.on('close', (...end) => resolve(end)));
  clearInterval(watch);
  const index = indexIn(progressFile, first);
  if (stopped) faults.push({ index, kind: stopped, text: 'the process was stopped' });
  else if (code !== 0) faults.push({ index, kind: 'crash', text: `${signal ?? `exit code ${code}`}\n${stderr}` });
  const finished = index >= first + count;
  return { faults, accepted, next: finished ? index : index + 1 };
}

/** What makes two faults the same: kind, class of the error and place. */
function signature({ kind, text }) {
  const lines = text.split('\n');
  const frame = lines.find((line) => /^\s+at .*(packages|node_modules)/.test(line));
  const fatal = lines.find((line) => /FATAL|terminate|Assertion/.test(line)) ?? lines[0];
  const what = frame ? `${lines[0].split(':')[0]} ${frame}` : fatal;
  return `${kind}: ${what}`.replace(/0x[0-9a-f]+/g, '#').slice(0, 300);
}

/**
 * Runs one fuzzer until the time or the inputs are used up.
 * @param limits `{ seconds, inputs }`, whichever ends first
 * @param faultsFolder where inputs with a fault are saved; nothing is created without one
 * @param options.fuzzers URL of the folder with the fuzzers
 * @returns inputs run, how many of them were accepted, and faults by signature
 */
export async function fuzz(name, options) {
  const { seed, seconds, inputs = Infinity, first = 0, faultsFolder, onFault } = options;
  const { fuzzers = new URL('fuzzers/', import.meta.url) } = options;
  const { default: fuzzer } = await import(new URL(`${name}.mjs`, fuzzers));
  const folder = mkdtempSync(join(tmpdir(), `q-fuzz-${name}-`));
  const found = new Map();
  const end = Date.now() + seconds * 1000;
  let next = first;
  let accepted = 0;
  try {
    while (Date.now() < end && next < first + inputs) {
      const count = Math.min(fuzzer.batch ?? batch, first + inputs - next);
      const { deadlineMs = 10_000 } = fuzzer;
      const result = await runBatch({ name, seed, first: next, count, folder, deadlineMs, fuzzers: fuzzers.href });
      accepted += result.accepted;
      for (const fault of result.faults) {
        const key = signature(fault);
        if (found.has(key)) found.get(key).count += 1;
        else {
          const saved = save(fault, { name, seed, folder, faultsFolder });
          found.set(key, { ...fault, saved, count: 1 });
          onFault?.({ ...fault, saved });
        }
      }
      if (result.faults.some(({ index }) => index < 0)) break;
      next = result.next;
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  return { inputs: next - first, accepted, faults: [...found.values()] };
}

function save({ index, kind, text }, { name, seed, folder, faultsFolder }) {
  const target = join(faultsFolder, `${name}-${seed}-${index}`);
  mkdirSync(target, { recursive: true });
  writeFileSync(
    join(target, 'fault.txt'),
    `${kind}\n${text}\n\nnpm run fuzz -- --only ${name} --seed ${seed} --index ${index}\n`,
  );
  const input = join(folder, 'input');
  if (existsSync(input)) cpSync(input, join(target, 'input'), { recursive: true, verbatimSymlinks: true });
  return target;
}
