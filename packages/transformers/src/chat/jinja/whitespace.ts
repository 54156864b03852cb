// What Python's str methods take as white space: unlike JavaScript's, U+001C to U+001F and U+0085, and not U+FEFF.
const BLANKS = new Set(
  [
    9, 10, 11, 12, 13, 0x1c, 0x1d, 0x1e, 0x1f, 0x20, 0x85, 0xa0, 0x1680, 0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005,
    0x2006, 0x2007, 0x2008, 0x2009, 0x200a, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000,
  ].map((code) => String.fromCharCode(code)),
);

/** As str.isspace(), for one character. */
export const isSpace = (character: string): boolean => BLANKS.has(character);

/** Whether a text is nothing but white space; the empty text is. */
export function isBlank(text: string): boolean {
  for (const character of text) if (!BLANKS.has(character)) return false;
  return true;
}

/** As str.lstrip(); `chars`: characters to strip instead of white space. */
export function trimStart(text: string, chars: ReadonlySet<string> = BLANKS): string {
  let start = 0;
  while (start < text.length) {
    const character = String.fromCodePoint(text.codePointAt(start)!);
    if (!chars.has(character)) break;
    start += character.length;
  }
  return text.slice(start);
}

/** As str.rstrip(). */
export function trimEnd(text: string, chars: ReadonlySet<string> = BLANKS): string {
  let end = text.length;
  while (end > 0) {
    const pair = end > 1 ? text.codePointAt(end - 2)! : 0;
    const width = pair > 0xffff ? 2 : 1;
    if (!chars.has(text.slice(end - width, end))) break;
    end -= width;
  }
  return text.slice(0, end);
}

export const trim = (text: string, chars?: ReadonlySet<string>): string => trimEnd(trimStart(text, chars), chars);
