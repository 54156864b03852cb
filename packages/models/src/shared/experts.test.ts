import { eager, referenceBackend } from '@q/tensor';
import { expect, it } from 'vitest';
import { Router } from './experts.js';

// The logit of the one expert, 3 + 2^-10, is 3 in bfloat16.
it.each([
  [true, 3 + 2 ** -10],
  [false, 3],
])('a router with inFp32 %s has logits of %d in a bfloat16 model', async (inFp32, logit) => {
  const backend = referenceBackend();
  const router = new Router('Router', { hiddenSize: 2, numExperts: 1 }, { choices: 1, kind: 'sigmoid' }, { inFp32 });
  router.weight.load(backend.tensor(Float32Array.of(3, 2 ** -10), [1, 2], 'bf16'));
  const scores = backend.scope(() => {
    const x = backend.tensor(Float32Array.of(1, 1), [1, 2], 'f32');
    return backend.lowered(eager('bf16'), () => router.forward(x)).scores.keep();
  });
  expect((await scores.data())[0]).toBe(Math.fround(1 / (1 + Math.exp(-logit))));
  scores.dispose();
  router.dispose();
  await backend.close();
});
