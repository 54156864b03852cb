// What a host application feels: memory after many models, and a free event loop.
import { setFlagsFromString } from 'node:v8';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { runInNewContext } from 'node:vm';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { AutoModelForCausalLM, BitsAndBytesConfig, nanoFolder, type LoadModelOptions } from './index.js';

const nf4 = new BitsAndBytesConfig({ loadIn4bit: true, bnb4bitQuantType: 'nf4' });
const ways: LoadModelOptions[] = [{}, { quantizationConfig: nf4 }, { loadIn8bit: true }, { torchDtype: 'bfloat16' }];

/**
 * Resident memory after garbage collection; buffers of the addon are freed by finalizers, which run after the
 * collection.
 */
async function residentMB(): Promise<number> {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  for (let i = 0; i < 3; i++) {
    collect();
    await sleep(10);
  }
  return process.memoryUsage.rss() / 2 ** 20;
}

it('100 cycles of load, generate and dispose end within 20 MB of where they began', async () => {
  const cycle = async (i: number) => {
    await using model = await AutoModelForCausalLM.fromPretrained(nanoFolder(), {
      ...ways[i % ways.length],
      threads: 2,
    });
    await model.generate({
      inputIds: [
        [1, 2, 3, 4],
        [5, 6],
      ],
      maxNewTokens: 4,
      eosTokenId: null,
    });
  };
  for (let i = 0; i < 20; i++) await cycle(i);
  const before = await residentMB();
  for (let i = 0; i < 100; i++) await cycle(i);
  const drift = (await residentMB()) - before;
  console.log(`resident memory after 100 cycles: ${drift.toFixed(1)} MB more than the ${before.toFixed(0)} MB before`);
  expect(drift).toBeLessThan(20);
}, 120_000);

/** 99th percentile of the time between two ticks of a 1 ms timer, the millisecond included. */
async function delayDuring(work: () => PromiseLike<unknown>): Promise<number> {
  const monitor = monitorEventLoopDelay({ resolution: 1 });
  monitor.enable();
  await work();
  monitor.disable();
  return monitor.percentile(99) / 1e6;
}

const bound = 10;

/**
 * Best of a few runs, since other programs of the machine also delay the timer: their share differs from run to run,
 * Q's does not. The baseline, the delay of some time without work, is taken off.
 */
async function expectFreeLoop(what: string, work: () => PromiseLike<unknown>): Promise<void> {
  const runs: { delay: number; baseline: number }[] = [];
  for (let run = 0; run < 4; run++) {
    const baseline = await delayDuring(() => sleep(300));
    runs.push({ baseline, delay: await delayDuring(work) });
    if (runs[run].delay - baseline < bound) break;
  }
  console.log(
    `${what}: p99 delay of a 1 ms timer ${runs.map(({ delay, baseline }) => `${delay.toFixed(2)} ms (idle ${baseline.toFixed(2)} ms)`).join(', ')}`,
  );
  expect(Math.min(...runs.map(({ delay, baseline }) => delay - baseline))).toBeLessThan(bound);
}

it('leaves the event loop free while generating', async () => {
  await using model = await AutoModelForCausalLM.fromPretrained(nanoFolder(), {});
  const prompt = Array.from({ length: 300 }, (_, i) => (i * 7) % 1000);
  const generate = () =>
    model.generate({ inputIds: [prompt, prompt.slice(0, 50)], maxNewTokens: 200, eosTokenId: null });
  await generate();
  await expectFreeLoop('generating', generate);
}, 120_000);

it.each([
  ['float32', {}],
  ['nf4', { quantizationConfig: nf4 }],
  ['int8', { loadIn8bit: true }],
] as [string, LoadModelOptions][])(
  'leaves the event loop free while loading as %s',
  async (name, options) => {
    const load = async () => {
      for (let i = 0; i < 8; i++) await (await AutoModelForCausalLM.fromPretrained(nanoFolder(), options)).dispose();
    };
    await load();
    await expectFreeLoop(`loading as ${name}`, load);
  },
  120_000,
);
