// Splitting a normalized text before the model sees it, as the `pre_tokenizer` of tokenizer.json says. Each does what
// the component of the tokenizers library of the same name does.
import { toByteChars } from './bytes.js';
import { patternOf, regExpPattern, textPattern, type Pattern } from './pattern.js';
import { cutPieces, mapPieces, splitBehaviors, splitPieces, type Pieces } from './pieces.js';
import type { Section } from './section.js';

export interface PreTokenizer {
  split(pieces: Pieces): Pieces;
  /** Has a regular expression that may take long. */
  readonly costly?: boolean;
}

const spaces = regExpPattern(/\p{White_Space}/gu);
const punctuation = regExpPattern(/[\p{P}!-/:-@[-`{-~]/gu);
const numbers = regExpPattern(/\p{N}/gu);
const words = regExpPattern(
  /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\u200c\u200d\p{White_Space}]+/gu,
);
const gpt2 = regExpPattern(
  /'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu,
);

const byPattern = (
  pattern: Pattern,
  ...how: [behavior: (typeof splitBehaviors)[number], invert?: boolean]
): PreTokenizer => ({
  costly: pattern.costly,
  split: (pieces) => splitPieces(pieces, pattern, ...how),
});

function byteLevel(section: Section): PreTokenizer {
  const prefixes = section.boolean('add_prefix_space', true);
  const splits = section.boolean('use_regex', true);
  return {
    split(pieces) {
      const prefixed = prefixes ? mapPieces(pieces, (text) => (text.startsWith(' ') ? text : ` ${text}`)) : pieces;
      return mapPieces(splits ? splitPieces(prefixed, gpt2, 'Isolated') : prefixed, toByteChars);
    },
  };
}

/** When Metaspace writes its character before a text. */
export const prependSchemes = ['first', 'never', 'always'] as const;

/** `prepend_scheme`, or what older files say with `add_prefix_space`. */
export function prependScheme(section: Section): (typeof prependSchemes)[number] {
  const older = section.boolean('add_prefix_space', true) ? 'always' : 'never';
  return section.word('prepend_scheme', prependSchemes, older);
}

function metaspace(section: Section): PreTokenizer {
  const mark = section.string('replacement', '\u2581');
  if ([...mark].length !== 1) section.fail('replacement', 'is not one character');
  const scheme = prependScheme(section);
  const splits = section.boolean('split', true);
  const marks = textPattern(mark);
  return {
    split(pieces) {
      const marked = mapPieces(pieces, (text) => text.replaceAll(' ', mark));
      const atOrigin = [...marked.atOrigin];
      const texts = marked.texts.map((text, i) => {
        const isFirst = (atOrigin[i] ?? 0) > 0;
        if (text.startsWith(mark) || scheme === 'never' || (scheme === 'first' && !isFirst)) return text;
        if (isFirst) atOrigin[i] += mark.length;
        return mark + text;
      });
      return splits ? splitPieces({ texts, atOrigin }, marks, 'MergedWithNext') : { texts, atOrigin };
    },
  };
}

function fixedLength(section: Section): PreTokenizer {
  const length = section.integer('length', 5, 1);
  return {
    split: (pieces) =>
      cutPieces(pieces, (text) => {
        const bounds: number[] = [];
        let [start, end, count] = [0, 0, 0];
        for (const char of text) {
          end += char.length;
          if (++count % length !== 0 && end < text.length) continue;
          bounds.push(start, end);
          start = end;
        }
        return bounds;
      }),
  };
}

function sequence(section: Section): PreTokenizer {
  const steps = section.sections('pretokenizers').map(preTokenizerOf);
  return {
    costly: steps.some(({ costly }) => costly),
    split: (pieces) => steps.reduce((out, step) => step.split(out), pieces),
  };
}

const kinds: Readonly<Record<string, (section: Section) => PreTokenizer>> = {
  BertPreTokenizer: () => ({
    split: (pieces) => splitPieces(splitPieces(pieces, spaces, 'Removed'), punctuation, 'Isolated'),
  }),
  ByteLevel: byteLevel,
  CharDelimiterSplit: (section) => {
    const delimiter = section.string('delimiter');
    if ([...delimiter].length !== 1) section.fail('delimiter', 'is not one character');
    return byPattern(textPattern(delimiter), 'Removed');
  },
  Digits: (section) => byPattern(numbers, section.boolean('individual_digits', false) ? 'Isolated' : 'Contiguous'),
  FixedLength: fixedLength,
  Metaspace: metaspace,
  Punctuation: (section) => byPattern(punctuation, section.word('behavior', splitBehaviors, 'Isolated')),
  Sequence: sequence,
  Split: (section) =>
    byPattern(patternOf(section), section.word('behavior', splitBehaviors), section.boolean('invert', false)),
  Whitespace: () => byPattern(words, 'Removed', true),
  WhitespaceSplit: () => byPattern(spaces, 'Removed'),
};

/** @throws CheckpointError for settings of the wrong type, UnsupportedError for an unknown kind. */
export function preTokenizerOf(section: Section): PreTokenizer {
  const type = section.string('type');
  return Object.hasOwn(kinds, type) ? kinds[type](section) : section.unsupported(Object.keys(kinds));
}
