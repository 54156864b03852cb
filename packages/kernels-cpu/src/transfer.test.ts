// Copies between the CPU and other devices, and between two queues of the CPU.
import { Backend, ReferenceDriver } from '@q/tensor';
import { transferCases } from '@q/tensor/conformance';
import { describe, it } from 'vitest';
import { cpuAddon } from './index.js';

const cpu = () => new Backend(cpuAddon().open(0, { threads: 2 }));
const reference = () => new Backend(new ReferenceDriver());

describe.each([
  ['CPU to CPU', cpu, cpu],
  ['CPU to the reference', cpu, reference],
  ['the reference to CPU', reference, cpu],
] as const)('%s', (_, openFrom, openTo) => {
  it.each(transferCases.map((c) => [c.name, c] as const))('%s', async (_, { run }) => {
    const pair = { from: openFrom(), to: openTo() };
    try {
      await run(pair);
    } finally {
      await Promise.all([pair.from.close(), pair.to.close()]);
    }
  });
});
