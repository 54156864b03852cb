import { ConfigError } from './errors.js';

/** A value of a caller in a message: numbers as they are (NaN and Infinity too), other things by what they are. */
export function describeValue(value: unknown): string {
  if (value === null || ['number', 'boolean', 'undefined'].includes(typeof value)) return String(value);
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value);
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : 'a list';
  const name = (value as { constructor?: { name?: string } }).constructor?.name;
  const what = typeof value === 'object' && name && name !== 'Object' ? name : typeof value;
  return `${/^[aeiou]/i.test(what) ? 'an' : 'a'} ${what}`;
}

/**
 * Checks a whole number that a caller gave.
 * @param op what is being called; opens the message
 * @param name the option, as the caller wrote it
 * @throws ConfigError unless it is an integer from `min` (default 1) to `max` (default 2^53 - 1)
 */
export function assertInteger(
  op: string,
  name: string,
  value: unknown,
  { min = 1, max = Number.MAX_SAFE_INTEGER }: { min?: number; max?: number } = {},
): asserts value is number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return;
  const range = max === Number.MAX_SAFE_INTEGER ? `of ${min} or more` : `from ${min} to ${max}`;
  throw new ConfigError(op, `${name} is ${describeValue(value)}`, { why: `it must be a whole number ${range}` });
}

/** @throws ConfigError unless it is a function or undefined. */
export function assertCallback(op: string, name: string, value: unknown): void {
  if (value === undefined || typeof value === 'function') return;
  throw new ConfigError(op, `${name} is ${describeValue(value)}`, { fix: 'give a function, or leave it out' });
}

/** @throws ConfigError unless it is an AbortSignal or undefined. */
export function assertSignal(op: string, signal: unknown): asserts signal is AbortSignal | undefined {
  if (signal === undefined || signal instanceof AbortSignal) return;
  throw new ConfigError(op, `signal is ${describeValue(signal)}`, {
    fix: 'give the signal of an AbortController, or leave it out',
  });
}
