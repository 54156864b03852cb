import { afterAll, describe, it } from 'vitest';
import { referenceBackend } from '../reference/driver.js';
import { brokenCases } from './broken.js';
import { cancelCases } from './cancel.js';
import { Conformance } from './harness.js';
import { refusalCases } from './refusals.js';

// The other cases compare with the reference itself.
describe.each(['f32', 'f16', 'bf16'] as const)('the reference, %s', (dtype) => {
  const backend = referenceBackend();
  afterAll(() => backend.close());

  // Attention computes in double precision whatever the dtype: once is enough.
  const broken = brokenCases.filter(({ name }) => dtype === 'f32' || !name.includes('attention'));
  it.each([...broken, ...refusalCases, ...cancelCases].map((c) => [c.name, c] as const))(
    '%s',
    { timeout: 60_000 },
    (_, { run }) => run(new Conformance(backend, dtype)),
  );
});
