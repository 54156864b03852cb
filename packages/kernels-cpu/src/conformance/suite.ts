import { Backend } from '@q/tensor';
import { conformanceCases, Conformance } from '@q/tensor/conformance';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { cpuAddon, type CpuIsa } from '../index.js';

/** The conformance suite on one set of instructions: a file for each, which run beside each other. */
export function conformanceOn(isa: CpuIsa, threads: number): void {
  const addon = cpuAddon();
  const sets: readonly CpuIsa[] = ['scalar', 'avx2', 'avx512'];
  const best = sets.indexOf(addon.devices().devices[0].features.isa as CpuIsa);

  // On other processors than x86 there is one set, and asking for less changes nothing.
  describe.skipIf(sets.indexOf(isa) > Math.max(best, 0))(isa, () => {
    let backend: Backend;
    beforeAll(() => {
      backend = new Backend(addon.open(0, { isa, threads }));
    });
    afterAll(() => backend.close());

    it.each(conformanceCases.map((c) => [c.name, c] as const))('%s', (_, { run }) =>
      run(new Conformance(backend, 'f32')),
    );
  });
}
