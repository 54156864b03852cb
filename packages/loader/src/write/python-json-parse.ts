import { CheckpointError } from '@q/config';
import { PythonFloat } from './python-json.js';

const token = /"(?:[^"\\]|\\.)*"|-?(?:\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|Infinity)|NaN/g;
const mark = '\u0000float';

/**
 * `JSON.parse` that keeps what Python tells apart: numbers written with a point or an exponent become PythonFloat (so
 * `1.0` is written back as `1.0`), integers beyond 2^53 become bigint, and Python's NaN and Infinity are taken. So
 * `pythonJsonFile(parsePythonJson(text))` gives a config that transformers wrote back byte for byte.
 * @throws CheckpointError for text that is not JSON.
 */
export function parsePythonJson(text: string, file = 'JSON'): unknown {
  const marked = text.replace(token, (found) => {
    const exact = /^"/.test(found) || (/^-?\d+$/.test(found) && Number.isSafeInteger(Number(found)));
    return exact ? found : `{"\\u0000float":"${found}"}`;
  });
  try {
    return JSON.parse(marked, (_, value: unknown) => {
      const literal =
        typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[mark] : undefined;
      if (typeof literal !== 'string') return value;
      return /^-?\d+$/.test(literal) ? BigInt(literal) : new PythonFloat(Number(literal));
    }) as unknown;
  } catch (cause) {
    throw new CheckpointError('checkpoint', 'the file is not valid JSON', {
      file,
      why: (cause as Error).message.slice(0, 200),
      cause,
    });
  }
}
