import { expect, it } from 'vitest';
import { numbers } from '../conformance/harness.js';
import { ReferenceDriver } from '../reference/driver.js';
import { fuzzNative } from './fuzz-native.js';

it('makes calls of every kind: most say what is wrong with them, many run', { timeout: 60_000 }, async () => {
  const driver = new ReferenceDriver();
  const answers: (string | undefined)[] = [];
  for (let seed = 0; seed < 600; seed++) answers.push(await fuzzNative(driver, numbers(seed).uniform));
  const ran = answers.filter((answer) => answer === undefined).length;
  expect(ran).toBeGreaterThan(150);
  expect(ran).toBeLessThan(500);
  expect(driver.memory().allocatedBytes).toBe(0);
  // The same numbers, the same call.
  expect(await fuzzNative(driver, numbers(3).uniform)).toBe(answers[3]);
});
