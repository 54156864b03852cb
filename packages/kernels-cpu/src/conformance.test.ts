import { Backend } from '@q/tensor';
import { conformanceCases, Conformance } from '@q/tensor/conformance';
import { afterAll, describe, it } from 'vitest';
import { cpuAddon, type CpuIsa } from './index.js';

const addon = cpuAddon();
const best = addon.devices().devices[0].features.isa as CpuIsa;
// On other processors than x86 there is one set, and asking for less changes nothing.
const isas = (['scalar', 'avx2', 'avx512'] as const).slice(
  0,
  Math.max(['scalar', 'avx2', 'avx512'].indexOf(best), 0) + 1,
);

describe.each(isas)('%s', (isa) => {
  const backend = new Backend(addon.open(0, { isa, threads: isa === 'avx2' ? 3 : 2 }));
  afterAll(() => backend.close());

  it.each(conformanceCases.map((c) => [c.name, c] as const))('%s', (_, { run }) =>
    run(new Conformance(backend, 'f32')),
  );
});
