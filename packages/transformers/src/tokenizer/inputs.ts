// What callers give, checked before it goes deeper.
import { ConfigError } from '@q/config';

const shown = (value: unknown): string => {
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value);
  if (Array.isArray(value)) return 'a list';
  return typeof value === 'object' && value !== null ? 'an object' : String(value);
};

/** @throws ConfigError unless it is a text. */
export function checkText(op: string, name: string, value: unknown, fix = 'give a string'): string {
  if (typeof value === 'string') return value;
  throw new ConfigError(op, `${name} is ${shown(value)}, not a text`, { fix });
}

/** @throws ConfigError unless it is a list with something in it; `fix` says what to do with a text or a number. */
export function checkList(op: string, name: string, value: unknown, fix: string): readonly unknown[] {
  if (Array.isArray(value) && value.length === 0)
    throw new ConfigError(op, `${name} is an empty list`, { fix: 'give at least one' });
  if (Array.isArray(value)) return value as readonly unknown[];
  throw new ConfigError(op, `${name} is ${shown(value)}, not a list`, { fix });
}

type IdArray = Exclude<NodeJS.TypedArray, BigInt64Array | BigUint64Array>;

const isIdArray = (value: unknown): value is IdArray =>
  ArrayBuffer.isView(value) && !(value instanceof DataView) && typeof (value as IdArray)[0] !== 'bigint';

/** Token ids as a list. @throws ConfigError unless they are whole numbers from 0. */
export function checkIds(op: string, name: string, value: unknown): readonly number[] {
  if (!Array.isArray(value) && !isIdArray(value))
    throw new ConfigError(op, `${name} is ${shown(value)}, not a list of token ids`, {
      fix: typeof value === 'number' ? `give [${value}]` : 'give numbers, such as encode returns',
    });
  const ids = Array.isArray(value) ? (value as readonly unknown[]) : Array.from(value);
  const wrong = ids.findIndex((id) => !Number.isSafeInteger(id) || (id as number) < 0);
  if (wrong < 0) return ids as readonly number[];
  const fix =
    Array.isArray(ids[wrong]) || ArrayBuffer.isView(ids[wrong])
      ? 'use batchDecode for several lists'
      : typeof ids[wrong] === 'bigint'
        ? 'turn them into numbers: ids.map(Number)'
        : 'give whole numbers from 0';
  throw new ConfigError(op, `${name}[${wrong}] is ${shown(ids[wrong])}, not a token id`, { fix });
}

export function checkFlag(op: string, name: string, value: unknown): void {
  if (value !== undefined && typeof value !== 'boolean')
    throw new ConfigError(op, `${name} is ${shown(value)}`, { fix: 'use true or false' });
}

export function checkCount(op: string, name: string, value: unknown): void {
  if (value !== undefined && (!Number.isSafeInteger(value) || (value as number) < 1))
    throw new ConfigError(op, `${name} is ${shown(value)}`, { fix: 'use a whole number from 1' });
}

export function checkWord(op: string, name: string, value: unknown, words: readonly string[]): void {
  if (value !== undefined && !words.includes(value as string))
    throw new ConfigError(op, `${name} is ${shown(value)}`, { fix: `use ${words.map((w) => `"${w}"`).join(' or ')}` });
}
