// Worker threads that are terminated in the middle of a model's work end alone: the process goes on.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';

/** A main thread that terminates 20 others; each scores or runs passes over long inputs without end. */
const program = `
  import { once } from 'node:events';
  import { setTimeout as sleep } from 'node:timers/promises';
  import { fileURLToPath } from 'node:url';
  import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
  if (isMainThread) {
    for (let i = 0; i < 20; i++) {
      const worker = new Worker(fileURLToPath(import.meta.url), { workerData: i % 2 === 0 ? 'score' : 'forward' });
      await once(worker, 'message');
      await sleep(i * 4);
      await worker.terminate();
    }
    console.log('survived');
  } else {
    const { AutoModelForCausalLM, nanoFolder } = await import('${new URL('../dist/index.js', import.meta.url).href}');
    const model = await AutoModelForCausalLM.fromPretrained(nanoFolder(), { threads: 2 });
    const ids = Array.from({ length: 1500 }, (_, i) => (i * 7) % 1000);
    const works = {
      score: () => model.score([ids, ids.slice(0, 300)]),
      forward: async () => {
        const output = model.forward({ inputIds: [ids] });
        await output.logits.data();
        output.dispose();
      },
    };
    parentPort.postMessage('works');
    for (;;) await works[workerData]();
  }`;

it('20 threads that score, or run a long pass, may be terminated', { timeout: 240_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'q-terminated-'));
  const script = join(folder, 'terminated.mjs');
  writeFileSync(script, program);
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [script], {
    encoding: 'utf8',
    timeout: 230_000,
  });
  rmSync(folder, { recursive: true });
  expect({ status, signal, stdout, stderr }).toEqual({ status: 0, signal: null, stdout: 'survived\n', stderr: '' });
});
