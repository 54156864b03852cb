import { describe, expect, it } from 'vitest';
import { CheckpointError, ConfigError } from './errors.js';
import { printable } from './printable.js';

describe('printable', () => {
  it.each([
    ['plain text, é, 漢字, 🦙', 'plain text, é, 漢字, 🦙'],
    ['\u001b]0;owned\u0007', '\\x1b]0;owned\\x07'],
    ['a\nb\r\tc\0', 'a\\nb\\r\\tc\\x00'],
    ['\u009b31m\u007f', '\\x9b31m\\x7f'],
    ['abc\u202edcba\u2066', 'abc\\u202edcba\\u2066'],
    ['\u2028\ufeff\ud800x', '\\u2028\\ufeff\\ud800x'],
  ])('%j', (text, shown) => expect(printable(text)).toBe(shown));
});

describe('messages', () => {
  const hostile = 'a\u001b[2J\nb';

  it('escape names wherever they stand, and keep them in the fields', () => {
    const error = new CheckpointError('load', `no tensor ${hostile}`, {
      tensor: hostile,
      list: [hostile, '\u009b'],
      why: hostile,
      fix: hostile,
    });
    // eslint-disable-next-line no-control-regex
    expect(error.message).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
    expect(error.message).toContain('no tensor a\\x1b[2J\\nb');
    expect(error.fields.tensor).toBe(hostile);
  });

  it('are cut where a name is very long, and survive values that JSON cannot hold', () => {
    const long = 'x'.repeat(1_000_000);
    const error = new ConfigError('op', `what ${long}`, { long, names: Array.from({ length: 50_000 }, () => 'name') });
    expect(error.message.length).toBeLessThan(10_000);
    expect(error.fields.long).toBe(long);
    const cycle: unknown[] = [];
    cycle.push(cycle);
    let deep: unknown = [];
    for (let i = 0; i < 50_000; i++) deep = [deep];
    expect(new ConfigError('op', 'what', { cycle, deep, big: 1n }).message).toMatch(/cannot be shown.*big 1/);
  });
});
