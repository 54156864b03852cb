import { randomUUID } from 'node:crypto';
import { CheckpointError, jsonStringEnd, MAX_ENTRIES, PythonFloat } from '@q/config';
import { scanJson } from '../safetensors/json-text.js';
import { maxDigits } from '../limits.js';

const number = /-?(?:\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|Infinity)|NaN/g;

/** A number that is more than a safe integer. */
function exactNumber(literal: string): bigint | PythonFloat {
  if (!/^-?\d+$/.test(literal)) return new PythonFloat(Number(literal));
  if (literal.length > maxDigits) throw new SyntaxError(`an integer has ${literal.length} digits`);
  return BigInt(literal);
}

/** The text with each number that JavaScript's parser would change as an object of the key `mark`. */
function markNumbers(text: string, mark: string): string {
  let count = 0;
  const marked = (part: string): string =>
    part.replace(number, (found) => {
      if (/^-?\d+$/.test(found) && Number.isSafeInteger(Number(found))) return found;
      if (++count > MAX_ENTRIES) throw new SyntaxError(`it has more than ${MAX_ENTRIES} numbers that are no integers`);
      return `{"${mark}":"${found}"}`;
    });
  const parts: string[] = [];
  let from = 0;
  for (let at = text.indexOf('"'); at >= 0; at = text.indexOf('"', from)) {
    parts.push(marked(text.slice(from, at)));
    const end = jsonStringEnd(text, at + 1);
    if (end < 0) throw new SyntaxError('a string has no end');
    parts.push(text.slice(at, end + 1));
    from = end + 1;
  }
  parts.push(marked(text.slice(from)));
  return parts.join('');
}

/**
 * `JSON.parse` that keeps what Python tells apart: numbers written with a point or an exponent become PythonFloat (so
 * `1.0` is written back as `1.0`), integers beyond 2^53 become bigint, and Python's NaN and Infinity are taken. So
 * `pythonJsonFile(parsePythonJson(text))` gives a config that transformers wrote back byte for byte.
 * @throws CheckpointError for text that is not JSON, or nested more than 100 levels, or of more than
 *   `MAX_ENTRIES` such numbers.
 */
export function parsePythonJson(text: string, file = 'JSON'): unknown {
  const mark = randomUUID(); // a key that no text can have
  try {
    const marked = markNumbers(text, mark);
    JSON.parse(marked);
    const { tooDeep } = scanJson(marked);
    if (tooDeep) throw new SyntaxError(`it is nested too deeply, ${tooDeep}`);
    return JSON.parse(marked, (_, value: unknown) => {
      const literal =
        typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[mark] : undefined;
      return typeof literal === 'string' ? exactNumber(literal) : value;
    }) as unknown;
  } catch (cause) {
    throw new CheckpointError('checkpoint', 'the file is not valid JSON', {
      file,
      why: (cause as Error).message.slice(0, 200),
      cause,
    });
  }
}
