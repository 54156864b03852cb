// Capital and small letters as Python's str has them.

/** As str.title: letters behind what is no letter are capital, the others small. */
export const titleCase = (text: string): string =>
  text.replace(/\p{L}+/gu, (word) => {
    const first = String.fromCodePoint(word.codePointAt(0)!);
    return titleLetter(first) + word.slice(first.length).toLowerCase();
  });

/** Letters that are two letters have a third form for titles: `ǆ`, `ǅ`, `Ǆ`; ligatures give one capital. */
function titleLetter(letter: string): string {
  const upper = letter.toUpperCase();
  const digraph = /^[\u01c4-\u01cc\u01f1-\u01f3]$/.test(letter);
  if (digraph)
    return String.fromCharCode(
      letter <= '\u01c6' ? 0x1c5 : letter <= '\u01c9' ? 0x1c8 : letter <= '\u01cc' ? 0x1cb : 0x1f2,
    );
  const [first, ...rest] = upper;
  return first + rest.join('').toLowerCase();
}

/** As str.capitalize. */
export function capitalize(text: string): string {
  if (text === '') return text;
  const first = String.fromCodePoint(text.codePointAt(0)!);
  return titleLetter(first) + text.slice(first.length).toLowerCase();
}

/** As str.swapcase. */
export const swapCase = (text: string): string =>
  [...text].map((c) => (c === c.toLowerCase() ? c.toUpperCase() : c.toLowerCase())).join('');

/** Whether a text has letters with case, and all of them are so. */
export const isCase = (text: string, changed: (text: string) => string): boolean =>
  /[\p{Lu}\p{Ll}\p{Lt}]/u.test(text) && changed(text) === text;
