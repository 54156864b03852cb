import { expect, it } from 'vitest';
import { cpuAddon } from './index.js';

it('measures what the machine can do, without blocking, and no more than is possible', async () => {
  const addon = cpuAddon();
  const { features } = addon.devices().devices[0];
  let ticks = 0;
  const timer = setInterval(() => (ticks += 1), 5);
  const { readBytesPerSecond, f32FlopsPerSecond, vnniOpsPerSecond, amxOpsPerSecond } = await addon.ceilings(1);
  clearInterval(timer);
  expect(ticks).toBeGreaterThan(10);
  expect(readBytesPerSecond).toBeGreaterThan(1e8);
  expect(f32FlopsPerSecond).toBeGreaterThan(1e8);
  expect(f32FlopsPerSecond).toBeLessThan(6e9 * 128); // 6 GHz, two units of 16 lanes, two operations each: with twice that, chains were merged
  expect(vnniOpsPerSecond > 0).toBe(features.avx512Vnni === true);
  expect(amxOpsPerSecond > 0).toBe(features.amxInt8 === true);
  expect(() => addon.ceilings(0)).toThrow(/threads is out of range/);
});
