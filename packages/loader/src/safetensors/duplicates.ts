const [quote, backslash, comma, openBrace, closeBrace, openBracket, closeBracket] = [...'"\\,{}[]'].map((c) =>
  c.charCodeAt(0),
);

/** Index of the quote that ends the string which begins before `from`. */
function stringEnd(text: string, from: number): number {
  for (let end = text.indexOf('"', from); ; end = text.indexOf('"', end + 1)) {
    let slashes = 0;
    while (text.charCodeAt(end - 1 - slashes) === backslash) slashes++;
    if (slashes % 2 === 0) return end;
  }
}

/**
 * The first key that an object inside `text` has twice, or `undefined`. `text` must already be valid JSON
 * (`JSON.parse` keeps the last of two equal keys and says nothing, which would let a file show two faces).
 */
export function duplicateKey(text: string): string | undefined {
  const open: (Set<string> | null)[] = []; // a set of keys for an object, null for an array
  let expectKey = false;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === quote) {
      const start = i;
      i = stringEnd(text, i + 1);
      if (!expectKey) continue;
      expectKey = false;
      const raw = text.slice(start + 1, i);
      const key = raw.includes('\\') ? (JSON.parse(`"${raw}"`) as string) : raw;
      const keys = open[open.length - 1];
      if (keys?.has(key)) return key;
      keys?.add(key);
    } else if (c === openBrace) {
      open.push(new Set());
      expectKey = true;
    } else if (c === openBracket) {
      open.push(null);
      expectKey = false;
    } else if (c === closeBrace || c === closeBracket) {
      open.pop();
      expectKey = false;
    } else if (c === comma) {
      expectKey = open[open.length - 1] != null;
    }
  }
  return undefined;
}
