import { jsonStringEnd } from '@q/config';
import { maxJsonDepth } from '../limits.js';

const [quote, comma, openBrace, closeBrace, openBracket, closeBracket] = [...'",{}[]'].map((c) => c.charCodeAt(0));

export interface JsonScan {
  /** The first key that an object has twice. */
  readonly duplicate?: string;
  /** Set when values are nested deeper than {@link maxJsonDepth}: says so. Nothing behind that place was looked at. */
  readonly tooDeep?: string;
}

/**
 * What `JSON.parse` does not tell of a text that is valid JSON: it keeps the last of two equal keys (which would let a
 * file show two faces), and takes any depth (which would exhaust the stack of whoever walks the value).
 */
export function scanJson(text: string): JsonScan {
  const open: (Set<string> | null)[] = []; // a set of keys for an object, null for an array
  let expectKey = false;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === quote) {
      const start = i;
      i = jsonStringEnd(text, i + 1);
      if (!expectKey) continue;
      expectKey = false;
      const raw = text.slice(start + 1, i);
      const key = raw.includes('\\') ? (JSON.parse(`"${raw}"`) as string) : raw;
      const keys = open[open.length - 1];
      if (keys?.has(key)) return { duplicate: key };
      keys?.add(key);
    } else if (c === openBrace || c === openBracket) {
      if (open.length === maxJsonDepth) return { tooDeep: `more than ${maxJsonDepth} levels` };
      open.push(c === openBrace ? new Set() : null);
      expectKey = c === openBrace;
    } else if (c === closeBrace || c === closeBracket) {
      open.pop();
      expectKey = false;
    } else if (c === comma) {
      expectKey = open[open.length - 1] != null;
    }
  }
  return {};
}
