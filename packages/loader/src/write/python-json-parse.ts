import { randomUUID } from 'node:crypto';
import { CheckpointError } from '@q/config';
import { scanJson } from '../safetensors/json-text.js';
import { PythonFloat } from './python-json.js';

const token = /"(?:[^"\\]|\\.)*"|-?(?:\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|Infinity)|NaN/g;

/** Longest integer, in digits: Python's own limit. */
const maxDigits = 4300;

/** A number that is more than a safe integer. */
function exactNumber(literal: string): bigint | PythonFloat {
  if (!/^-?\d+$/.test(literal)) return new PythonFloat(Number(literal));
  if (literal.length > maxDigits) throw new SyntaxError(`an integer has ${literal.length} digits`);
  return BigInt(literal);
}

/**
 * `JSON.parse` that keeps what Python tells apart: numbers written with a point or an exponent become PythonFloat (so
 * `1.0` is written back as `1.0`), integers beyond 2^53 become bigint, and Python's NaN and Infinity are taken. So
 * `pythonJsonFile(parsePythonJson(text))` gives a config that transformers wrote back byte for byte.
 * @throws CheckpointError for text that is not JSON, or nested more than 100 levels.
 */
export function parsePythonJson(text: string, file = 'JSON'): unknown {
  const mark = randomUUID(); // a key that no text can have
  try {
    const marked = text.replace(token, (found) => {
      const exact = /^"/.test(found) || (/^-?\d+$/.test(found) && Number.isSafeInteger(Number(found)));
      return exact ? found : `{"${mark}":"${found}"}`;
    });
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
