import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { abiHash, nativeHeader } from './header.js';

it('native/q_ops.h is what the command table says', () => {
  const header = readFileSync(fileURLToPath(new URL('../../native/q_ops.h', import.meta.url)), 'utf8');
  expect(header, 'run `pnpm generate` in packages/tensor').toBe(nativeHeader());
  expect(header).toContain(`kAbi = "${abiHash}"`);
});
