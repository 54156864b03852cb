// Runs inputs of one fuzzer, one after the other. The parent learns through a file which one is running, so that it
// knows what ended this process; faults that can be caught are sent.
import { mkdirSync, openSync, readdirSync, readlinkSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { QError } from '../../packages/transformers/dist/index.js';
import { Random } from './random.mjs';

const { name, seed, first, count, folder, progressFile, fuzzers } = JSON.parse(process.argv[2]);
const { default: fuzzer } = await import(new URL(`${name}.mjs`, fuzzers));
const deadlineMs = fuzzer.deadlineMs ?? 10_000;
const memoryBytes = fuzzer.memoryBytes ?? 384 << 20;

const progress = openSync(progressFile, 'w');
const word = Buffer.alloc(8);
let running = first;
const begin = (index) => {
  running = index;
  word.writeDoubleLE(index);
  writeSync(progress, word, 0, 8, 0);
};
let faults = 0;
// After an error that was merely of the wrong class the process is as before; after anything else it may not be.
let isSpoilt = false;
const report = (kind, text, index = running) => {
  faults += 1;
  isSpoilt ||= kind !== 'untyped error';
  process.send({ index, kind, text: String(text).slice(0, 2000) });
};

const textOf = (error) => (error instanceof Error ? (error.stack ?? String(error)) : `thrown: ${String(error)}`);
process.on('unhandledRejection', (error) => report('unhandled rejection', textOf(error)));
process.on('uncaughtException', (error) => report('uncaught exception', textOf(error)));
process.on('warning', (warning) => {
  if (/garbage collection|listeners? added|MaxListeners/.test(warning.message)) report('leak', warning.message);
});

// What no input may change.
const shared = [Object.prototype, Array.prototype, Function.prototype, Map.prototype, Promise.prototype, globalThis];
const ownKeys = () => shared.map((object) => Reflect.ownKeys(object).map(String).join()).join('|');

/** Files under the folder that are still open. */
function openFiles() {
  try {
    return readdirSync('/proc/self/fd').flatMap((fd) => {
      try {
        const path = readlinkSync(`/proc/self/fd/${fd}`);
        return path.startsWith(folder) && !path.startsWith(progressFile) ? [path] : [];
      } catch {
        return []; // the one that read the list
      }
    });
  } catch {
    return []; // not Linux
  }
}

async function leftOpen() {
  let files = openFiles();
  for (let wait = 5; files.length > 0 && wait < 1000; wait *= 2) {
    await sleep(wait);
    files = openFiles();
  }
  return files;
}

const isExpected = (error) =>
  error instanceof QError || ['AbortError', 'TimeoutError'].includes(error?.name) || fuzzer.expects?.(error) === true;

async function runOne(input, state) {
  let timer;
  const late = new Promise((resolve) => (timer = setTimeout(resolve, deadlineMs, 'late')));
  try {
    if ((await Promise.race([fuzzer.run(input, state), late])) === 'late') report('hang', 'the promise never settles');
    else process.send({ accepted: true });
  } catch (error) {
    if (!isExpected(error)) report('untyped error', textOf(error));
  } finally {
    clearTimeout(timer);
  }
}

// Good inputs first: a fuzzer whose seeds fail tests nothing, and what is made once is made now.
mkdirSync(join(folder, 'input'), { recursive: true });
const state = (await fuzzer.setup?.(join(folder, 'input'))) ?? join(folder, 'input');
for (const good of fuzzer.good?.(state) ?? []) {
  try {
    await fuzzer.run(good, state);
  } catch (error) {
    report('refuses a good input', textOf(error), -1);
    process.exit(0);
  }
}
await sleep(20);
const keysBefore = ownKeys();
const resourcesBefore = process.getActiveResourcesInfo().length;

for (let index = first; index < first + count; index++) {
  begin(index);
  const input = fuzzer.make(new Random(seed, name, index), state, index);
  const started = performance.now();
  const peak = process.resourceUsage().maxRSS;
  const before = faults;
  await runOne(input, state);
  const took = performance.now() - started;
  if (took > deadlineMs && faults === before) report('slow', `took ${took.toFixed(0)} ms`);
  const grown = (process.resourceUsage().maxRSS - peak) * 1024;
  if (grown > memoryBytes) report('memory', `took ${(grown / 2 ** 20).toFixed(0)} MiB`);
  if (ownKeys() !== keysBefore) report('pollution', 'a shared prototype was changed');
  const files = await leftOpen();
  if (files.length > 0) report('leak', `left open: ${files.join(', ')}`);
  // The parent starts a fresh process at the next input.
  if (isSpoilt) process.exit(0);
}
globalThis.gc?.();
await sleep(50);
const left = process.getActiveResourcesInfo();
if (left.length > resourcesBefore + 8) report('leak', `still active after ${count} inputs: ${left.join(', ')}`);
await fuzzer.close?.(state);
begin(first + count);
rmSync(join(folder, 'input'), { recursive: true, force: true });
process.exit(0);
