// Names come from files of strangers: what a terminal or a log would act on is shown as an escape.
// eslint-disable-next-line no-control-regex
const acting = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]|\p{Surrogate}/gu;

const escapes: ReadonlyMap<string, string> = new Map([
  ['\n', '\\n'],
  ['\r', '\\r'],
  ['\t', '\\t'],
]);

/**
 * The text on one line, without what a terminal acts on: control characters, marks of writing direction, invisible
 * characters and halves of surrogate pairs appear as `\n`, `\x1b` or `\u202e`. Everything else stays as it is.
 */
export const printable = (text: string): string =>
  text.replace(acting, (unit) => {
    const code = unit.charCodeAt(0);
    const hex = code.toString(16);
    return escapes.get(unit) ?? (code < 0x100 ? `\\x${hex.padStart(2, '0')}` : `\\u${hex.padStart(4, '0')}`);
  });
