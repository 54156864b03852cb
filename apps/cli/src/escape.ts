// Names and texts from files and servers are shown, never obeyed: a terminal acts on control characters, and reads
// text in another order after bidi controls.

/** Everything without a glyph of its own: controls, formats (bidi, zero width, tags), line separators, half pairs. */
const unprintable = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;
/** In running text joiners and direction marks are part of words and emoji; what reorders or controls is not. */
const controls = /[\p{Cc}\p{Zl}\p{Zp}\p{Cs}\u202a-\u202e\u2066-\u2069]/gu;

const codePoint = (character: string): string => `\\u{${character.codePointAt(0)!.toString(16)}}`;

/** A name or message on one line: what a terminal would act on, newlines too, is written as `\u{1b}`. */
export const visible = (text: string): string => text.replace(unprintable, codePoint);

/** Text of several lines: newlines and tabs stay. */
export const visibleText = (text: string): string =>
  text.replace(controls, (character) => (character === '\n' || character === '\t' ? character : codePoint(character)));

/** JSON with nothing in it that a terminal acts on; parses to the same value. */
export const visibleJson = (json: string): string =>
  json.replace(unprintable, (characters) =>
    characters === '\n'
      ? characters
      : characters
          .split('')
          .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
          .join(''),
  );
